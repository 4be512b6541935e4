//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/audit"
	"ambit/internal/sqldb"
)

// forge writes another history of an agent, signed with the agent's own keys, as
// whoever controls its worker can: the log is whole, and longer than the true one.
func forge(t *testing.T, h *home, id ambit.AgentID, events int) (path string) {
	t.Helper()
	store, err := agent.Open(t.Context(), agent.Config{Home: h.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	keys, err := store.Keys(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Wipe()
	path = filepath.Join(t.TempDir(), "agent.db")
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: id, Keys: audit.Keys{Body: keys.Data, Sign: keys.Sign}, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		log.Record(ambit.Event{Kind: ambit.KindWorkerStart, Detail: fmt.Sprintf("nothing happened %d", i)})
	}
	if err := errors.Join(log.Close(context.Background()), db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestL1TheWitnessRefusesAnotherHistory (row L1): a worker whose log was
// exchanged for another that is signed with its own keys, or for an older copy,
// starts as if nothing were wrong. Without anyone asking for a verification the
// control plane refuses its head, halts it, says so in a critical alert, and lets
// it start again only when a person has seen that.
func TestL1TheWitnessRefusesAnotherHistory(t *testing.T) {
	h := newHome(t)
	h.deploy(manifest("a", ""))
	state := filepath.Join(h.dir, "agents", "a", "state")
	h.run("stop", "a")
	h.stop()
	older := readAll(t, state)
	h.serve()
	h.run("start", "a")
	h.sh("a", "true")
	h.run("stop", "a")
	first := h.run("audit", "head", "a")
	if strings.Count(first, "— ") != 2 || !strings.Contains(first, "— ambit/witness/") {
		t.Fatalf("a head that is not cosigned:\n%s", first)
	}
	h.stop()
	whole := readAll(t, state)
	for name, exchange := range map[string]func(){
		"an older copy": func() { writeAll(t, state, older) },
		"a longer history of its own keys": func() {
			forged, err := os.ReadFile(forge(t, h, "a", 1000))
			if err != nil {
				t.Fatal(err)
			}
			var files []kept
			for _, f := range whole {
				switch f.name {
				case "agent.db":
					f.data = forged
				case "agent.db-wal", "agent.db-shm", "agent.journal":
					continue
				}
				files = append(files, f)
			}
			writeAll(t, state, files)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			exchange()
			h.serve()
			_, _ = h.try("start", "a") // the worker decides and signs as always
			alert := h.awaitRefusal("a")
			if said := h.refused("start", "a"); !strings.Contains(said, "the log of a is refused by the witness") {
				t.Errorf("start: %s", said)
			}
			if said := h.refused("audit", "head", "a"); !strings.Contains(said, "refused by the witness") {
				t.Errorf("audit head: %s", said)
			}
			h.await(func() bool { return strings.Contains(h.run("agents"), "stopped") }, 20*time.Second, "the agent to be halted")

			// The true log is put back; the refusal is a person's to end.
			h.stop()
			writeAll(t, state, whole)
			h.serve()
			if said := h.refused("audit", "head", "a"); !strings.Contains(said, "refused by the witness") {
				t.Errorf("audit head of the true log: %s", said)
			}
			h.run("alerts", "--control", "--ack", fmt.Sprint(alert))
			h.run("start", "a")
			h.run("stop", "a")
			if out := h.run("audit", "head", "a"); !strings.HasPrefix(out, strings.SplitN(first, "\n", 2)[0]) {
				t.Errorf("audit head: %s", out)
			}
			if out := h.run("audit", "verify", "--control"); !strings.Contains(out, "The log of the control plane is whole") {
				t.Errorf("the control plane's own log: %s", out)
			}
			h.stop()
			whole = readAll(t, state)
		})
	}
	h.t = t
}

// awaitRefusal waits for the alert that the witness refuses an agent's log, and
// returns its number.
func (h *home) awaitRefusal(agent string) (number int64) {
	h.t.Helper()
	h.await(func() bool {
		var list struct {
			Alerts []struct {
				ID       int64
				Agent    string
				Severity string
				Title    string
				Acked    bool
			}
		}
		out := h.run("alerts", "--control", "--min", "critical", "--json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			h.t.Fatalf("alerts: %v\n%s", err, out)
		}
		for _, a := range list.Alerts {
			if !a.Acked && a.Agent == "" && a.Severity == "critical" && strings.Contains(a.Title, "the log of "+agent+" is refused by the witness") {
				number = a.ID
				return true
			}
		}
		return false
	}, 90*time.Second, "the alert about the log of "+agent)
	return number
}
