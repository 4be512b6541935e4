package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
)

// Bounds of telling services that a credential is over.
const (
	tellTimeout = 10 * time.Second // one service, from the request to the last byte of the answer
	tellAtOnce  = 16               // services
	maxTold     = 64 << 10         // bytes of an answer that are looked at
)

// Revoked is a connection that is over.
type Revoked struct {
	Name string `json:"name"`
	// Told says that the service confirmed that the credential is over there, too.
	Told bool `json:"told"`
	// Reason is why it was not told, and what the person can do; "" if it was.
	Reason string `json:"reason,omitempty"`
}

// Revoke ends a connection, or all of the agent ("" as name), also those that no
// manifest names any more. At once: nothing uses the credential from now on,
// and what is under way with it is cut. Then the rows are deleted, which is
// logged before and durable after. Then the services are told, in ten seconds
// each; one that cannot be told is an alert, and does not bring anything back.
//
// An error says that the rows could not be deleted: the connections are over
// until the worker is started again, and Revoke must be called again. It is
// ErrNotConnected if there is nothing to revoke under the name.
//
// Crash points: before the rows are deleted, the connection is there again after
// a restart, and Revoke has not returned. After it, the service may not have
// been told.
func (v *Vault) Revoke(ctx context.Context, name string, by ambit.Principal) ([]Revoked, error) {
	names := []string{name}
	if name == "" {
		names = v.store.names()
	}
	v.cut(names)
	ended, err := v.forget(ctx, names, by)
	if err != nil {
		return nil, fmt.Errorf("revoking: nothing uses the credentials any more, but they could not be deleted, so revoke them again: %w", err)
	}
	if len(ended) == 0 && name != "" {
		return nil, fmt.Errorf("%w: there is nothing to revoke for %.60q", ErrNotConnected, name)
	}
	return v.tellAll(ctx, ended, by), nil
}

// cut makes connections unusable, at once.
func (v *Vault) cut(names []string) {
	for _, name := range names {
		v.logins.drop(name, errors.New("the connection was revoked"))
		v.store.end(name)
		v.leases.cut(name)
	}
}

// forget deletes connections. One that was made again while it waited is
// revoked, too: Revoke had not returned.
func (v *Vault) forget(ctx context.Context, names []string, by ambit.Principal) ([]*connection, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cut(names)
	var ended []*connection
	for _, name := range names {
		v.tokens.end(name)
		if c := v.store.end(name); c != nil {
			ended = append(ended, c)
		}
	}
	for _, c := range ended {
		_, err := v.config.Log.Append(ctx, ambit.Event{Kind: ambit.KindVaultRevoke, Agent: v.config.Agent, Principal: by, Connection: c.name, Detail: "revoked: its credential is deleted"})
		if err != nil {
			return nil, fmt.Errorf("the log could not be written: %w", err)
		}
	}
	return ended, v.store.delete(context.WithoutCancel(ctx), ended)
}

// tellAll tells the services, several at the same time.
func (v *Vault) tellAll(ctx context.Context, ended []*connection, by ambit.Principal) []Revoked {
	all := make([]Revoked, len(ended))
	slots := make(chan struct{}, tellAtOnce)
	var wg sync.WaitGroup
	for i, c := range ended {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = v.tell(ctx, c, by)
		})
	}
	wg.Wait()
	return all
}

// tell tells the service of a connection that the credential is over.
func (v *Vault) tell(ctx context.Context, c *connection, by ambit.Principal) Revoked {
	r := Revoked{Name: c.name}
	b := v.state.Load().named(c.name)
	switch {
	case c.damage != nil:
		r.Reason = "the service was not told, because the credential did not open; end it there"
		return r
	case b == nil || !c.isFor(b):
		r.Reason = "the service was not told, because the manifest does not have this connection any more; end the credential there"
		return r
	}
	way := wayNamed(b.Binding, c.Way)
	if way == nil || way.Revoke == nil {
		r.Reason = "the service cannot be told by a program; delete the credential there: " + b.Connector.Docs
		return r
	}
	q, err := v.revocation(c, way)
	if err != nil {
		r.Reason = "the service was not told: " + err.Error() + "; end the credential there: " + b.Connector.Docs
		return r
	}
	seq, err := v.tellLogged(ctx, c, way.Revoke, q, by)
	if err != nil {
		r.Reason = "the service was not told: " + err.Error() + "; end the credential there: " + b.Connector.Docs
		v.config.Alerts.Raise(ambit.Medium, "revoke-not-told "+c.name, c.name+": the connection is over, but "+r.Reason, seq)
		return r
	}
	r.Told = true
	return r
}

// tellLogged sends the request; the log has its URL with the placeholders in it.
func (v *Vault) tellLogged(ctx context.Context, c *connection, rev *connector.Revocation, q *http.Request, by ambit.Principal) (uint64, error) {
	started := v.now()
	e := v.event(ambit.KindVaultRevoke, c.name, by, rev.Method, string(rev.URL), "the service is told")
	e.Host = q.URL.Hostname()
	seq, err := v.config.Log.Append(ctx, e)
	if err != nil {
		return 0, fmt.Errorf("the log could not be written: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	status, err := v.exchange(q.WithContext(ctx))
	out := ambit.Event{Kind: ambit.KindVaultRevoke, Agent: v.config.Agent, Principal: by, Of: &seq, Connection: c.name,
		Status: status, Duration: v.now().Sub(started), Detail: "the service confirmed"}
	if err != nil {
		out.Detail = err.Error()
	}
	v.config.Log.Record(out)
	return seq, err
}

// exchange sends a revocation and judges the answer. Nothing that came is in the
// error: it may quote the credential.
func (v *Vault) exchange(q *http.Request) (status int, err error) {
	resp, err := v.config.Transport.RoundTrip(q)
	switch {
	case err != nil && q.Context().Err() != nil:
		return 0, errors.New("it did not answer in time")
	case err != nil:
		return 0, errors.New("it cannot be reached")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTold))
	defer clear(body)
	if err != nil {
		return resp.StatusCode, errors.New("its answer was cut off")
	}
	var said struct { // Slack refuses with status 200
		OK *bool `json:"ok"`
	}
	if json.Unmarshal(body, &said) == nil && said.OK != nil && !*said.OK {
		return resp.StatusCode, errors.New("it refused")
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp.StatusCode, fmt.Errorf("it answered with HTTP status %d", resp.StatusCode)
	}
	return resp.StatusCode, nil
}

// revocation makes the request of a way's Revocation. Who says at the token
// endpoint with Basic who they are does it in the same way here: id and secret
// are encoded like a form before (RFC 7009 section 2.1, RFC 6749 section 2.3.1).
func (v *Vault) revocation(c *connection, way *connector.Way) (*http.Request, error) {
	rev := way.Revoke
	f := &filler{v: v, c: c}
	defer f.wipe()
	target := f.fill(rev.URL, url.PathEscape)
	var body []byte
	media := ""
	switch rev.Body {
	case "form":
		form := make(url.Values)
		for _, field := range rev.Fields {
			form.Set(field.Name, f.fill(field.Value, nil))
		}
		body, media = []byte(form.Encode()), "application/x-www-form-urlencoded"
	case "json":
		tree := make(map[string]any)
		for _, field := range rev.Fields {
			plant(tree, field.Name, f.fill(field.Value, nil))
		}
		var err error
		if body, err = json.Marshal(tree); err != nil {
			return nil, errors.New("its request cannot be written")
		}
		media = "application/json"
	}
	q, err := http.NewRequest(rev.Method, target, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("its address is none") // the error would quote it
	}
	if media != "" {
		q.Header.Set("Content-Type", media)
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", "ambit")
	for _, h := range rev.Header {
		q.Header.Set(h.Name, f.fill(h.Value, nil))
	}
	if rev.Basic != "" {
		var escape func(string) string
		if way.OAuth != nil && way.OAuth.ClientAuth == connector.ClientBasic {
			escape = url.QueryEscape
		}
		q.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(f.fill(rev.Basic, escape))))
	}
	return q, f.err
}

// filler fills templates with the real values of a connection. The first error
// stays.
type filler struct {
	v    *Vault
	c    *connection
	used []secretbytes.Bytes
	err  error
}

func (f *filler) fill(t connector.Template, escape func(string) string) string {
	return string(t.Append(nil, func(name string) []byte {
		field := name
		if name == "refresh_token" && !f.c.has(name) {
			field = refreshField
		}
		if !f.c.has(field) {
			f.err = errors.Join(f.err, fmt.Errorf("the connection has no %s", name))
			return nil
		}
		value, err := f.v.store.open(f.c, field)
		if err != nil {
			f.err = errors.Join(f.err, err)
			return nil
		}
		f.used = append(f.used, value)
		if escape != nil {
			return []byte(escape(string(value.Reveal())))
		}
		return value.Reveal()
	}))
}

func (f *filler) wipe() {
	for _, v := range f.used {
		v.Wipe()
	}
}

// plant puts a text where a JSON pointer (RFC 6901) says; the objects on the way
// are made.
func plant(tree map[string]any, pointer, text string) {
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, p := range parts {
		p = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
		if i == len(parts)-1 {
			tree[p] = text
			return
		}
		next, ok := tree[p].(map[string]any)
		if !ok {
			next = make(map[string]any)
			tree[p] = next
		}
		tree = next
	}
}
