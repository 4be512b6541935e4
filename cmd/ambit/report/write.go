package report

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"strings"

	"charm.land/lipgloss/v2"

	"ambit/audit/sink/format"
)

//go:embed report.html.tmpl
var page string

// HTML writes the report as one page that needs nothing else.
func (r Report) HTML(w io.Writer) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return fmt.Errorf("reading the page's template: %w", err)
	}
	return t.Execute(w, r)
}

// CSV writes the entries as a table, with one line for each.
func (r Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"time", "agent", "group", "what", "target", "why", "rule", "asked", "result", "log and position"})
	for _, e := range r.Entries {
		_ = c.Write([]string{format.Cell(e.Time), format.Cell(e.Agent), e.Group, format.Cell(e.What), format.Cell(e.Target), format.Cell(e.Why), format.Cell(e.Rule), format.Cell(e.Asked), format.Cell(e.Result), format.Cell(e.Where)})
	}
	c.Flush()
	return c.Error()
}

// Text writes the report for a terminal. With color the groups have one.
func (r Report) Text(w io.Writer, color bool) error {
	bold, faint := lipgloss.NewStyle(), lipgloss.NewStyle()
	if color {
		bold, faint = bold.Bold(true), faint.Faint(true)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", bold.Render("What was done with the data of "+r.Who))
	if r.Span != "" {
		fmt.Fprintf(&b, "%s\n", faint.Render(r.Span))
	}
	b.WriteByte('\n')
	for _, s := range r.Summary {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	for _, e := range r.Entries {
		style := lipgloss.NewStyle()
		if color {
			style = groupStyle(e.Group)
		}
		fmt.Fprintf(&b, "\n%s  %s %s\n", e.Time, e.Agent, style.Render(e.What))
		for _, line := range []struct{ name, text string }{
			{"call", e.Target}, {"why", e.Why}, {"rule", e.Rule}, {"asked", e.Asked}, {"result", e.Result},
		} {
			text := line.text
			if line.name == "why" && text == "" {
				text = "(the agent did not say)"
			}
			if text != "" {
				fmt.Fprintf(&b, "    %s %s\n", faint.Render(fmt.Sprintf("%-7s", line.name)), text)
			}
		}
		fmt.Fprintf(&b, "    %s ambit audit prove %s\n", faint.Render("proof  "), e.Where)
	}
	if len(r.Limits) > 0 {
		fmt.Fprintf(&b, "\n%s\n", bold.Render("What this answer may not contain"))
		for _, s := range r.Limits {
			fmt.Fprintf(&b, "  %s\n", s)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func groupStyle(group string) lipgloss.Style {
	s := lipgloss.NewStyle()
	switch group {
	case groupRefused:
		return s.Foreground(lipgloss.Red)
	case groupDeleted, groupPaid:
		return s.Foreground(lipgloss.Magenta)
	case groupChanged, groupSent:
		return s.Foreground(lipgloss.Yellow)
	}
	return s.Foreground(lipgloss.Green)
}
