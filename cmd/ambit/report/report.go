// Package report writes down for people what agents did with somebody's data:
// as text for a terminal, as a page, and as a table.
//
// Trust: what it shows comes from logs, and the texts in those from agents and
// hosts. Every one of them is made inert for where it is written: control
// characters and marks of direction are shown escaped, HTML is text, and no cell
// of a table is a formula.
package report

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"ambit"
	"ambit/api"
	"ambit/internal/inert"
)

// The groups that a report counts.
const (
	groupRead    = "read"
	groupChanged = "changed"
	groupDeleted = "deleted"
	groupSent    = "sent"
	groupPaid    = "paid"
	groupRefused = "refused"
	groupOther   = "other"
)

// Report is a trace in the words of people.
type Report struct {
	Who     string   // the subjects, joined
	Asked   string   // when
	Span    string   // from the first entry to the last; "" if there are none
	Summary []string // sentences
	Entries []Entry
	Limits  []string // what the answer may not contain
}

// Entry is one thing that happened.
type Entry struct {
	Time   string
	Agent  string
	Group  string // one of the groups
	What   string // "read from shop.example"
	Target string // method and URL, or the tool
	Why    string // as the agent stated it; "" if it did not
	Rule   string // that decided
	Asked  string // who was asked, and what was said; "" if nobody was
	Result string
	Where  string // in which log, for a proof: "support 17"
}

// New makes a report of a trace. Times are shown in loc.
func New(t api.Trace, loc *time.Location) Report {
	r := Report{Asked: stamp(t.Asked, loc)}
	names := make([]string, len(t.Subjects))
	for i, s := range t.Subjects {
		names[i] = inert.Text(s.Value)
		if s.Kind != "email" {
			names[i] = inert.Text(s.Kind) + " " + names[i]
		}
	}
	r.Who = strings.Join(names, ", ")
	for _, e := range t.Entries {
		r.Entries = append(r.Entries, entry(e, loc))
	}
	if n := len(t.Entries); n > 0 {
		r.Span = stamp(t.Entries[0].Event.Time, loc) + " to " + stamp(t.Entries[n-1].Event.Time, loc)
	}
	r.Summary = summary(t, r.Entries)
	r.Limits = limits(t)
	return r
}

func stamp(t time.Time, loc *time.Location) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(loc).Format("2 January 2006, 15:04:05")
}

// group says what kind of thing an event is, by its decision and its strongest
// effect.
func group(e *ambit.Event) string {
	if e.Decision != ambit.Allow && decided(e) {
		return groupRefused
	}
	for _, g := range []struct {
		effect ambit.Effect
		group  string
	}{
		{ambit.EffectSpend, groupPaid}, {ambit.EffectDelete, groupDeleted}, {ambit.EffectSend, groupSent}, {ambit.EffectPublish, groupSent},
		{ambit.EffectWrite, groupChanged}, {ambit.EffectAccess, groupChanged}, {ambit.EffectRead, groupRead},
	} {
		if slices.Contains(e.Effects, g.effect) {
			return g.group
		}
	}
	return groupOther
}

// decided says whether the event records a decision at all.
func decided(e *ambit.Event) bool {
	switch e.Kind {
	case ambit.KindEgressRequest, ambit.KindEgressName, ambit.KindToolCall, ambit.KindModelCall, ambit.KindMessageOut:
		return true
	}
	return false
}

func entry(t api.TraceEntry, loc *time.Location) Entry {
	e := &t.Event
	x := Entry{
		Time: stamp(e.Time, loc), Agent: inert.Text(string(t.Agent)), Group: group(e), Why: inert.Text(e.Intent), Rule: inert.Text(e.Rule),
		Target: inert.Text(target(e)), Where: fmt.Sprintf("%s %d", t.Agent, e.Seq),
	}
	x.What = inert.Text(what(e, x.Group))
	if x.Group == groupRefused && len(t.Approvals) > 0 {
		x.What = inert.Text("waited for a person at " + cmp.Or(e.Host, e.Tool, e.Resource))
	}
	x.Result = inert.Text(result(e, t.Outcome))
	var asked []string
	for _, a := range t.Approvals {
		asked = append(asked, inert.Text(approval(&a)))
	}
	x.Asked = strings.Join(asked, "; ")
	return x
}

func what(e *ambit.Event, group string) string {
	place := cmp.Or(e.Host, e.Tool, e.Resource)
	switch {
	case e.Kind == ambit.KindMessageIn:
		return "got a message from " + cmp.Or(place, "somebody")
	case e.Kind == ambit.KindMemoryWrite:
		return "remembered something"
	case e.Kind == ambit.KindMemoryDelete:
		return "forgot something"
	case place == "":
		return cmp.Or(e.Detail, string(e.Kind))
	}
	switch group {
	case groupRead:
		return "read from " + place
	case groupChanged:
		return "wrote to " + place
	case groupDeleted:
		return "deleted at " + place
	case groupSent:
		return "sent something through " + place
	case groupPaid:
		return "moved money through " + place
	case groupRefused:
		return "was refused at " + place
	}
	return string(e.Kind) + " at " + place
}

func target(e *ambit.Event) string {
	if e.Tool != "" {
		return strings.TrimSpace(e.Tool + " " + e.Resource)
	}
	u := e.URL
	if plain, err := url.PathUnescape(u); err == nil {
		u = plain
	}
	return strings.TrimSpace(e.Method + " " + u)
}

func result(e, outcome *ambit.Event) string {
	if e.Decision != ambit.Allow && decided(e) {
		if e.Reason != nil {
			return "nothing left: " + e.Reason.Text
		}
		return "nothing left"
	}
	if outcome == nil {
		if e.Kind == ambit.KindEgressRequest || e.Kind == ambit.KindToolCall {
			return "how it ended is not known"
		}
		return ""
	}
	var parts []string
	if outcome.Status != 0 {
		parts = append(parts, fmt.Sprintf("answer %d", outcome.Status))
	}
	if outcome.BytesOut > 0 {
		parts = append(parts, bytesText(outcome.BytesOut)+" sent")
	}
	if outcome.BytesIn > 0 {
		parts = append(parts, bytesText(outcome.BytesIn)+" received")
	}
	if outcome.Detail != "" {
		parts = append(parts, outcome.Detail)
	}
	return strings.Join(parts, ", ")
}

func bytesText(n int64) string {
	if n < 10_000 {
		return fmt.Sprintf("%d bytes", n)
	}
	if n < 10_000_000 {
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}

func approval(e *ambit.Event) string {
	if e.Kind == ambit.KindApprovalAsk {
		return "a person was asked"
	}
	verb := "said no"
	if e.Decision == ambit.Allow {
		verb = "approved it"
	}
	return string(e.Principal) + " " + verb
}

// summary counts what was done, where, and who agreed to it.
func summary(t api.Trace, entries []Entry) []string {
	if len(entries) == 0 {
		return []string{"No event is known that touched this data."}
	}
	counts, places, agents := map[string]int{}, map[string]int{}, map[string]bool{}
	asked := 0
	for i, e := range entries {
		counts[e.Group]++
		agents[e.Agent] = true
		if h := t.Entries[i].Event.Host; h != "" && e.Group != groupRefused {
			places[inert.Text(h)]++
		}
		if e.Asked != "" {
			asked++
		}
	}
	var parts []string
	for _, g := range []struct{ group, one, many string }{
		{groupRead, "read once", "read %d times"}, {groupChanged, "written once", "written %d times"}, {groupSent, "sent on once", "sent on %d times"},
		{groupPaid, "part of one payment", "part of %d payments"}, {groupDeleted, "deleted once", "deleted %d times"},
		{groupRefused, "kept back once", "kept back %d times"}, {groupOther, "otherwise mentioned once", "otherwise mentioned %d times"},
	} {
		switch n := counts[g.group]; {
		case n == 1:
			parts = append(parts, g.one)
		case n > 1:
			parts = append(parts, fmt.Sprintf(g.many, n))
		}
	}
	lines := []string{fmt.Sprintf("The data was %s, by %s.", join(parts), plural(len(agents), "agent")+" ("+strings.Join(sorted(agents), ", ")+")")}
	if len(places) > 0 {
		lines = append(lines, "It was exchanged with: "+strings.Join(ranked(places), ", ")+".")
	}
	if counts[groupDeleted] == 0 {
		lines = append(lines, "Nothing of it was deleted.")
	}
	if asked == 0 {
		lines = append(lines, "No person was asked; the rules named below decided.")
	} else {
		lines = append(lines, fmt.Sprintf("A person was asked %s.", times(asked)))
	}
	return lines
}

func limits(t api.Trace) []string {
	var out []string
	for _, l := range t.Logs {
		agent := inert.Text(string(l.Agent))
		if l.Erased > 0 {
			out = append(out, fmt.Sprintf("%s: %s erased and can no longer be looked into.", agent, plural(int(l.Erased), "event was", "events were")))
		}
		if l.Unnamed > 0 {
			out = append(out, fmt.Sprintf("%s: %s so many people at once that not all of them are recorded.", agent, plural(int(l.Unnamed), "event was about", "events were about")))
		}
		if l.Unseen > 0 {
			out = append(out, fmt.Sprintf("%s: %s something that could not be looked through (pictures, archives, connections that are not opened).", agent, plural(int(l.Unseen), "call passed", "calls passed")))
		}
		if l.Cut {
			out = append(out, agent+": there is more than is shown here; ask for a shorter time.")
		}
	}
	for _, m := range t.Missing {
		out = append(out, "Could not be asked: "+inert.Text(m))
	}
	return out
}

func plural(n int, one string, many ...string) string {
	if n == 1 {
		return "1 " + one
	}
	if len(many) == 1 {
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func join(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}

func sorted(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// ranked lists places by how often.
func ranked(counts map[string]int) []string {
	names := make([]string, 0, len(counts))
	for k := range counts {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	for i, n := range names {
		names[i] = fmt.Sprintf("%s (%s)", n, times(counts[n]))
	}
	return names
}
