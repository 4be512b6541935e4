package server

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ambit"
	"ambit/api"
)

// principalToken is who shows the token of the TCP port: somebody who can read
// the home, and no more is known.
const principalToken ambit.Principal = "token:local"

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
func guardSocket(l *logins, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*net.UnixConn)
		if !ok {
			l.turnAway(w, r, doorSocket, principalUnknown, "no-credentials", problem(http.StatusForbidden, "this connection does not say who is calling"))
			return
		}
		uid, err := peerUID(c)
		if err != nil {
			l.turnAway(w, r, doorSocket, principalUnknown, "no-credentials", problem(http.StatusForbidden, "the caller is unknown: "+err.Error()))
			return
		}
		who := ambit.Principal("uid:" + strconv.Itoa(uid))
		if uid != 0 && uid != os.Geteuid() {
			l.turnAway(w, r, doorSocket, who, "other-user", problem(http.StatusForbidden, fmt.Sprintf("user id %d may not use this Ambit, which belongs to user id %d: run the command as that user", uid, os.Geteuid())))
			return
		}
		l.enter(w, r, next, doorSocket, who)
	})
}

// guardPort lets through who shows the token. The Host and Origin checks are
// for browsers: a page of another site must not reach this port, also when its
// name was made to resolve to this machine.
func guardPort(l *logins, token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(code string, p *api.Problem) { l.turnAway(w, r, doorPort, principalUnknown, code, p) }
		if !loopbackHost(r.Host) {
			refuse("host", problem(http.StatusMisdirectedRequest, "this port answers to 127.0.0.1, [::1] and localhost only"))
			return
		}
		if err := cross.Check(r); err != nil || r.Header.Get("Origin") != "" && !sameOrigin(r) {
			refuse("origin", problem(http.StatusForbidden, "requests from other sites' pages are refused"))
			return
		}
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="ambit"`)
			refuse("token", problem(http.StatusUnauthorized, "the token is missing or wrong: it is in run/token in the home of ambit serve"))
			return
		}
		l.enter(w, r, next, doorPort, principalToken)
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
