package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"io"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"ambit/internal/inert"
)

// terminal returns the file behind v if it is a terminal.
func terminal(v any) (*os.File, bool) {
	f, ok := v.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

func colored(v any) bool {
	_, ok := terminal(v)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func (a *app) color() bool    { return colored(a.stdout) }
func (a *app) colorErr() bool { return colored(a.stderr) }

// width is the terminal's, in columns; 0 if standard output is none.
func (a *app) width() int {
	f, ok := terminal(a.stdout)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// print writes lines for people. Whatever an agent chose is made inert here.
func (a *app) print(format string, args ...any) error {
	_, err := fmt.Fprintln(a.stdout, inert.Lines(fmt.Sprintf(format, args...)))
	return err
}

// printJSON writes one document. HTML is escaped, and so is whatever is not
// graphic: JSON output ends on terminals too.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = fmt.Fprintln(a.stdout, escapeJSON(string(b)))
	return err
}

// escapeJSON writes characters that are not graphic as \uXXXX, which JSON reads
// back as the same text. encoding/json has escaped the ASCII ones.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if e := inert.Text(string(r)); e == string(r) {
			b.WriteRune(r)
		} else if r <= 0xffff {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return b.String()
}

// table is aligned columns of text that may come from an agent.
type table struct {
	head []string
	rows []row
}

type row struct {
	cells []string
	color color.Color // nil is none; only shown on a terminal
	note  string      // a line of its own below the row
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, row{cells: cells}) }

// write prints the table. A column is as wide as its widest cell.
func (t *table) write(w io.Writer, color bool) error {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = lipgloss.Width(h)
	}
	for r := range t.rows {
		for i, c := range t.rows[r].cells {
			c = inert.Text(c)
			t.rows[r].cells[i] = c
			widths[i] = max(widths[i], lipgloss.Width(c))
		}
	}
	head := row{cells: t.head}
	if err := head.write(w, widths, color, lipgloss.NewStyle().Bold(true)); err != nil {
		return err
	}
	for _, r := range t.rows {
		style := lipgloss.NewStyle()
		if r.color != nil {
			style = style.Foreground(r.color)
		}
		if err := r.write(w, widths, color, style); err != nil {
			return err
		}
	}
	return nil
}

func (r *row) write(w io.Writer, widths []int, color bool, style lipgloss.Style) error {
	var b strings.Builder
	for i, c := range r.cells {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(c)
		if i < len(r.cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(c)))
		}
	}
	lines := []string{strings.TrimRight(b.String(), " ")}
	if r.note != "" {
		lines = append(lines, "    "+inert.Text(r.note))
	}
	for _, line := range lines {
		if color {
			line = style.Render(line)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// shorten cuts s to n columns; n of 0 or less does not.
func shorten(s string, n int) string {
	s = inert.Text(s)
	if n <= 0 || lipgloss.Width(s) <= n {
		return s
	}
	r := []rune(s)
	for len(r) > 0 && lipgloss.Width(string(r)) > n-1 {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func size(n int64) string {
	const unit = 1024
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	case n < unit*unit*unit:
		return fmt.Sprintf("%.1f MiB", float64(n)/(unit*unit))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(unit*unit*unit))
}

func took(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// progress shows on a terminal what is waited for, once that takes more than a
// second. The caller calls done before it prints anything else.
func (a *app) progress(ctx context.Context, text string) (done func()) {
	if _, ok := terminal(a.stderr); !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		const frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
		began, wait := time.Now(), time.NewTimer(time.Second)
		defer wait.Stop()
		for shown := false; ; {
			select {
			case <-ctx.Done():
				if shown {
					_, _ = fmt.Fprint(a.stderr, "\r\x1b[K")
				}
				return
			case <-wait.C:
				f := []rune(frames)
				_, _ = fmt.Fprintf(a.stderr, "\r\x1b[K%c %s (%s)", f[int(time.Since(began)/(100*time.Millisecond))%len(f)], text, time.Since(began).Round(time.Second))
				shown = true
				wait.Reset(100 * time.Millisecond)
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
