//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// row is one line of the table.
type row struct {
	Figure    string   `json:"figure"`
	Unit      string   `json:"unit,omitempty"` // of Ours and Reference
	Ours      float64  `json:"ours"`
	Reference *float64 `json:"reference,omitempty"` // nil: there is none
	Ratio     float64  `json:"ratio,omitempty"`     // ours to reference; 0: there is none
	Target    string   `json:"target,omitempty"`
	Verdict   string   `json:"verdict,omitempty"` // "met", "missed", "not measured"; "" without a target
	Note      string   `json:"note,omitempty"`
}

// compare makes a row of two values.
func compare(figure, unit string, ours, reference float64) row {
	r := row{Figure: figure, Unit: unit, Ours: ours, Reference: &reference}
	if reference != 0 {
		r.Ratio = ours / reference
	}
	return r
}

func (r row) judged(target string, met bool) row {
	r.Target, r.Verdict = target, "missed"
	if met {
		r.Verdict = "met"
	}
	return r
}

func (r row) ratioAtMost(v float64) row {
	return r.judged("ratio ≤ "+number(v), r.Ratio > 0 && r.Ratio <= v)
}

func (r row) ratioAtLeast(v float64) row {
	return r.judged("ratio ≥ "+number(v), r.Ratio >= v)
}

func (r row) atMost(v float64) row {
	return r.judged("≤ "+number(v)+" "+r.Unit, r.Ours <= v)
}

func (r row) moreByAtMost(v float64) row {
	return r.judged("≤ "+number(v)+" "+r.Unit+" more", r.Reference != nil && r.Ours-*r.Reference <= v)
}

func (r row) noted(format string, args ...any) row {
	r.Note = fmt.Sprintf(format, args...)
	return r
}

// number writes three digits, or all before the point.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func (r row) cells() []string {
	value := func(v float64) string {
		if v == 0 && r.Unit == "" {
			return ""
		}
		return number(v) + " " + r.Unit
	}
	c := []string{r.Figure, value(r.Ours), "", "", r.Target, r.Verdict, r.Note}
	if r.Reference != nil {
		c[2] = value(*r.Reference)
	}
	if r.Ratio != 0 {
		c[3] = strconv.FormatFloat(r.Ratio, 'f', 2, 64)
	}
	return c
}

var columns = []string{"figure", "ours", "reference", "ratio", "target", "verdict", "note"}

// report is a whole run.
type report struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of the binary
	Machine string    `json:"machine"`
	Quick   bool      `json:"quick"`
	Warning string    `json:"warning,omitempty"`
	Seconds float64   `json:"seconds"`
	Rows    []row     `json:"rows"`
}

func newReport(l *lab) *report {
	r := &report{Time: time.Now().UTC().Truncate(time.Second), Version: l.version, Machine: machine(), Quick: l.quick}
	var warnings []string
	if l.quick {
		warnings = append(warnings, "a quick run: too short to rely on")
	}
	if load := loadAverage(); load > float64(runtime.NumCPU())/4 {
		warnings = append(warnings, fmt.Sprintf("the machine is busy (load average %.1f): the figures are of no worth", load))
	}
	r.Warning = strings.Join(warnings, "; ")
	return r
}

func (r *report) head() string {
	s := fmt.Sprintf("ambit %s, %s, %s", r.Version, r.Time.Format("2006-01-02 15:04 MST"), r.Machine)
	if r.Warning != "" {
		s += "\n" + r.Warning
	}
	return s
}

func (r *report) text(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.head())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(columns, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	_ = t.Flush()
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", strings.ReplaceAll(r.head(), "\n", ". "))
	fmt.Fprintf(w, "| %s |\n|---|--:|--:|--:|---|---|---|\n", strings.Join(columns, " | "))
	for _, row := range r.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row.cells(), " | "))
	}
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// machine says what was measured on.
func machine() string {
	s := fmt.Sprintf("%d cores", runtime.NumCPU())
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				s += " " + strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s += ", Linux " + unix.ByteSliceToString(u.Release[:])
	}
	return s + fmt.Sprintf(", %d GiB", meminfo("MemTotal")>>30)
}

// loadAverage is that of the last minute; 0 if it cannot be read.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return v
}

// meminfo is a value of /proc/meminfo, in bytes; 0 if it cannot be read.
func meminfo(name string) int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name+":" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// median sorts v; it has at least one value.
func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

func mean(v ...float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
