//go:build linux

package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"ambit/internal/inert"
)

// Columns.
const (
	nameWidth = 21
	tookWidth = 8
	minWidth  = 80 // of a whole line
	maxWidth  = 106
)

// style paints text if there is colour.
func (s *stage) style(text string, c color.Color, bold, faint bool) string {
	if !s.Color || text == "" {
		return text
	}
	st := lipgloss.NewStyle().Bold(bold).Faint(faint)
	if c != nil {
		st = st.Foreground(c)
	}
	return st.Render(text)
}

func (s *stage) bold(text string) string  { return s.style(text, nil, true, false) }
func (s *stage) faint(text string) string { return s.style(text, nil, false, true) }

// line writes a line of text. Whatever an agent chose was made inert before.
func (s *stage) line(parts ...string) {
	if !s.JSON {
		fmt.Fprintln(s.Out, strings.TrimRight("  "+strings.Join(parts, "  "), " "))
	}
}

func (s *stage) title() {
	s.line()
	s.line(s.bold("Ambit: one agent, one computer, one way out"))
	s.line()
}

// wait does something that lasts and says how long it took.
func (s *stage) wait(ctx context.Context, what string, do func(context.Context) error) error {
	began := time.Now()
	done := s.Progress(ctx, what)
	err := do(ctx)
	done()
	if err != nil {
		return err
	}
	s.fact(what, time.Since(began))
	return nil
}

// fact says that something is so; took may be 0.
func (s *stage) fact(what string, took time.Duration) {
	mark := s.style("✓", lipgloss.Green, false, false)
	if took == 0 {
		s.line(mark, inert.Text(what))
		return
	}
	s.line(mark, fit(what, s.room()+nameWidth+len("refused")+1), s.faint(lapse(took)))
}

func (s *stage) scene(name, what string) {
	s.line()
	s.line(s.bold(name+".") + " " + what)
	s.line()
}

// step shows one thing that the agent did: what the log says of it.
func (s *stage) step(st step) {
	mark := s.style("passed ", lipgloss.Green, false, false)
	switch {
	case st.Attack && st.Passed:
		mark = s.style("GOT OUT", lipgloss.Red, true, false)
	case st.Question != "":
		mark = s.style("asks   ", lipgloss.Cyan, false, false)
	case !st.Passed:
		mark = s.style("refused", lipgloss.Yellow, false, false)
	}
	s.line(mark, fit(st.Name, nameWidth), fit(st.What, s.room()), lapse(st.Took))
	why := st.Rule
	if !st.Passed && st.Question == "" {
		why = strings.TrimPrefix(why+": "+st.Why, ": ")
	}
	for part := range strings.Lines(why) {
		for line := range strings.Lines(lipgloss.Wrap(inert.Text(strings.TrimSpace(part)), nameWidth+s.room()+tookWidth+4, "")) {
			s.line("       ", s.faint(strings.TrimSpace(line)))
		}
	}
}

// end says how it went and where to look.
func (s *stage) end(r *result) error {
	if s.JSON {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.Out, "%s\n", b)
		return err
	}
	s.line()
	s.fact(fmt.Sprintf("%d of %d ways out refused; the shop saw %d requests, just those that the log allowed", r.Refused, r.Ways, r.Seen), 0)
	s.fact("the shop paid what the rules and a person let through, and nothing else: "+r.Refunds.money(), 0)
	s.fact(fmt.Sprintf("the log is whole: %d events, root %s", r.Events, r.Log), 0)
	s.line()
	if s.Once {
		s.line("Without --once the agents stay, to be looked at.")
		return nil
	}
	s.line(s.bold("Look for yourself") + ", in another terminal. Ctrl-C here ends it all and removes it.")
	s.line()
	for _, l := range [][2]string{
		{"export AMBIT_HOME=" + s.plane.home},
		{s.Program + " egress support --denied", "every refusal, with what would allow it"},
		{s.Program + " approvals --all", "what was asked, and what was said"},
		{s.Program + " alerts", "what a person should look at"},
		{s.Program + " exec support -- sh", "be the attacker"},
		{s.Program + " connections support", "its accounts, and what they are for"},
		{s.Program + " versions support 1", "the manifest: all that support may do"},
		{s.Program + " audit trace --subject " + customer, "what was done with her data"},
		{s.Program + " audit verify support", "check the log from first to last event"},
	} {
		s.line("  "+s.style(fmt.Sprintf("%-*s", len(s.Program)+len(" audit trace --subject "+customer), l[0]), lipgloss.Cyan, false, false), s.faint(l[1]))
	}
	s.line()
	return nil
}

// room is how wide the column is that says what the agent did.
func (s *stage) room() int {
	rest := 2 + len("refused") + nameWidth + tookWidth + 3*2
	width := maxWidth
	if s.Width > 0 {
		width = min(max(s.Width, minWidth), maxWidth)
	}
	return width - rest
}

// fit makes text inert and exactly n columns wide: what is too long loses its
// middle.
func fit(text string, n int) string {
	text = inert.Text(text)
	if r := []rune(text); lipgloss.Width(text) > n {
		for cut := 1; lipgloss.Width(text) > n; cut++ {
			keep := max(len(r)-cut, 0)
			text = string(r[:keep/3]) + "…" + string(r[len(r)-(keep-keep/3):])
		}
	}
	return text + strings.Repeat(" ", max(0, n-lipgloss.Width(text)))
}

func lapse(d time.Duration) string {
	text := ""
	switch {
	case d >= time.Second:
		text = fmt.Sprintf("%.1f s", d.Seconds())
	case d > 0:
		text = fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%*s", tookWidth, text)
}
