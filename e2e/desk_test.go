//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"ambit/internal/standin"
)

// desk is an authorization server with a mood.
type desk struct {
	server *standin.Server
	mood   atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
}

// ServeHTTP implements http.Handler.
func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if mood := d.mood.Load(); mood != nil && strings.HasPrefix(r.URL.Path, "/oauth/") {
		(*mood)(w, r, d.server)
		return
	}
	d.server.ServeHTTP(w, r)
}

// feels changes what requests for tokens, and to revoke them, are answered; nil
// is in order.
func (d *desk) feels(mood func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	if mood == nil {
		d.mood.Store(nil)
		return
	}
	d.mood.Store(&mood)
}

// tokensConnector installs a connector of the operator's in a home: oauth2 as it is
// shipped, with the port that the stand-in has.
func (s *services) tokensConnector(h *home) {
	h.t.Helper()
	b, err := os.ReadFile("../connector/catalog/oauth2.yaml")
	if err != nil {
		h.t.Fatal(err)
	}
	text := strings.NewReplacer("name: oauth2\n", "name: tokens\n", "https://{host}/", fmt.Sprintf("https://{host}:%d/", s.port)).Replace(string(b))
	dir := filepath.Join(h.dir, "connectors")
	file := filepath.Join(dir, "tokens.yaml")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		h.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(dir, h.uid, h.uid), os.Chown(file, h.uid, h.uid)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// tokens is the item of a manifest for it.
func (s *services) tokens() string {
	return s.connection("tokens", "    hosts: [oauth.example.com]\n")
}

// login connects an account of an agent by a login in the browser, which this
// plays. It returns what the command said.
func (s *services) login(h *home, agent string) (string, error) {
	h.t.Helper()
	cmd := h.command("connect", agent, "tokens", "--flow", "code")
	out := &lockedBuffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(s.given("oauth2"))), out, out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	page := regexp.MustCompile(`https://oauth\.example\.com\S+`)
	var browsed error
	for deadline := time.After(30 * time.Second); ; {
		select {
		case err := <-ended:
			if h.heard != nil {
				_, _ = io.WriteString(h.heard, out.String())
			}
			return out.String(), errors.Join(err, browsed)
		case <-deadline:
			_ = cmd.Process.Kill()
			return out.String(), errors.New("nobody could log in in time")
		case <-time.After(10 * time.Millisecond):
			if url := page.FindString(out.String()); url != "" && strings.Contains(out.String(), url+"\n") {
				browsed = s.browse(url)
				page = regexp.MustCompile(`\A\z^`) // nothing more
			}
		}
	}
}

// browse opens a page at the service, and follows it back to this machine.
func (s *services) browse(page string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.ca))
	here := net.JoinHostPort(s.addr.String(), fmt.Sprint(s.port))
	t := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "oauth.example.com:") {
			addr = here
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	res, err := (&http.Client{Transport: t, Timeout: 30 * time.Second}).Get(page)
	if err != nil {
		return fmt.Errorf("the browser: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the browser shows: %s %s", res.Status, b)
	}
	return err
}
