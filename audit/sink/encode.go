package sink

import (
	"encoding/json"

	"ambit"
	"ambit/audit/sink/format"
)

// encoder writes an event as JSON or as OCSF.
type encoder struct {
	ocsf    bool
	version string // of the product
}

func (c encoder) append(dst []byte, log Log, e *ambit.Event) ([]byte, error) {
	if c.ocsf {
		return format.OCSF{Version: c.version}.Append(dst, log.Name, e)
	}
	return format.AppendJSON(dst, e)
}

// lines are the events of a batch, each with a newline.
func (c encoder) lines(b Batch) ([]byte, error) {
	var out []byte
	var err error
	for i := range b.Events {
		if out, err = c.append(out, b.Log, &b.Events[i]); err != nil {
			return nil, err
		}
		out = append(out, '\n')
	}
	return out, nil
}

// marker stands for an event that a receiver does not take: what it was, without
// what it said.
func marker(e *ambit.Event, why string) ambit.Event {
	return ambit.Event{
		V: e.V, Seq: e.Seq, Time: e.Time, Kind: e.Kind, Agent: e.Agent, Principal: e.Principal, Decision: e.Decision,
		Detail: "this event was refused by the receiver (" + why + "); the log has it",
	}
}

// quoted is text as JSON.
func quoted(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // there is no such text
		return []byte(`""`)
	}
	return b
}
