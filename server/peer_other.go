//go:build !linux

package server

import (
	"errors"
	"net"
	"syscall"
)

// peerUID knows nobody: the control plane runs on Linux.
func peerUID(*net.UnixConn) (int, error) {
	return 0, errors.New("the control plane runs on Linux only")
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
