package alert

import (
	"cmp"
	"fmt"
	"strings"

	"ambit"
)

// subject says in a few words what an event is about.
func subject(e *ambit.Event) string {
	switch {
	case e.Tool != "":
		return "the tool " + e.Tool
	case e.Host != "":
		return strings.TrimSpace(e.Method + " " + e.Host)
	case e.Connection != "":
		return "the connection " + e.Connection
	case e.Resource != "":
		return e.Resource
	}
	return string(e.Kind)
}

// why is the reason of a refusal, or else the detail.
func why(e *ambit.Event) string {
	if e.Reason != nil && e.Reason.Text != "" {
		return e.Reason.Text
	}
	return cmp.Or(e.Detail, "no reason is given")
}

// whose names the agent that an event of the control plane is about.
func whose(e *ambit.Event) string {
	if e.Agent == "" {
		return "the control plane"
	}
	return string(e.Agent)
}

// title says what a rule found. What is of an agent in it is made inert by the
// book.
func title(c *compiled, e *ambit.Event) string {
	switch {
	case c.own:
		return ownTitle(c, e)
	case c.Name == ambit.AlertRepeated:
		return fmt.Sprintf("refused %d times within %v; the last: %s: %s", c.Count, c.Within, subject(e), why(e))
	case c.Name == ambit.AlertErased && e.Erasure != nil:
		return fmt.Sprintf("the bodies of %d events were erased: %s", e.Erasure.Bodies, e.Erasure.Rule)
	case c.Name == ambit.AlertErased:
		return "bodies of events were erased"
	case c.Name == ambit.AlertHeld:
		return fmt.Sprintf("%s changed whether events may be erased: %s", e.Principal, why(e))
	case c.Name == ambit.AlertWiped:
		return fmt.Sprintf("%s asked for everything of %s to be destroyed", e.Principal, whose(e))
	case c.Name == ambit.AlertSignInRefused:
		return fmt.Sprintf("%s was not let in: %s", cmp.Or(string(e.Principal), "somebody"), why(e))
	case c.Name == ambit.AlertSignInFailures:
		return fmt.Sprintf("%d sign-ins failed within %v; the last of %s: %s", c.Count, c.Within, cmp.Or(string(e.Principal), "somebody"), why(e))
	case c.Name == ambit.AlertLogBroken:
		return fmt.Sprintf("the log of %s is not whole: %s", whose(e), why(e))
	case c.Name == ambit.AlertSinkBehind:
		return fmt.Sprintf("the sink %s fell behind: %s", e.Resource, why(e))
	}
	return subject(e)
}

func ownTitle(c *compiled, e *ambit.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "rule %s: ", c.Name)
	if c.Count > 1 {
		fmt.Fprintf(&b, "%d times within %v, the last: ", c.Count, c.Within)
	}
	b.WriteString(subject(e))
	if e.Reason != nil {
		b.WriteString(": refused: " + e.Reason.Text)
	}
	if c.When.StatusTo != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	return b.String()
}

func firstTitle(c *compiled, e *ambit.Event) string {
	switch {
	case c.own:
		return fmt.Sprintf("rule %s: for the first time: %s", c.Name, subject(e))
	case c.First == ByTool:
		return "for the first time: " + subject(e)
	}
	return fmt.Sprintf("for the first time: %s, which %s allows", subject(e), cmp.Or(e.Rule, "a rule"))
}
