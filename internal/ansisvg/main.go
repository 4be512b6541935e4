// Command ansisvg draws what a program wrote to a terminal as a picture: lines
// of text with the terminal's styles (ECMA-48, SGR) on standard input, SVG on
// standard output. docs/demo.md says how the picture of the demonstration is
// made with it.
//
// Trust: it is run by a person on output of our own. What it does not know it
// leaves out, and text is escaped, so that no input becomes markup.
package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Measures in pixels.
const (
	cell   = 8.4
	height = 19
	margin = 14
)

func main() {
	if err := draw(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ansisvg:", err)
		os.Exit(1)
	}
}

// run is text of one style.
type run struct {
	column int
	text   string
	class  string
}

func draw(in io.Reader, out io.Writer) error {
	var lines [][]run
	columns := 0
	style := map[string]bool{}
	for scan := bufio.NewScanner(in); ; {
		if !scan.Scan() {
			if err := scan.Err(); err != nil {
				return fmt.Errorf("reading the text: %w", err)
			}
			break
		}
		runs, width := split(strings.TrimRight(scan.Text(), "\r"), style)
		lines = append(lines, runs)
		columns = max(columns, width)
	}
	w := bufio.NewWriter(out)
	width, tall := float64(columns)*cell+2*margin, len(lines)*height+2*margin
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">
<style>text{fill:#d8dee9;white-space:pre}.bold{font-weight:bold;fill:#fff}.faint{fill:#8a93a3}.green{fill:#8fce7e}.yellow{fill:#f0c36a}.cyan{fill:#7ecbd9}.red{fill:#ff6b6b}</style>
<rect width="100%%" height="100%%" rx="8" fill="#1b1f27"/>
`, width, tall)
	for i, runs := range lines {
		for _, r := range runs {
			trimmed := strings.TrimLeft(r.text, " ")
			column := r.column + len(r.text) - len(trimmed)
			if trimmed = strings.TrimRight(trimmed, " "); trimmed == "" {
				continue
			}
			// textLength keeps the columns whatever font there is.
			fmt.Fprintf(w, `<text x="%.1f" y="%d" textLength="%.1f" class="%s">%s</text>`+"\n",
				margin+float64(column)*cell, margin+i*height+14, float64(utf8.RuneCountInString(trimmed))*cell, r.class, html.EscapeString(trimmed))
		}
	}
	fmt.Fprintln(w, "</svg>")
	return w.Flush()
}

// split cuts a line where its style changes. The style goes on to the next line.
func split(line string, style map[string]bool) (runs []run, width int) {
	for line != "" {
		at := escape().FindStringSubmatchIndex(line)
		text := line
		if at != nil {
			text = line[:at[0]]
		}
		if text != "" {
			runs = append(runs, run{width, text, class(style)})
			width += utf8.RuneCountInString(text)
		}
		if at == nil {
			break
		}
		if line[at[1]-1] == 'm' {
			restyle(style, line[at[2]:at[3]])
		}
		line = line[at[1]:]
	}
	return runs, width
}

// escape matches a control sequence, with its parameters.
func escape() *regexp.Regexp { return regexp.MustCompile("\x1b\\[([0-9;?]*)[ -/]*[@-~]") }

func restyle(style map[string]bool, parameters string) {
	names := map[string]string{"1": "bold", "2": "faint", "31": "red", "32": "green", "33": "yellow", "36": "cyan"}
	for p := range strings.SplitSeq(parameters, ";") {
		switch name, known := names[p]; {
		case p == "" || p == "0":
			clear(style)
		case p == "22":
			delete(style, "bold")
			delete(style, "faint")
		case p == "39":
			for _, c := range []string{"red", "green", "yellow", "cyan"} {
				delete(style, c)
			}
		case known:
			style[name] = true
		}
	}
}

func class(style map[string]bool) string {
	var names []string
	for _, n := range []string{"bold", "faint", "red", "green", "yellow", "cyan"} {
		if style[n] {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}
