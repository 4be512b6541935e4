package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/control"
	"ambit/internal/sqldb"
)

func (f *fleet) consistency(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	prove := f.prove
	f.mu.Unlock()
	if prove == nil {
		http.NotFound(w, r)
		return
	}
	prove(w, r)
}

// answers makes the worker answer as fn does.
func (f *fleet) answers(fn func(control.ConsistencyQuery) (any, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prove = func(w http.ResponseWriter, r *http.Request) {
		var q control.ConsistencyQuery
		_ = json.NewDecoder(r.Body).Decode(&q)
		out, err := fn(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		if raw, ok := out.([]byte); ok {
			_, _ = w.Write(raw)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

// honest makes it answer as a worker does, with that log.
func (f *fleet) honest(log *audit.Log) {
	f.answers(func(q control.ConsistencyQuery) (any, error) {
		if q.To != nil {
			return log.ProveBetween(context.Background(), q.Old, q.To)
		}
		c, err := log.ProveConsistency(context.Background(), q.Old)
		if err != nil && c.Head.Note != nil {
			return c, nil
		}
		return c, err
	})
}

// logOf is a log with the keys that the store has for an agent. Whoever has
// those can sign any history.
func (f *fixture) logOf(t *testing.T, id ambit.AgentID, details ...string) *audit.Log {
	t.Helper()
	keys, err := f.server.cfg.Store.Keys(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Wipe()
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: id, Keys: audit.Keys{Body: keys.Data, Sign: keys.Sign}, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = log.Close(context.Background())
		_ = db.Close()
	})
	write(t, log, details...)
	return log
}

func write(t *testing.T, log *audit.Log, details ...string) {
	t.Helper()
	for _, d := range details {
		log.Record(ambit.Event{Kind: ambit.KindEgressRequest, Detail: d})
	}
	if _, err := log.Head(t.Context()); err != nil { // covers them all
		t.Fatal(err)
	}
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("event %d", i)
	}
	return out
}

// run makes an agent's worker one that runs and proves its log.
func (f *fixture) runs(t *testing.T, id ambit.AgentID, log *audit.Log) {
	t.Helper()
	f.honest(log)
	c := control.NewClient(f.socket, "token")
	t.Cleanup(c.Close)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running == nil {
		f.running = map[ambit.AgentID]*control.Client{}
	}
	f.running[id] = c
}

func (f *fixture) kept(t *testing.T, id ambit.AgentID) audit.Head {
	t.Helper()
	kept, err := f.server.witness.kept(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.server.witness.verifierKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	h, err := audit.ParseHead(kept, key)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// said are the events of a kind in the control plane's log.
func (f *fixture) said(t *testing.T, kind ambit.Kind) []ambit.Event {
	t.Helper()
	events, err := f.server.cfg.ControlLog.log.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{kind}})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func (f *fixture) controlAlerts(t *testing.T) []alert.Alert {
	t.Helper()
	list, err := f.server.cfg.ControlLog.alerts.List(t.Context(), alert.Query{MinSeverity: ambit.Critical})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// settle waits for what the server does beside its answers.
func (f *fixture) settle(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		did := strings.Join(f.did, ", ")
		f.mu.Unlock()
		if strings.Contains(did, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it did %q, want %q", did, want)
		}
	}
}

func cosigned(t *testing.T, f *fixture, h audit.Head) time.Time {
	t.Helper()
	at, err := audit.Cosigned(h.Note, f.server.cfg.ControlLog.cosigner.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWitnessCosignsALogThatGrows(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	log := f.logOf(t, "support")
	f.runs(t, "support", log)
	for n := range 4 {
		write(t, log, numbered(300*n)...)
		f.server.round(t.Context())
		h := f.kept(t, "support")
		if h.Size != log.Size() || cosigned(t, f, h).IsZero() {
			t.Fatalf("round %d kept\n%s\nof a log of %d events", n, h.Note, log.Size())
		}
	}
	before := f.kept(t, "support")
	f.server.round(t.Context())
	if !bytes.Equal(before.Note, f.kept(t, "support").Note) {
		t.Error("a log that did not grow was cosigned again at once")
	}
	h, err := f.client.Head(t.Context(), "support")
	if err != nil || h.Size != log.Size() || h.Key != log.VerifierKey() {
		t.Fatalf("Head: %+v, %v", h, err)
	}
	if at, err := audit.Cosigned(h.Note, h.Witness); err != nil || time.Since(at) > time.Minute {
		t.Errorf("cosigned at %v, %v", at, err)
	}
	own := f.kept(t, "")
	if own.Size == 0 || cosigned(t, f, own).IsZero() {
		t.Errorf("the control plane's own head: %s", own.Note)
	}
}

// TestWitnessAttacks: a worker under an attacker's full control, who has the
// signing key and answers what he wants. Whatever he answers, the kept head
// stays, the agent is halted, a critical alert names it, and it stays refused
// until a person says otherwise.
func TestWitnessAttacks(t *testing.T) {
	const n = 300 // more than a tile
	f := serve(t, "")
	forged := func(mutate func([]string) []string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { f.honest(f.logOf(t, "support", mutate(numbered(n))...)) }
	}
	attacks := map[string]struct {
		code string
		do   func(t *testing.T, f *fixture)
	}{
		"an edited event": {refusedRewritten, forged(func(d []string) []string { d[7] = "nothing happened"; return d })},
		"an edited event, and more after it": {refusedForked, forged(func(d []string) []string {
			d[7] = "nothing happened"
			return append(d, numbered(700)...)
		})},
		"a dropped event":                 {refusedWentBack, forged(func(d []string) []string { return append(d[:7], d[8:]...) })},
		"a dropped event, and more after": {refusedForked, forged(func(d []string) []string { return append(d[:7], append(d[8:], "one", "two", "three")...) })},
		"an older copy":                   {refusedWentBack, forged(func(d []string) []string { return d[:n-1] })},
		"an empty log":                    {refusedWentBack, forged(func([]string) []string { return nil })},
		"the head of another agent": {refusedSignature, func(t *testing.T, f *fixture) {
			f.deploy(t, "ambit: v1\nname: other\n")
			f.honest(f.logOf(t, "other", numbered(n)...))
		}},
		"a head that is not signed": {refusedSignature, changed(func(c *audit.Consistency) {
			c.Head.Note = bytes.Replace(c.Head.Note, []byte("\n300\n"), []byte("\n301\n"), 1)
		})},
		"no head":              {refusedSignature, changed(func(c *audit.Consistency) { c.Head.Note = nil })},
		"a head of a megabyte": {refusedGarbage, changed(func(c *audit.Consistency) { c.Head.Note = bytes.Repeat([]byte("x"), 1<<20) })},
		"a forged tree with the kept root beside it": {refusedForked, func(t *testing.T, f *fixture) {
			kept := f.kept(t, "support")
			lie := f.logOf(t, "support", append(numbered(n), "more")[1:]...)
			write(t, lie, "and more")
			f.answers(func(q control.ConsistencyQuery) (any, error) {
				c, err := lie.ProveConsistency(context.Background(), q.Old)
				c.Head.Root, c.Head.Size, c.Head.Origin = kept.Root, kept.Size, kept.Origin
				return c, err
			})
		}},
		"a proof of nothing":        {refusedForked, grown(func(c *audit.Consistency) { c.Hashes = nil })},
		"a proof of noise":          {refusedForked, grown(func(c *audit.Consistency) { c.Hashes[0][0] ^= 1 })},
		"a proof from another size": {refusedForked, grown(func(c *audit.Consistency) { c.Old = 1 })},
		"an endless proof":          {refusedGarbage, grown(func(c *audit.Consistency) { c.Hashes = make(tlog.TreeProof, 10_000) })},
		"no JSON": {refusedGarbage, func(_ *testing.T, f *fixture) {
			f.answers(func(control.ConsistencyQuery) (any, error) { return []byte("<html>"), nil })
		}},
		"nothing": {refusedGarbage, func(_ *testing.T, f *fixture) {
			f.answers(func(control.ConsistencyQuery) (any, error) { return []byte{}, nil })
		}},
		"a gigabyte": {refusedGarbage, func(_ *testing.T, f *fixture) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.prove = func(w http.ResponseWriter, _ *http.Request) {
				for chunk := bytes.Repeat([]byte(" "), 1<<16); ; {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			}
		}},
	}
	for name, c := range attacks {
		t.Run(name, func(t *testing.T) {
			f.deploy(t, support)
			log := f.logOf(t, "support", numbered(n)...)
			f.runs(t, "support", log)
			f.server.round(t.Context())
			before := f.kept(t, "support")
			f.history()

			c.do(t, f)
			events := len(f.said(t, ambit.KindAuditWitness))
			f.server.round(t.Context())
			f.settle(t, "halt support: the witness refuses its log")
			f.server.round(t.Context()) // says nothing again

			if after := f.kept(t, "support"); !bytes.Equal(before.Note, after.Note) {
				t.Fatalf("kept\n%s\nbefore\n%s", after.Note, before.Note)
			}
			said := f.said(t, ambit.KindAuditWitness)[events:]
			if len(said) != 1 || said[0].Agent != "support" || said[0].Decision != ambit.Deny || said[0].Reason == nil || said[0].Reason.Code != c.code {
				t.Fatalf("in the control plane's log: %+v, want the code %s", said, c.code)
			}
			alerts := f.controlAlerts(t)
			if len(alerts) != 1 || alerts[0].Acked || alerts[0].Event != said[0].Seq || !strings.Contains(alerts[0].Title, "the log of support is refused") || !strings.Contains(alerts[0].Title, "stopped") {
				t.Fatalf("alerts: %+v", alerts)
			}
			if a, err := f.server.cfg.Store.Get(t.Context(), "support"); err != nil || a.Desired != "stopped" {
				t.Errorf("the agent: %+v, %v", a, err)
			}

			// The true log is there again, and still it is refused.
			f.honest(log)
			f.server.round(t.Context())
			_, headErr := f.client.Head(t.Context(), "support")
			_, startErr := f.client.Start(t.Context(), "support")
			for what, err := range map[string]error{"head": headErr, "start": startErr} {
				if p := problemFrom(err); p == nil || p.Status != http.StatusConflict || !strings.Contains(p.Detail, "refused by the witness") {
					t.Errorf("%s while it is refused: %v", what, err)
				}
			}
			if err := f.client.AckControl(t.Context(), alerts[0].ID); err != nil {
				t.Fatal(err)
			}
			if h, err := f.client.Head(t.Context(), "support"); err != nil || h.Size != n {
				t.Errorf("after a person has seen it: %+v, %v", h, err)
			}
			if _, err := f.client.Start(t.Context(), "support"); err != nil {
				t.Errorf("start after that: %v", err)
			}
			if _, err := f.client.Wipe(t.Context(), "support"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// changed makes the worker change its true answer.
func changed(fn func(*audit.Consistency)) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		log := f.logOf(t, "support", numbered(300)...)
		f.answers(func(q control.ConsistencyQuery) (any, error) {
			c, err := log.ProveConsistency(context.Background(), q.Old)
			fn(&c)
			return c, err
		})
	}
}

// grown does so with a log that has grown, whose proof is not empty.
func grown(fn func(*audit.Consistency)) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		log := f.logOf(t, "support", numbered(301)...)
		f.answers(func(q control.ConsistencyQuery) (any, error) {
			c, err := log.ProveConsistency(context.Background(), q.Old)
			fn(&c)
			return c, err
		})
	}
}

// A worker that gives no proof, by an error or by hanging, is refused once it
// has done so for long, and not before; one answer starts the time anew.
func TestWitnessOfASilentWorker(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	log := f.logOf(t, "support", "one")
	f.runs(t, "support", log)
	w := f.server.witness
	now := time.Now()
	w.now, w.silence, w.ask = func() time.Time { return now }, 15*time.Minute, 50*time.Millisecond
	for _, way := range []func(){
		func() {
			f.answers(func(control.ConsistencyQuery) (any, error) { return nil, fmt.Errorf("the disk is full") })
		},
		func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.prove = func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // from then on the end of the connection is seen
				<-r.Context().Done()
			}
		},
	} {
		f.honest(log)
		f.server.round(t.Context())
		way()
		f.server.round(t.Context())
		now = now.Add(14 * time.Minute)
		f.server.round(t.Context())
		if alerts := f.controlAlerts(t); len(alerts) > 0 && !alerts[0].Acked {
			t.Fatalf("too early: %+v", alerts)
		}
		f.honest(log)
		f.server.round(t.Context())
		way()
		f.server.round(t.Context())
		now = now.Add(14 * time.Minute)
		f.server.round(t.Context())
		f.history()
		now = now.Add(time.Minute)
		f.server.round(t.Context())
		f.settle(t, "halt support")
		alerts := f.controlAlerts(t)
		if len(alerts) != 1 || !strings.Contains(alerts[0].Title, "no proof for 15m0s although its worker runs") {
			t.Fatalf("alerts: %+v", alerts)
		}
		if err := f.client.AckControl(t.Context(), alerts[0].ID); err != nil {
			t.Fatal(err)
		}
	}
}

// Two answers of one worker at the same time, both of which continue the kept
// head and not each other: one of them is cosigned, and the other refused.
func TestWitnessOfTwoHistoriesAtOnce(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	base := f.logOf(t, "support") // which every history continues
	f.runs(t, "support", base)
	f.server.round(t.Context())
	w, first, second := f.server.witness, f.logOf(t, "support", "a"), f.logOf(t, "support", "b")
	proofs := map[*audit.Log]error{}
	inside := make(chan struct{})
	slow := proverFunc(func(ctx context.Context, old uint64) (audit.Consistency, error) {
		c, err := first.ProveConsistency(ctx, old)
		<-inside
		return c, err
	})
	done := make(chan error, 1)
	go func() { _, err := w.look(t.Context(), "support", slow, 0); done <- err }()
	fast := proverFunc(second.ProveConsistency)
	_, proofs[second] = w.look(t.Context(), "support", fast, 0)
	close(inside)
	proofs[first] = <-done
	if proofs[second] != nil || proofs[first] == nil || !strings.Contains(proofs[first].Error(), "refused by the witness") {
		t.Errorf("the faster: %v, the slower: %v", proofs[second], proofs[first])
	}
	if kept := f.kept(t, "support"); kept.Size != 1 {
		t.Errorf("kept: %s", kept.Note)
	}
}

type proverFunc func(ctx context.Context, old uint64) (audit.Consistency, error)

func (p proverFunc) Consistency(ctx context.Context, old uint64) (audit.Consistency, error) {
	return p(ctx, old)
}

func (p proverFunc) ConsistencyTo(context.Context, uint64, []byte) (audit.Consistency, error) {
	return audit.Consistency{}, fmt.Errorf("not asked for here")
}

// The witness looks at its own log like at any other.
func TestWitnessOfTheControlPlanesOwnLog(t *testing.T) {
	f := serve(t, "")
	f.server.round(t.Context())
	before := f.kept(t, "")
	lie := proverFunc(func(ctx context.Context, _ uint64) (audit.Consistency, error) {
		c, err := f.server.cfg.ControlLog.log.ProveConsistency(ctx, 0)
		c.Old = before.Size
		return c, err
	})
	write(t, f.server.cfg.ControlLog.log, "more")
	f.server.lookAt(t.Context(), "", lie)
	alerts := f.controlAlerts(t)
	if len(alerts) != 1 || !strings.Contains(alerts[0].Title, "the log of the control plane is refused") || !bytes.Equal(before.Note, f.kept(t, "").Note) {
		t.Fatalf("alerts: %+v", alerts)
	}
	if _, err := f.client.ControlHead(t.Context()); problemFrom(err) == nil || problemFrom(err).Status != http.StatusConflict {
		t.Errorf("head: %v", err)
	}
	listed, err := f.client.ControlAlerts(t.Context(), ambit.Critical)
	if err != nil || len(listed.Alerts) != 1 || listed.Alerts[0].Agent != "" {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	if err := f.client.AckControl(t.Context(), alerts[0].ID); err != nil {
		t.Fatal(err)
	}
	if h, err := f.client.ControlHead(t.Context()); err != nil || h.Size <= before.Size {
		t.Errorf("after that: %+v, %v", h, err)
	}
	if err := f.client.AckControl(t.Context(), 99); problemFrom(err) == nil || problemFrom(err).Status != http.StatusNotFound {
		t.Errorf("an alert that is not there: %v", err)
	}
}
