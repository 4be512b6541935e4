package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"ambit"
	"ambit/internal/inert"
)

// batch is what one message tells.
type batch struct {
	items []item
	more  int // how many of items, at the end, are only counted
}

// message is one message, before it takes the form of its kind.
type message struct {
	id     string // the same for the same alerts
	time   time.Time
	test   bool
	alerts []told
	more   int // alerts that are news too, and not in alerts
}

// told is an alert as destinations get it.
type told struct {
	ID       string         `json:"id"`    // of this piece of news: a receiver that has it already may drop it
	Agent    ambit.AgentID  `json:"agent"` // "" is the control plane
	Number   int64          `json:"number"`
	Severity ambit.Severity `json:"severity"`
	Code     string         `json:"code"`
	Title    string         `json:"title"`
	Key      string         `json:"key"`
	Count    uint64         `json:"count"`
	First    time.Time      `json:"first"`
	Last     time.Time      `json:"last"`
	Event    uint64         `json:"event"` // position of the last one's cause in the log
}

// line makes hostile text one inert line of at most max bytes.
func line(s string, max int) string {
	if len(s) > 4*max {
		s = s[:4*max]
	}
	s = inert.Text(s)
	if len(s) <= max {
		return s
	}
	cut := max - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// message writes a batch down. Whatever is of an agent or a worker is made inert
// and is bounded here.
func (b batch) message() *message {
	m := &message{more: b.more}
	hash := sha256.New()
	for n, i := range b.items {
		fmt.Fprintf(hash, "%q %q %d\n", i.source.Name, i.book, i.Position)
		if i.Last.After(m.time) {
			m.time = i.Last
		}
		if n >= len(b.items)-b.more {
			continue
		}
		m.alerts = append(m.alerts, told{
			ID: fmt.Sprintf("%s/%d", line(i.book, 64), i.Position), Agent: i.source.Agent, Number: i.ID, Severity: min(i.Severity, ambit.Critical),
			Code: line(i.Code(), 64), Title: line(i.Title, 600), Key: line(i.Key, 600), Count: i.Count, First: i.First.UTC(), Last: i.Last.UTC(), Event: i.Event,
		})
	}
	m.id = "msg_" + hex.EncodeToString(hash.Sum(nil)[:16])
	return m
}

func testMessage(now time.Time) *message {
	sum := sha256.Sum256([]byte(now.Format(time.RFC3339Nano)))
	return &message{id: "msg_" + hex.EncodeToString(sum[:16]), time: now.UTC(), test: true}
}

// body is the message as a webhook has it. encoding/json writes what HTML could
// read as \u003c.
func (m *message) body() ([]byte, error) {
	type data struct {
		Alerts []told `json:"alerts,omitempty"`
		Text   string `json:"text,omitempty"`
	}
	out := struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      data      `json:"data"`
	}{"ambit.alerts", m.time, data{Alerts: m.alerts}}
	if m.test {
		out.Type, out.Data = "ambit.test", data{Text: testText}
	}
	return json.Marshal(out)
}

const testText = "This is a test of Ambit's notifications. Nothing happened."

func whose(a told) string {
	if a.Agent == "" {
		return "the control plane"
	}
	return line(string(a.Agent), 64)
}

// subject is one line.
func (m *message) subject() string {
	switch n := len(m.alerts) + m.more; {
	case m.test:
		return "[Ambit] test"
	case n == 1:
		a := m.alerts[0]
		return line(fmt.Sprintf("[Ambit] %s: %s: %s", a.Severity, whose(a), a.Title), 150)
	default:
		return fmt.Sprintf("[Ambit] %d alerts, the highest %s", n, m.alerts[0].Severity)
	}
}

// text is the message for people, with newlines.
func (m *message) text() string {
	if m.test {
		return testText + "\n"
	}
	var b strings.Builder
	for _, a := range m.alerts {
		fmt.Fprintf(&b, "%s  %s  %s\n  %s\n", strings.ToUpper(a.Severity.String()), whose(a), a.Code, a.Title)
		fmt.Fprintf(&b, "  alert %d, counted %d, the last at %s, event %d\n\n", a.Number, a.Count, a.Last.Format(time.RFC3339), a.Event)
	}
	if m.more > 0 {
		fmt.Fprintf(&b, "There are %d more.\n\n", m.more)
	}
	b.WriteString("To see them: ambit alerts\n")
	if a := m.alerts[0]; a.Agent != "" {
		fmt.Fprintf(&b, "To mark the first as seen: ambit alerts ack --agent %s %d\nTo silence it for a day: ambit alerts mute --agent %s %d\n", whose(a), a.Number, whose(a), a.Number)
	}
	return b.String()
}
