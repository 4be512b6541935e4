package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
)

// maxSocketPath is the longest path of a Unix socket, in bytes (sun_path less
// its end mark).
const maxSocketPath = 107

// Listeners are where a control plane answers. Who connects before Serve waits.
type Listeners struct {
	socket, port net.Listener // port may be nil
	token        string       // of the port
	addresses    []string
}

// Listen takes the control socket of a home, and a loopback address such as
// "127.0.0.1:7400" beside it unless that is "". The home is locked.
func Listen(home *Home, address string) (*Listeners, error) {
	l := &Listeners{}
	var err error
	if address != "" {
		if l.port, err = listenPort(address); err != nil {
			return nil, err
		}
		if l.token, err = newToken(home.Dir); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	} else if err := os.Remove(TokenPath(home.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old token: %w", err)
	}
	if l.socket, err = listenSocket(home.Dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.addresses = []string{SocketPath(home.Dir)}
	if l.port != nil {
		l.addresses = append(l.addresses, "http://"+l.port.Addr().String())
	}
	return l, nil
}

// Addresses says where that is: the socket's path, then the port's URL.
func (l *Listeners) Addresses() []string { return l.addresses }

// Ports are the TCP ports among them, which no agent may be let to.
func (l *Listeners) Ports() []netip.AddrPort {
	if l.port == nil {
		return nil
	}
	return []netip.AddrPort{l.port.Addr().(*net.TCPAddr).AddrPort()}
}

// Close gives them up. It is not needed after Serve.
func (l *Listeners) Close() error {
	var errs []error
	for _, x := range []net.Listener{l.socket, l.port} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	return errors.Join(errs...)
}

// listenSocket takes the control socket of a home whose lock is held: what is
// left there belongs to a serve that died.
func listenSocket(home string) (net.Listener, error) {
	path := SocketPath(home)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path of the control socket, %s, is %d bytes long and the system allows %d: choose a home with a shorter path", path, len(path), maxSocketPath)
	}
	fi, err := os.Lstat(path)
	switch {
	case err == nil && fi.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s is in the way and is not a socket: move it away", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the socket of a serve that died: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("looking for the control socket: %w", err)
	}
	l, err := net.Listen("unix", path) // in a directory that only we can enter
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protecting the control socket: %w", err), l.Close())
	}
	return l, nil
}

// listenPort takes the TCP port, on loopback only.
func listenPort(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("the address to listen on, %q, is not HOST:PORT such as 127.0.0.1:7400", addr)
	}
	if host == "localhost" {
		host = "127.0.0.1"
		addr = strings.Replace(addr, "localhost", host, 1)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("the address to listen on, %q, is not a loopback address: this port has no encryption, so use 127.0.0.1 or [::1] and put a TLS proxy or an SSH tunnel before it", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		if isInUse(err) {
			return nil, fmt.Errorf("%s is taken by another program: stop that one, or choose another port with --listen", addr)
		}
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// newToken makes the token of the TCP port and puts it where the CLI finds it.
// It is a new one for each serve.
func newToken(home string) (string, error) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	token := hex.EncodeToString(b)
	if err := writeFile(TokenPath(home), []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("writing the token of the port: %w", err)
	}
	return token, nil
}
