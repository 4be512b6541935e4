package sink

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	logsservice "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"ambit"
	"ambit/audit/sink/outputs"
)

// otelCollector is a receiver of OTLP that is strict about the protocol. The real
// one is in e2e.
type otelCollector struct {
	got
	t       *testing.T
	fails   atomic.Int32 // how many more requests are answered with 503
	rejects atomic.Int64 // how many records of each request are said to be rejected
	limit   int          // records in a request; 0 is any
}

func (c *otelCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Content-Encoding") != "gzip" ||
		r.Header.Get("Authorization") != "Bearer token-of-the-collector" {
		c.t.Errorf("%v, %s %s %v", err, r.Method, r.URL, r.Header)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if c.fails.Add(-1) >= 0 {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var request logsservice.ExportLogsServiceRequest
	if err := (proto.UnmarshalOptions{DiscardUnknown: false}).Unmarshal([]byte(gunzip(c.t, body)), &request); err != nil {
		c.t.Error(err)
	}
	records := request.ResourceLogs[0].ScopeLogs[0].LogRecords
	if c.limit > 0 && len(records) > c.limit {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	for _, record := range records {
		uid, decision := "", ""
		for _, a := range record.Attributes {
			switch a.Key {
			case "log.record.uid":
				uid = a.Value.GetStringValue()
			case "ambit.decision":
				decision = a.Value.GetStringValue()
			}
		}
		var seq uint64
		for _, d := range strings.TrimPrefix(uid, support.Name+"/") {
			seq = seq*10 + uint64(d-'0')
		}
		if record.TimeUnixNano == 0 || record.EventName == "" || decision == "" || !strings.HasPrefix(record.Body.GetStringValue(), `{"v":1,"seq":`) || len(request.ResourceLogs[0].Resource.Attributes) != 3 {
			c.t.Errorf("%v", record)
		}
		c.add(support.Name, seq)
	}
	answer := &logsservice.ExportLogsServiceResponse{}
	if n := c.rejects.Load(); n > 0 {
		answer.PartialSuccess = &logsservice.ExportLogsPartialSuccess{RejectedLogRecords: n, ErrorMessage: "too old\x1b[2J"}
	}
	text, err := proto.Marshal(answer)
	if err != nil {
		c.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(text)
}

func TestOTLP(t *testing.T) {
	c := &otelCollector{t: t, limit: 100}
	c.fails.Store(2)
	server := httptest.NewTLSServer(c)
	defer server.Close()
	s := open(t, &outputs.Sink{Kind: outputs.OTLP, URL: server.URL + "/v1/logs", Header: "Authorization", SecretFile: secret(t, "Bearer token-of-the-collector"), TLS: authority(t, server)})
	o := quick(newCursors(), s)
	r, _ := start(t, o)
	m := newMemory()
	m.write(299)
	m.put(ambit.Event{Kind: "broken\xff", Agent: "support", Host: "\xff", Detail: "\xff"})
	add(t, r, support, m)
	until(t, func() error { return c.whole(support.Name, 300) })
	if n := r.Status()[0].Rejected; n != 0 {
		t.Errorf("%d rejected", n)
	}
}

// What a collector says that it rejected is told, and not sent again.
func TestOTLPPartialSuccess(t *testing.T) {
	c := &otelCollector{t: t}
	c.rejects.Store(2)
	server := httptest.NewTLSServer(c)
	defer server.Close()
	s := open(t, &outputs.Sink{Kind: outputs.OTLP, URL: server.URL + "/v1/logs", Header: "Authorization", SecretFile: secret(t, "Bearer token-of-the-collector"), TLS: authority(t, server)})
	rejected, err := s.Receiver.Deliver(t.Context(), batch(5))
	if err != nil || len(rejected) != 2 || rejected[0].Text != `2 of the 5 records from 0 to 4 were rejected: too old\x1b[2J` {
		t.Errorf("%+v, %v", rejected, err)
	}
	_ = s.Receiver.Close()
}
