package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"time"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/internal/inert"
)

// loginPoll is how often the control plane is asked how a login elsewhere is.
const loginPoll = time.Second

// loginHere connects an account through the browser of this machine (RFC 8252):
// it comes back to a port of 127.0.0.1 with a code, which is worth nothing
// without what the agent's worker keeps (PKCE).
func (a *app) loginHere(ctx context.Context, c *client.Client, id ambit.AgentID, name string, way api.Way, q api.Connect) (api.Connection, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", way.RedirectPort))
	if err != nil {
		return api.Connection{}, fmt.Errorf("listening for the browser to come back: %w; end what uses the port, or connect in another way", err)
	}
	address := l.Addr().String()
	started, err := c.StartOAuth(ctx, id, name, api.StartOAuth{Connect: q, RedirectURL: "http://" + address + "/callback"})
	if err != nil {
		return api.Connection{}, errors.Join(err, l.Close())
	}
	page, err := url.Parse(started.URL)
	if err != nil || page.Scheme != "https" {
		return api.Connection{}, errors.Join(errors.New("the login's address cannot be read"), l.Close())
	}
	ctx, cancel := context.WithDeadline(ctx, started.Expires)
	defer cancel()
	back := &callback{host: address, state: page.Query().Get("state"), came: make(chan arrival)}
	s := &http.Server{Handler: back, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	served := make(chan struct{})
	var failed error // once served is closed
	go func() {
		defer close(served)
		failed = s.Serve(l)
	}()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
		<-served
	}()
	_, _ = fmt.Fprintf(a.stderr, "Log in at this address, in a browser on this machine (from another one: ssh -L %s:%s):\n\n  %s\n\n", port(address), address, inert.Text(started.URL))
	a.openBrowser(ctx, started.URL)
	done := a.progress(ctx, "waiting for the browser")
	defer done()
	select {
	case came := <-back.came:
		out, err := c.FinishOAuth(ctx, id, name, came.query)
		came.outcome <- err
		return out, err
	case <-served:
		return api.Connection{}, fmt.Errorf("listening for the browser to come back: %w", failed)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return api.Connection{}, errors.New("nobody logged in in time: nothing was connected; run the command again")
		}
		return api.Connection{}, ctx.Err()
	}
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// openBrowser opens the page where there is a desktop and a person to see it.
func (a *app) openBrowser(ctx context.Context, page string) {
	_, person := terminal(a.stderr)
	opener, err := exec.LookPath("xdg-open")
	if !person || err != nil || os.Getenv("DISPLAY")+os.Getenv("WAYLAND_DISPLAY") == "" {
		return
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), opener, page)
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }() // ends with the opener
	}
}

// callback is where the browser comes back to. It takes the first answer that
// belongs to the login.
type callback struct {
	host, state string
	came        chan arrival
}

// arrival is a browser that came back, and waits for the outcome.
type arrival struct {
	query   string
	outcome chan error
}

// ServeHTTP implements http.Handler.
func (b *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet || r.URL.Path != "/callback" || r.Host != b.host || b.state == "" || r.URL.Query().Get("state") != b.state {
		http.Error(w, "this is not the login that ambit connect waits for", http.StatusNotFound)
		return
	}
	came := arrival{r.URL.RawQuery, make(chan error, 1)}
	var err error
	select {
	case b.came <- came:
		select {
		case err = <-came.outcome:
		case <-r.Context().Done():
			return
		}
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	said := "The account is connected. You can close this window."
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		said = "The account is not connected: " + inert.Lines(explain(err))
	}
	_, _ = fmt.Fprintf(w, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Ambit</title><p>%s</p></html>\n", html.EscapeString(said))
}

// loginElsewhere connects an account with a code that the person types into a
// browser anywhere (RFC 8628). The agent's worker asks the service meanwhile.
func (a *app) loginElsewhere(ctx context.Context, c *client.Client, id ambit.AgentID, name string, q api.Connect) (api.Connection, error) {
	started, err := c.StartOAuth(ctx, id, name, api.StartOAuth{Connect: q})
	if err != nil {
		return api.Connection{}, err
	}
	_, _ = fmt.Fprintf(a.stderr, "Open this address in any browser, and enter the code %s:\n\n  %s\n\n", inert.Text(started.UserCode), inert.Text(started.VerificationURL))
	done := a.progress(ctx, "waiting for the code to be entered")
	defer done()
	tick := time.NewTicker(loginPoll)
	defer tick.Stop()
	for {
		d, err := c.Connection(ctx, id, name)
		switch {
		case err != nil:
			return api.Connection{}, err
		case d.Login == nil:
			return api.Connection{}, errors.New("the login is not known any more, because the agent's worker was restarted: run the command again")
		case d.Login.State == "failed":
			return api.Connection{}, fmt.Errorf("nothing was connected: %s", d.Login.Reason)
		case d.Login.State != "waiting":
			return d.Connection, nil
		}
		select {
		case <-ctx.Done():
			return api.Connection{}, ctx.Err()
		case <-tick.C:
		}
	}
}
