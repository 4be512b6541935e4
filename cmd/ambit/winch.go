package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchSize tells the terminal's size each time it changes, until stop.
func watchSize(f *os.File) (sizes <-chan [2]uint16, stop func()) {
	changed := make(chan os.Signal, 1)
	out := make(chan [2]uint16, 1)
	done, ended := make(chan struct{}), make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-changed:
				if s, ok := termSize(f); ok {
					select {
					case out <- s:
					case <-done:
						return
					}
				}
			}
		}
	}()
	return out, func() {
		signal.Stop(changed)
		close(done)
		<-ended
	}
}
