//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// flood takes all it can get of one thing, says how far it came, and holds what
// it has until it is ended.
func flood(args []string) error {
	if len(args) != 1 {
		return errors.New("flood needs a kind")
	}
	switch args[0] {
	case "fork":
		return forkBomb()
	case "memory":
		return hogMemory()
	case "disk":
		return fillDisk(os.Getenv("HOME"))
	case "files":
		return takeDescriptors()
	case "connections":
		return takeConnections()
	case "output":
		return floodOutput()
	case "names":
		return floodNames()
	}
	return fmt.Errorf("no flood of %q", args[0])
}

// hold is until the computer or the test ends this process.
func hold() error {
	time.Sleep(time.Hour)
	return nil
}

func forkBomb() error {
	for n := 0; ; n++ {
		cmd := exec.Command("/proc/self/exe", "flood", "fork")
		if err := cmd.Start(); err != nil {
			say("fork", false, fmt.Sprintf("after %d: %v", n, err))
			return hold()
		}
	}
}

func hogMemory() error {
	var kept [][]byte
	for {
		b := bytes.Repeat([]byte{0xa5}, 16<<20)
		kept = append(kept, b)
		if len(kept)%16 == 0 {
			say("memory", true, strconv.Itoa(len(kept)*16)+" MiB")
		}
	}
}

func fillDisk(dir string) error {
	chunk := bytes.Repeat([]byte{0xa5}, 1<<20)
	for n := 0; ; n++ {
		f, err := os.Create(filepath.Join(dir, "fill-"+strconv.Itoa(n)))
		if err == nil {
			for range 16 {
				if _, err = f.Write(chunk); err != nil {
					break
				}
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			say("disk", false, fmt.Sprintf("after %d MiB: %v", n*16, err))
			return hold()
		}
	}
}

func takeDescriptors() error {
	var kept []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			say("files", false, fmt.Sprintf("after %d: %v", len(kept), err))
			return hold()
		}
		kept = append(kept, f)
	}
}

// takeConnections opens connections to the gate, past init, and says nothing on
// them.
func takeConnections() error {
	var kept []net.Conn
	for {
		c, err := net.DialTimeout("unix", "/ambit/gate/gate.sock", patience)
		if err != nil || len(kept) == 4000 {
			say("connections", err == nil, fmt.Sprintf("after %d: %v", len(kept), err))
			return hold()
		}
		kept = append(kept, c)
	}
}

// floodOutput writes 32 MiB to standard output.
func floodOutput() error {
	line := bytes.Repeat([]byte("flood "), 1<<10)
	line[len(line)-1] = '\n'
	for range 32 << 20 / len(line) {
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// floodNames asks for names that no rule allows, each of which is an entry of
// the log.
func floodNames() error {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 50 {
				_, _ = net.LookupHost(fmt.Sprintf("n%d-%d.evil.example", w, n))
			}
		})
	}
	wg.Wait()
	say("names", true, "400")
	return nil
}
