// Package sink streams the events of logs to where an operator collects them:
// syslog, Splunk, an OpenTelemetry collector, a webhook, a bucket, a file.
//
// A [Receiver] delivers one batch and returns when the other side has
// acknowledged it, as far as its protocol has such a thing. A [Runner] has one
// goroutine that delivers for each sink, takes the logs in turn, and stores a
// cursor for each sink and log after the acknowledgement: every event arrives at
// least once, and those of one log in order. What arrives twice has the same
// name: the log's and the position (format.UID).
//
// What a sink should be is written in a file that package outputs reads; [Open]
// makes a [Sink] of it. The package knows nothing of how logs and cursors are
// stored: see [Source] and [Cursors].
//
// Trust: the operator is trusted to say where events go; whoever receives them
// sees everything that the log says. A receiver is believed when it says that it
// has a batch, and nothing else that it says is: its answers are bounded in size
// and time, shown escaped and without our secrets, and redirects are not
// followed. Events quote hostile text; package format makes it data.
package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambit"
)

// Log names one log.
type Log struct {
	// Name is the log's for ever, also after an agent of the same name was made
	// anew: its origin, such as "ambit/agent/support/00112233". Letters, digits,
	// ".", "_", "-" and "/".
	Name string
	// Agent is whose log it is; "" for that of the control plane.
	Agent ambit.AgentID
}

// Source is where the events of one log come from. Its methods may be called at
// the same time.
type Source interface {
	// Events returns the next events from a position on, in order, at most limit
	// of them and none only if there are none yet. Erased ones are left out.
	Events(ctx context.Context, from uint64, limit int) ([]ambit.Event, error)
	// Wait returns when there is an event at the position or behind it.
	Wait(ctx context.Context, from uint64) error
	// End is the position that the next event will have.
	End(ctx context.Context) (uint64, error)
}

// Cursors keeps how far each sink has come in each log. Its methods may be called
// at the same time.
type Cursors interface {
	// Load returns the position of the first event that is not yet
	// acknowledged; 0 if nothing was stored.
	Load(ctx context.Context, sink, log string) (next uint64, err error)
	// Store returns when the position is durable.
	Store(ctx context.Context, sink, log string, next uint64) error
}

// Batch is events of one log, in order.
type Batch struct {
	Log    Log
	Events []ambit.Event // at least one
}

// First and Last are the positions of the first and of the last event.
func (b Batch) First() uint64 { return b.Events[0].Seq }

// Last is the position of the last event.
func (b Batch) Last() uint64 { return b.Events[len(b.Events)-1].Seq }

// Rejection is one event that a receiver does not take in any form. A marker that
// says so is delivered in its place where the protocol can, and the log still has
// the event.
type Rejection struct {
	Log  string
	Seq  uint64
	Text string // why, as the receiver says; escaped
}

// Receiver delivers to one place. It is used by one goroutine at a time.
type Receiver interface {
	// Deliver returns once the receiver has acknowledged the whole batch, as far
	// as its protocol does that. After an error the same batch comes again, as a
	// rule; the receiver may have it, or a part, already.
	Deliver(ctx context.Context, b Batch) ([]Rejection, error)
	Close() error
}

// Limits are how much a receiver wants at once.
type Limits struct {
	Events int           // at most so many in a batch
	Bytes  int           // at most about so many in a batch, and at least one event
	Linger time.Duration // how long to wait for company before a batch that is not full
}

// Sink is a receiver and what it is to get.
type Sink struct {
	Name     string // unique among the sinks; part of the cursor's name
	Kind     string // "syslog", for status
	Receiver Receiver
	Limits   Limits
	Blocking bool            // when-down: block; enforced by whoever asks Runner.Acknowledged
	Agents   []ambit.AgentID // whose logs; nil for all
	Control  bool            // also that of the control plane
}

// selects says whether the sink gets a log.
func (s *Sink) selects(l Log) bool {
	if l.Agent == "" {
		return s.Control
	}
	if s.Agents == nil {
		return true
	}
	for _, a := range s.Agents {
		if a == l.Agent {
			return true
		}
	}
	return false
}

// laterError is an error with the receiver's wish when to try again.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

// wish is how long a receiver asked to be left alone; 0 if it did not.
func wish(err error) time.Duration {
	var later *laterError
	if errors.As(err, &later) {
		return later.after
	}
	return 0
}

// checkLog refuses a name that could be something else in a path or a key.
func checkLog(name string) error {
	if name == "" || len(name) > 200 {
		return fmt.Errorf("the name of a log has %d bytes, not 1 to 200", len(name))
	}
	segment := 0
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.' && segment > 0:
			segment++
		case c == '/' && segment > 0 && i < len(name)-1:
			segment = 0
		default:
			return fmt.Errorf("the name of the log %q has %q at byte %d", name, c, i)
		}
	}
	return nil
}
