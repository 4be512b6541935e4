package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/api"
	"ambit/audit"
	"ambit/internal/standin"
)

// witnessed adds an outside witness to a server.
func (f *fixture) witnessed(t *testing.T) *standin.Witness {
	t.Helper()
	w := standin.NewWitness("witness.example/w1")
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	o, err := newOutside(Witness{Key: w.Key(), URL: s.URL + "/"})
	if err != nil {
		t.Fatal(err)
	}
	f.server.witness.outside = append(f.server.witness.outside, o)
	return w
}

func TestOutsideWitness(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	log := f.logOf(t, "support", numbered(10)...)
	f.runs(t, "support", log)
	w := f.witnessed(t)
	if err := w.Know(log.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	if err := w.Know(f.server.cfg.ControlLog.log.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	origin := f.origin(t, log)
	for _, more := range []int{0, 1, 300} {
		write(t, log, numbered(more)...)
		f.server.round(t.Context())
		h := f.kept(t, "support")
		if at, err := audit.Cosigned(h.Note, w.Key()); err != nil || at.IsZero() || cosigned(t, f, h).IsZero() {
			t.Fatalf("after %d more: %v\n%s", more, err, h.Note)
		}
		if size, _ := w.Size(origin); size != int64(log.Size()) {
			t.Errorf("the witness cosigned %d events of %d", size, log.Size())
		}
	}
	if h := f.kept(t, ""); strings.Count(string(h.Note), "— ") != 3 {
		t.Errorf("the control plane's own head: %s", h.Note)
	}
	// What it has cosigned is not shown again, and a head that is asked for keeps it.
	_, before := w.Size(origin)
	f.server.lookRunning(t.Context(), "support")
	h, err := f.client.Head(t.Context(), "support")
	if err != nil {
		t.Fatal(err)
	}
	if at, err := audit.Cosigned(h.Note, w.Key()); err != nil || at.IsZero() || strings.Count(string(h.Note), "— ") != 3 {
		t.Errorf("asked for: %v\n%s", err, h.Note)
	}
	if _, after := w.Size(origin); after != before {
		t.Errorf("it was asked %d times more", after-before)
	}
	// A control plane that was restarted does not know what the witness has: that says so.
	f.server.witness.outside[0].sizes, f.server.witness.outside[0].shown = map[string]uint64{}, map[string]string{}
	write(t, log, "more")
	f.server.round(t.Context())
	if size, _ := w.Size(origin); size != int64(log.Size()) {
		t.Errorf("after a restart it cosigned %d events of %d", size, log.Size())
	}
	if alerts := f.allAlerts(t); len(alerts) != 0 {
		t.Errorf("alerts: %+v", alerts)
	}
}

func (f *fixture) origin(t *testing.T, log *audit.Log) string {
	t.Helper()
	h, err := log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h.Origin
}

func (f *fixture) allAlerts(t *testing.T) []alert.Alert {
	t.Helper()
	list, err := f.server.cfg.ControlLog.alerts.List(t.Context(), alert.Query{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// An outside witness that refuses, lies or hangs stops nothing, and is told of.
func TestOutsideWitnessRefuses(t *testing.T) {
	say := func(status int, contentType, text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
			return true
		}
	}
	other := standin.NewWitness("witness.example/w1")
	for name, c := range map[string]struct {
		answer   func(http.ResponseWriter, *http.Request) bool
		unknown  bool
		severity ambit.Severity
		says     string
	}{
		"does not know the log":  {nil, true, ambit.Medium, "does not know this log (404)"},
		"knows another key":      {say(403, "text/plain", "no"), false, ambit.Medium, "another key for it (403)"},
		"refuses the proof":      {say(422, "text/plain", "no"), false, ambit.Critical, "refuses the proof (422)"},
		"has seen more":          {say(409, "text/x.tlog.size", "1000\n"), false, ambit.Critical, "has cosigned 1000 events"},
		"conflicts for ever":     {say(409, "text/x.tlog.size", "5\n"), false, ambit.Medium, "answered 409"},
		"a conflict in words":    {say(409, "text/plain", "5\n"), false, ambit.Medium, "answered 409"},
		"a conflict of nonsense": {say(409, "text/x.tlog.size", "05\n"), false, ambit.Medium, "answered 409"},
		"fails":                  {say(500, "text/plain", "oops"), false, ambit.Medium, `answered 500: "oops"`},
		"redirects": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return true
		}, false, ambit.Medium, "answered 307"},
		"no lines":      {say(200, "text/plain", "fine\n"), false, ambit.Medium, "not signature lines"},
		"nothing":       {say(200, "text/plain", ""), false, ambit.Medium, "not signature lines"},
		"a forged line": {say(200, "text/plain", "— witness.example/w1 "+strings.Repeat("A", 100)+"\n"), false, ambit.Medium, "no cosignature of its own"},
		"another note":  {say(200, "text/plain", "— x AAAAAAAA\n\nambit/agent/support/0\n5\nx\n\n— x AAAAAAAA\n"), false, ambit.Medium, "not signature lines"},
		"a long answer": {say(200, "text/plain", "— x "+strings.Repeat("A", 1<<20)+"\n"), false, ambit.Medium, "more than 16384 bytes"},
		"another's cosignature": {func(w http.ResponseWriter, r *http.Request) bool {
			other.ServeHTTP(w, r)
			return true
		}, false, ambit.Medium, "no cosignature of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, "")
			f.deploy(t, support)
			log := f.logOf(t, "support", numbered(10)...)
			f.runs(t, "support", log)
			w := f.witnessed(t)
			w.Answer = c.answer
			if !c.unknown {
				_, _ = w.Know(log.VerifierKey()), other.Know(log.VerifierKey())
			}
			f.history()
			f.server.lookRunning(t.Context(), "support")
			f.server.lookRunning(t.Context(), "support")
			alerts := f.allAlerts(t)
			if len(alerts) != 1 || alerts[0].Severity != c.severity || !strings.Contains(alerts[0].Title, c.says) || !strings.Contains(alerts[0].Title, "the log of support") {
				t.Errorf("alerts: %+v", alerts)
			}
			if n := len(f.said(t, ambit.KindAuditWitness)); (n == 1) != (c.severity == ambit.Critical) || n > 1 {
				t.Errorf("%d events in the log", n)
			}
			if h := f.kept(t, "support"); h.Size != 10 || cosigned(t, f, h).IsZero() || strings.Count(string(h.Note), "— ") != 2 {
				t.Errorf("kept: %s", h.Note)
			}
			if did := f.history(); did != "" {
				t.Errorf("it did %q", did)
			}
		})
	}
}

func TestOutsideWitnessIsChecked(t *testing.T) {
	key := standin.NewWitness("witness.example/w1").Key()
	for _, c := range []Witness{
		{key, "http://witness.example"}, {key, "https://"}, {key, "ftp://witness.example"}, {key, "https://u:p@witness.example"}, {key, "https://witness.example/?a=b"}, {key, "::"},
		{"", "https://witness.example"}, {"witness.example+12345678+AAAA", "https://witness.example"}, {key[:len(key)-4] + "AAA=", "https://witness.example"},
	} {
		if _, err := newOutside(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, url := range []string{"https://witness.example", "https://witness.example/a/", "http://127.0.0.1:8080"} {
		if _, err := newOutside(Witness{key, url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestHeadsAreExported(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	log := f.logOf(t, "support", numbered(10)...)
	f.runs(t, "support", log)
	folder := t.TempDir()
	f.server.cfg.Heads.Folder = folder
	f.server.round(t.Context())
	f.server.exportHeads(t.Context())
	f.server.exportHeads(t.Context()) // changes nothing
	first := f.kept(t, "support")
	name := filepath.Join(folder, "support."+first.Origin[strings.LastIndexByte(first.Origin, '/')+1:])
	write(t, log, numbered(5)...)
	f.server.round(t.Context())
	f.server.exportHeads(t.Context())
	second := f.kept(t, "support")
	for path, want := range map[string]audit.Head{name + ".head": second, name + ".00000000000000000010.head": first, name + ".00000000000000000015.head": second} {
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want.Note) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if list, _ := filepath.Glob(filepath.Join(folder, "control.*.head")); len(list) != 2 {
		t.Errorf("of the control plane's own log: %q", list)
	}
	// A control plane that was put back to an older state does not hide it.
	if set, err := f.server.cfg.Store.SetHead(t.Context(), "support", second.Note, first.Note); err != nil || !set {
		t.Fatal(err)
	}
	f.server.exportHeads(t.Context())
	if b, _ := os.ReadFile(name + ".head"); !bytes.Equal(b, second.Note) {
		t.Error("the newer head was replaced by an older one")
	}
	if alerts := f.controlAlerts(t); len(alerts) != 1 || !strings.Contains(alerts[0].Title, "a head of 15 events, and the control plane kept one of 10") {
		t.Errorf("alerts: %+v", alerts)
	}
	// A folder that is not there is told of.
	f.server.cfg.Heads.Folder = filepath.Join(folder, "gone")
	f.server.exportHeads(t.Context())
	if all := f.allAlerts(t); !strings.Contains(all[0].Title, "heads could not be written") && !strings.Contains(all[1].Title, "heads could not be written") {
		t.Errorf("alerts: %+v", all)
	}
}

// The schedule looks by itself, and exports.
func TestWitnessSchedule(t *testing.T) {
	folder := t.TempDir()
	f := serveWith(t, "", func(c *Config) { c.WitnessEvery, c.Heads = 10*time.Millisecond, Heads{folder, 10 * time.Millisecond} })
	f.deploy(t, support)
	f.runs(t, "support", f.logOf(t, "support", "one"))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(folder, "support.*.head")); len(list) == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was exported")
		}
	}
}

// What happens to the control plane is in its log, with links to the agents'.
func TestControlLog(t *testing.T) {
	f := serve(t, "127.0.0.1:0")
	f.deploy(t, support)
	f.deploy(t, support+"description: two\n")
	if _, err := f.client.Redeploy(t.Context(), "support", 1, false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.ChangeRoot(t.Context(), api.ChangeRoot{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.Wipe(t.Context(), "support"); err != nil {
		t.Fatal(err)
	}
	for range 100 { // a flood
		res, err := http.Get(f.listeners.Addresses()[1] + "/v1/agents")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	v, err := f.client.ControlVerify(t.Context(), nil)
	if err != nil || !v.OK || v.Report.Heads != 1 {
		t.Fatalf("verify: %+v, %v", v, err)
	}
	events, err := f.server.cfg.ControlLog.log.Search(t.Context(), audit.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		line := string(e.Kind)
		if e.Agent != "" {
			line += " " + string(e.Agent)
		}
		if e.Decision == ambit.Deny {
			line += " deny"
		}
		for _, l := range e.Links {
			line += " " + l.Rel + ":" + string(l.Log)
		}
		if e.Kind != ambit.KindAlert {
			got = append([]string{line}, got...)
		}
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"control.start", "access.login", "agent.deploy support deny agent:support", "control.key", "agent.wipe support deny agent:support", "access.login deny", "audit.verify"} {
		if !strings.Contains(all, want) {
			t.Errorf("there is no %q in\n%s", want, all)
		}
	}
	if n := strings.Count(all, "access.login"); n != 2 {
		t.Errorf("%d logins of one caller and one refused one:\n%s", n, all)
	}
	if n := strings.Count(all, "agent.deploy"); n != 3 {
		t.Errorf("%d deploys:\n%s", n, all)
	}
}

// What cannot be written to the control plane's log does not happen, but for
// stop and wipe.
func TestControlLogThatCannotBeWritten(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	if err := f.server.cfg.ControlLog.log.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"deploy": func() error { _, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: support + "\n"}); return err },
		"new": func() error {
			_, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: "ambit: v1\nname: other\n"})
			return err
		},
		"redeploy": func() error { _, err := f.client.Redeploy(t.Context(), "support", 1, false); return err },
		"root key": func() error { _, err := f.client.ChangeRoot(t.Context(), api.ChangeRoot{}); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "nothing was done, because it could not be written to the log of the control plane") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.client.Stop(t.Context(), "support"); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := f.client.Wipe(t.Context(), "support"); err != nil {
		t.Errorf("wipe: %v", err)
	}
}

// A log of the control plane that is gone is an error, once there was one.
func TestControlLogIsNotMadeTwice(t *testing.T) {
	f := serve(t, "")
	f.end()
	home, err := OpenHome(f.home)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = home.Close() }()
	store := reopenStore(t, f.home)
	open := func() error {
		l, err := OpenControlLog(t.Context(), f.home, store, "v1")
		if err == nil {
			err = l.Close(t.Context())
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".db", ".db-wal", ".db-shm", ".journal"} {
		_ = os.Remove(filepath.Join(f.home, "control-log"+suffix))
	}
	if err := open(); err == nil || !strings.Contains(err.Error(), "opening the log of the control plane: ") || !strings.Contains(err.Error(), "restore its file from a backup") {
		t.Errorf("a log that is gone: %v", err)
	}
}
