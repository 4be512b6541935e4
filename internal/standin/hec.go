package standin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// HEC plays Splunk's HTTP Event Collector, after
//
//	https://docs.splunk.com/Documentation/Splunk/latest/Data/HECRESTendpoints
//	https://docs.splunk.com/Documentation/Splunk/latest/Data/TroubleshootHTTPEventCollector
//	https://docs.splunk.com/Documentation/Splunk/latest/Data/AboutHECIDXAck
//
// It is safe for concurrent use.
type HEC struct {
	Token   string
	Indexes []string // that the token may write to; the first is its own
	Ack     bool     // indexer acknowledgement is on for the token
	// AckAfter is how often it is asked for an acknowledgement before it gives one.
	AckAfter int
	// MaxBody is the largest body in bytes; 0 is 1 MiB.
	MaxBody int
	// Refuse says which events it calls invalid; nil for none.
	Refuse func(event json.RawMessage) bool

	mu      sync.Mutex
	busy    int // how many more requests are answered with 503
	next    int64
	pending map[string]map[int64]*hecBatch // by channel
	events  []HECEvent
	faults  []string
}

// HECEvent is an event that the indexer has.
type HECEvent struct {
	Time       json.Number       `json:"time"`
	Host       string            `json:"host"`
	Source     string            `json:"source"`
	Sourcetype string            `json:"sourcetype"`
	Index      string            `json:"index"`
	Event      json.RawMessage   `json:"event"`
	Fields     map[string]string `json:"fields"`
}

type hecBatch struct {
	events []HECEvent
	asked  int
}

// Busy makes it answer the next n requests that it is busy.
func (h *HEC) Busy(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = n
}

// Events are those that the indexer has.
func (h *HEC) Events() []HECEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// Faults are what clients did that no client of the collector may do.
func (h *HEC) Faults() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.faults)
}

var channelForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// ServeHTTP implements http.Handler.
func (h *HEC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limit := h.MaxBody
	if limit == 0 {
		limit = 1 << 20
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	h.mu.Lock()
	defer h.mu.Unlock()
	channel := r.Header.Get("X-Splunk-Request-Channel")
	if channel == "" {
		channel = r.URL.Query().Get("channel")
	}
	switch kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); {
	case err != nil:
		hecSay(w, 400, 6, "Invalid data format", nil)
	case r.Method != http.MethodPost:
		h.faults = append(h.faults, "method "+r.Method)
		w.WriteHeader(http.StatusMethodNotAllowed)
	case kind == "":
		hecSay(w, 401, 2, "Token is required", nil)
	case kind != "Splunk":
		hecSay(w, 401, 3, "Invalid authorization", nil)
	case !same(h.Token, token):
		hecSay(w, 403, 4, "Invalid token", nil)
	case h.busy > 0:
		h.busy--
		hecSay(w, 503, 9, "Server is busy", nil)
	case len(body) > limit:
		http.Error(w, "<html>Content-Length of "+fmt.Sprint(len(body))+" too large</html>", http.StatusRequestEntityTooLarge)
	case h.Ack && channel == "":
		hecSay(w, 400, 10, "Data channel is missing", nil)
	case channel != "" && !channelForm.MatchString(channel):
		hecSay(w, 400, 11, "Invalid data channel", nil)
	case r.URL.Path == "/services/collector/ack":
		h.ack(w, channel, body)
	case r.URL.Path == "/services/collector/event" || r.URL.Path == "/services/collector":
		h.take(w, channel, body)
	default:
		h.faults = append(h.faults, "path "+r.URL.Path)
		http.Error(w, `{"text":"The requested URL was not found on this server.","code":404}`, http.StatusNotFound)
	}
}

// take judges a batch. Those before an invalid event are taken.
func (h *HEC) take(w http.ResponseWriter, channel string, body []byte) {
	if len(bytes.TrimSpace(body)) == 0 {
		hecSay(w, 400, 5, "No data", nil)
		return
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var events []HECEvent
	for i := 0; ; i++ {
		var e HECEvent
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		code, text := 0, ""
		switch {
		case err != nil:
			code, text = 6, "Invalid data format"
		case e.Event == nil:
			code, text = 12, "Event field is required"
		case string(e.Event) == `""` || string(e.Event) == "null":
			code, text = 13, "Event field cannot be blank"
		case e.Index != "" && !slices.Contains(h.Indexes, e.Index):
			code, text = 7, "Incorrect index"
		case h.Refuse != nil && h.Refuse(e.Event):
			code, text = 6, "Invalid data format"
		}
		if code != 0 {
			h.events = append(h.events, events...)
			hecSay(w, 400, code, text, map[string]any{"invalid-event-number": i})
			return
		}
		events = append(events, e)
	}
	if !h.Ack {
		h.events = append(h.events, events...)
		hecSay(w, 200, 0, "Success", nil)
		return
	}
	if h.pending == nil {
		h.pending = map[string]map[int64]*hecBatch{}
	}
	if h.pending[channel] == nil {
		h.pending[channel] = map[int64]*hecBatch{}
	}
	h.pending[channel][h.next] = &hecBatch{events: events}
	hecSay(w, 200, 0, "Success", map[string]any{"ackId": h.next})
	h.next++
}

// ack answers which batches the indexer has; once for each, then it forgets.
func (h *HEC) ack(w http.ResponseWriter, channel string, body []byte) {
	if !h.Ack {
		hecSay(w, 400, 14, "ACK is disabled", nil)
		return
	}
	var question struct{ Acks []int64 }
	if err := json.Unmarshal(body, &question); err != nil || len(question.Acks) == 0 {
		hecSay(w, 400, 6, "Invalid data format", nil)
		return
	}
	acks := map[string]bool{}
	for _, id := range question.Acks {
		b := h.pending[channel][id]
		if b != nil {
			b.asked++
		}
		done := b != nil && b.asked > h.AckAfter
		if done {
			h.events = append(h.events, b.events...)
			delete(h.pending[channel], id)
		}
		acks[fmt.Sprint(id)] = done
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"acks": acks})
}

// Crash is what a crash of the indexer does: what was not acknowledged is gone.
// From then on it acknowledges when it is first asked.
func (h *HEC) Crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending, h.AckAfter = nil, 0
}

func hecSay(w http.ResponseWriter, status, code int, text string, more map[string]any) {
	said := map[string]any{"text": text, "code": code}
	for k, v := range more {
		said[k] = v
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(said)
}
