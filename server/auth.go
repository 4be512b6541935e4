package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ambit"
)

// principalToken is who shows the token of the TCP port: somebody who can read
// the home, and no more is known.
const principalToken ambit.Principal = "token:local"

// maxSocketPath is the longest path of a Unix socket, in bytes (sun_path less
// its end mark).
const maxSocketPath = 107

// SocketPath is where the control socket of a home is.
func SocketPath(home string) string { return filepath.Join(home, runDir, "ambit.sock") }

// TokenPath is where the token of the TCP port is, while there is such a port.
func TokenPath(home string) string { return filepath.Join(home, runDir, "token") }

type principalKey struct{}

func withPrincipal(ctx context.Context, p ambit.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// principal is who makes the request. Every request has one: no handler is
// reached past the guards of this file without.
func principal(ctx context.Context) ambit.Principal {
	p, _ := ctx.Value(principalKey{}).(ambit.Principal)
	return p
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// guardSocket lets through who is this program's user or root, by the peer
// credentials that the kernel keeps with the connection.
func guardSocket(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*net.UnixConn)
		if !ok {
			writeProblem(w, problem(http.StatusForbidden, "this connection does not say who is calling"))
			return
		}
		uid, err := peerUID(c)
		if err != nil {
			writeProblem(w, problem(http.StatusForbidden, "the caller is unknown: "+err.Error()))
			return
		}
		if uid != 0 && uid != os.Geteuid() {
			writeProblem(w, problem(http.StatusForbidden, fmt.Sprintf("user id %d may not use this Ambit, which belongs to user id %d: run the command as that user", uid, os.Geteuid())))
			return
		}
		who := ambit.Principal("uid:" + strconv.Itoa(uid))
		next.ServeHTTP(w, r.WithContext(withPrincipal(r.Context(), who)))
	})
}

// guardPort lets through who shows the token. The Host and Origin checks are
// for browsers: a page of another site must not reach this port, also when its
// name was made to resolve to this machine.
func guardPort(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			writeProblem(w, problem(http.StatusMisdirectedRequest, "this port answers to 127.0.0.1, [::1] and localhost only"))
			return
		}
		if err := cross.Check(r); err != nil || r.Header.Get("Origin") != "" && !sameOrigin(r) {
			writeProblem(w, problem(http.StatusForbidden, "requests from other sites' pages are refused"))
			return
		}
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="ambit"`)
			writeProblem(w, problem(http.StatusUnauthorized, "the token is missing or wrong: it is in run/token in the home of ambit serve"))
			return
		}
		next.ServeHTTP(w, r.WithContext(withPrincipal(r.Context(), principalToken)))
	})
}

func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "http://"+r.Host
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1", "::1", "[::1]":
		return true
	}
	return false
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
