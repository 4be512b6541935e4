package sink

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ambit/audit/sink/format"
	"ambit/audit/sink/outputs"
	"ambit/internal/secretbytes"
)

// splunk posts batches to Splunk's HTTP Event Collector,
// https://docs.splunk.com/Documentation/Splunk/latest/Data/HECRESTendpoints. It has
// a batch when it answers code 0 and, with acknowledge, when the indexer says that
// the batch is durable.
type splunk struct {
	encoder
	*web
	url, index  string
	acknowledge bool
	channel     string // names this client to the collector
	token       secretbytes.Bytes
	poll        time.Duration // between questions for acknowledgement
}

// The codes of the collector's answers that are told apart.
const (
	hecSuccess      = 0
	hecNoData       = 5
	hecInvalid      = 6
	hecEventMissing = 12
	hecEventBlank   = 13
	hecFields       = 15
)

func newSplunk(c *outputs.Sink, version string) (*splunk, error) {
	token, err := outputs.ReadSecret(c.SecretFile)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(string(token.Reveal()), " \n") {
		return nil, fmt.Errorf("%s has more than one word in it, and a token is one", c.SecretFile)
	}
	w, err := newWeb(c.TLS, token)
	if err != nil {
		return nil, err
	}
	return &splunk{encoder: encoder{c.OCSF, version}, web: w, url: strings.TrimSuffix(c.URL, "/"), index: c.Index,
		acknowledge: c.Acknowledge, channel: newChannel(), token: token, poll: time.Second}, nil
}

// newChannel is a random UUID (RFC 9562, version 4).
func newChannel() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// hecAnswer is what the collector answers.
type hecAnswer struct {
	Code    *int   `json:"code"`
	Text    string `json:"text"`
	AckID   *int64 `json:"ackId"`
	Invalid *int   `json:"invalid-event-number"`
}

// Deliver implements Receiver. An event that the collector calls invalid is
// replaced by a marker, once, and the rest goes on.
func (s *splunk) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	return s.deliver(ctx, b, map[uint64]string{})
}

func (s *splunk) deliver(ctx context.Context, b Batch, bad map[uint64]string) ([]Rejection, error) {
	body, err := s.body(b, bad)
	if err != nil {
		return nil, err
	}
	a, err := s.send(ctx, http.MethodPost, s.url+"/services/collector/event", s.header(), body)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusRequestEntityTooLarge {
		return halves(b, func(part Batch) ([]Rejection, error) { return s.deliver(ctx, part, bad) },
			func(part Batch) ([]Rejection, error) { return s.replace(ctx, part, 0, s.refused(a), bad) })
	}
	var said hecAnswer
	if err := json.Unmarshal(a.body, &said); err != nil || said.Code == nil {
		return nil, s.refused(a)
	}
	switch {
	case a.status == http.StatusOK && *said.Code == hecSuccess:
		if err := s.acknowledged(ctx, said.AckID); err != nil {
			return nil, err
		}
		return rejections(b, bad), nil
	case invalid(a.status, &said) && *said.Invalid < len(b.Events):
		return s.replace(ctx, b, *said.Invalid, s.refused(a), bad)
	}
	return nil, s.refused(a)
}

// invalid says whether the collector blames one event, which it then names.
func invalid(status int, a *hecAnswer) bool {
	if status != http.StatusBadRequest || a.Invalid == nil || *a.Invalid < 0 {
		return false
	}
	switch *a.Code {
	case hecNoData, hecInvalid, hecEventMissing, hecEventBlank, hecFields:
		return true
	}
	return false
}

// replace goes on with a marker in the place of the i-th event. The collector may
// have taken those before it, which then come twice.
func (s *splunk) replace(ctx context.Context, b Batch, i int, why error, bad map[uint64]string) ([]Rejection, error) {
	seq := b.Events[i].Seq
	if _, again := bad[seq]; again {
		return nil, fmt.Errorf("also the marker of event %d is refused: %w", seq, why)
	}
	bad[seq] = why.Error()
	return s.deliver(ctx, b, bad)
}

func rejections(b Batch, bad map[uint64]string) []Rejection {
	var all []Rejection
	for _, e := range b.Events {
		if why, ok := bad[e.Seq]; ok {
			all = append(all, Rejection{b.Log.Name, e.Seq, why})
		}
	}
	return all
}

func (s *splunk) header() http.Header {
	return http.Header{"Authorization": {"Splunk " + string(s.token.Reveal())}, "X-Splunk-Request-Channel": {s.channel}, "Content-Type": {"application/json"}}
}

// body is one object for each event, one behind the other.
func (s *splunk) body(b Batch, bad map[uint64]string) ([]byte, error) {
	var out bytes.Buffer
	for i := range b.Events {
		e := b.Events[i]
		if _, refused := bad[e.Seq]; refused {
			e = marker(&e, "invalid event")
		}
		event, err := s.append(nil, b.Log, &e)
		if err != nil {
			return nil, err
		}
		envelope := struct {
			Time       json.Number       `json:"time"` // seconds
			Source     string            `json:"source"`
			Sourcetype string            `json:"sourcetype"`
			Index      string            `json:"index,omitempty"`
			Event      json.RawMessage   `json:"event"`
			Fields     map[string]string `json:"fields"`
		}{seconds(e.Time), b.Log.Name, "ambit:audit:json", s.index, event, map[string]string{"ambit_uid": format.UID(b.Log.Name, e.Seq), "ambit_kind": string(e.Kind), "ambit_decision": e.Decision.String()}}
		if s.ocsf {
			envelope.Sourcetype = "ambit:audit:ocsf"
		}
		text, err := json.Marshal(envelope)
		if err != nil {
			return nil, err
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

func seconds(t time.Time) json.Number {
	return json.Number(fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000))
}

// acknowledged waits until the indexer has the batch, if that was asked for.
func (s *splunk) acknowledged(ctx context.Context, id *int64) error {
	if !s.acknowledge {
		return nil
	}
	if id == nil {
		return fmt.Errorf("the collector gave no ackId: switch indexer acknowledgement on for the token, or write acknowledge: false")
	}
	question := fmt.Appendf(nil, `{"acks":[%d]}`, *id)
	for {
		a, err := s.send(ctx, http.MethodPost, s.url+"/services/collector/ack?channel="+s.channel, s.header(), question)
		if err != nil {
			return fmt.Errorf("asking for acknowledgement: %w", err)
		}
		var said struct {
			Acks map[string]bool `json:"acks"`
		}
		if err := json.Unmarshal(a.body, &said); err != nil || a.status != http.StatusOK || said.Acks == nil {
			return fmt.Errorf("asking for acknowledgement: %w", s.refused(a))
		}
		if said.Acks[fmt.Sprint(*id)] {
			return nil
		}
		if !sleep(ctx, s.poll) {
			return fmt.Errorf("the indexer did not acknowledge in time: %w", ctx.Err())
		}
	}
}

// Close implements Receiver.
func (s *splunk) Close() error { return s.close() }
