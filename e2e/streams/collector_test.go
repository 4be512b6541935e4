// Package streams sends events to receivers that are too heavy for the tests of
// package sink.
package streams

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/audit/sink"
	"ambit/audit/sink/outputs"
)

// OpenTelemetry's own receiver takes what we send, and has every value of it.
func TestCollector(t *testing.T) {
	program := filepath.Join(t.TempDir(), "collector")
	build := exec.Command("go", "build", "-C", "../collector", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the collector: %v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(stdout)
	address, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s, err := sink.Open(&outputs.Sink{Name: "otel", Kind: outputs.OTLP, URL: "http://" + strings.TrimSpace(address) + "/v1/logs"}, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Receiver.Close()
	b := sink.Batch{Log: sink.Log{Name: "ambit/agent/support/00112233", Agent: "support"}}
	const hostile = "hostile \x1b[31m\u202e\r\n\x00\"}]"
	for i, spec := range ambit.Catalogue() {
		b.Events = append(b.Events, ambit.Event{V: 1, Seq: uint64(i), Time: time.Now().UTC(), Kind: spec.Kind, Agent: "support", Principal: ambit.PrincipalAgent, Host: hostile, Detail: hostile})
	}
	if rejected, err := s.Receiver.Deliver(t.Context(), b); err != nil || len(rejected) > 0 {
		t.Fatalf("%v, %v", rejected, err)
	}
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var logs struct {
		ResourceLogs []struct {
			ScopeLogs []struct {
				LogRecords []struct {
					TimeUnixNano, EventName, SeverityText string
					Body                                  struct{ StringValue string }
					Attributes                            []struct {
						Key   string
						Value struct{ StringValue, IntValue string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(line), &logs); err != nil {
		t.Fatal(err)
	}
	records := logs.ResourceLogs[0].ScopeLogs[0].LogRecords
	if len(records) != len(b.Events) {
		t.Fatalf("%d records for %d events", len(records), len(b.Events))
	}
	for i, r := range records {
		var e ambit.Event
		if err := json.Unmarshal([]byte(r.Body.StringValue), &e); err != nil || e.Detail != hostile || e.Seq != uint64(i) {
			t.Errorf("%v: %+v", err, e)
		}
		have := map[string]string{}
		for _, a := range r.Attributes {
			have[a.Key] = a.Value.StringValue + a.Value.IntValue
		}
		if r.EventName != string(b.Events[i].Kind) || r.TimeUnixNano != strconv.FormatInt(b.Events[i].Time.UnixNano(), 10) ||
			have["log.record.uid"] != b.Log.Name+"/"+strconv.Itoa(i) || have["server.address"] != hostile || r.SeverityText == "" {
			t.Errorf("%+v", r)
		}
	}
}
