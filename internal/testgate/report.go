package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json` and, for the
// build's own, `go help buildjson`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of the build's own events
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// maxOutput is how many of the last lines of one failed test or build are
// printed.
const maxOutput = 200

// results is what was read so far.
type results struct {
	out                     io.Writer
	running                 map[string]*unit // packages that began and have not ended
	builds                  map[string]*lines
	passed, failed, skipped int
	skips                   []string
	unread                  int // lines that are not JSON
}

// unit is one package under test.
type unit struct {
	own                     lines             // output outside of any test
	tests                   map[string]*lines // tests that run, with their output
	order                   []string          // names of the failed tests
	kept                    map[string]*lines // their output
	passed, failed, skipped int
}

// lines keeps the last maxOutput lines that were written to it.
type lines struct {
	text    []string
	dropped int
}

func (l *lines) add(s string) {
	if len(l.text) > 0 && !strings.HasSuffix(l.text[len(l.text)-1], "\n") {
		l.text[len(l.text)-1] += s
		return
	}
	if len(l.text) == maxOutput {
		l.text = slices.Delete(l.text, 0, 1)
		l.dropped++
	}
	l.text = append(l.text, s)
}

func (l *lines) print(w io.Writer) {
	if l.dropped > 0 {
		fmt.Fprintf(w, "    (%d earlier lines left out)\n", l.dropped)
	}
	for _, s := range l.text {
		fmt.Fprintf(w, "    %s\n", strings.TrimRight(s, "\r\n"))
	}
}

// run reads events from in until it ends, writes the report to out and returns
// the exit code.
func run(in io.Reader, out io.Writer, strict bool) int {
	r := &results{out: out, running: make(map[string]*unit), builds: make(map[string]*lines)}
	reader := bufio.NewReader(in)
	var broken error
	for {
		line, err := reader.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			r.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			broken = err
			break
		}
	}
	return r.end(broken, strict)
}

func (r *results) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprintln(r.out, line)
		r.unread++
		return
	}
	switch {
	case e.Action == "build-output":
		if r.builds[e.ImportPath] == nil {
			r.builds[e.ImportPath] = new(lines)
		}
		r.builds[e.ImportPath].add(e.Output)
	case e.Package == "":
		// build-fail: the package that needed the build says so itself
	case e.Test != "":
		r.test(r.unit(e.Package), e)
	case e.Action == "output":
		r.unit(e.Package).own.add(e.Output)
	case e.Action == "start":
		r.unit(e.Package)
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		r.packageEnd(e)
	}
}

func (r *results) unit(name string) *unit {
	u := r.running[name]
	if u == nil {
		u = &unit{tests: make(map[string]*lines), kept: make(map[string]*lines)}
		r.running[name] = u
	}
	return u
}

func (r *results) test(u *unit, e event) {
	text := u.tests[e.Test]
	if text == nil {
		text = new(lines)
		u.tests[e.Test] = text
	}
	switch e.Action {
	case "output":
		text.add(e.Output)
		return
	case "pass":
		u.passed++
	case "skip":
		u.skipped++
		r.skips = append(r.skips, e.Package+" "+e.Test+": "+reason(text))
	case "fail":
		u.keep(e.Test)
	default:
		return
	}
	delete(u.tests, e.Test)
}

// keep counts a test as failed and sets its output aside.
func (u *unit) keep(test string) {
	u.failed++
	u.order = append(u.order, test)
	u.kept[test] = u.tests[test]
}

// reason is what a skipped test said last.
func reason(l *lines) string {
	for _, s := range slices.Backward(l.text) {
		s = strings.TrimSpace(s)
		if s != "" && !strings.HasPrefix(s, "---") && !strings.HasPrefix(s, "===") {
			return s
		}
	}
	return "no reason given"
}

func (r *results) packageEnd(e event) {
	u := r.unit(e.Package)
	delete(r.running, e.Package)
	if e.Action == "skip" { // no test files
		return
	}
	if e.Action == "fail" {
		for _, test := range sortedKeys(u.tests) { // the process died in them
			u.keep(test)
		}
		if u.failed == 0 {
			u.failed = 1 // the package itself: a build, TestMain, a time limit
		}
	}
	verdict := "ok  "
	if u.failed > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(r.out, "%s  %-32s %7.1fs  %s\n", verdict, e.Package, e.Elapsed, counts(u.passed, u.failed, u.skipped))
	if u.failed > 0 {
		r.explain(u, e.FailedBuild)
	}
	r.passed += u.passed
	r.failed += u.failed
	r.skipped += u.skipped
}

// explain prints all that is known about why u failed.
func (r *results) explain(u *unit, build string) {
	if l := r.builds[build]; l != nil {
		l.print(r.out)
	}
	for _, test := range u.order {
		fmt.Fprintf(r.out, "  %s\n", test)
		u.kept[test].print(r.out)
	}
	u.own.print(r.out)
}

func (r *results) end(broken error, strict bool) int {
	code := 0
	for _, name := range sortedKeys(r.running) {
		u := r.running[name]
		fmt.Fprintf(r.out, "FAIL  %s began and never ended\n", name)
		for _, test := range sortedKeys(u.tests) {
			u.keep(test)
		}
		r.explain(u, "")
		r.passed += u.passed
		r.failed += max(u.failed, 1)
		r.skipped += u.skipped
	}
	if broken != nil {
		fmt.Fprintf(r.out, "testgate: reading the test output: %v\n", broken)
		code = 1
	}
	if r.unread > 0 {
		fmt.Fprintf(r.out, "testgate: %d lines above are not from go test -json, so something may not have been tested\n", r.unread)
		code = 1
	}
	if len(r.skips) > 0 {
		fmt.Fprintln(r.out, "\nskipped:")
		for _, s := range r.skips {
			fmt.Fprintf(r.out, "  %s\n", s)
		}
	}
	if strict && r.skipped > 0 {
		fmt.Fprintln(r.out, "testgate: AMBIT_TEST_STRICT=1, so a skipped test is a failure: give the machine what the test needs (scripts/setup-tests)")
		code = 1
	}
	if strict && r.passed+r.failed+r.skipped == 0 {
		fmt.Fprintln(r.out, "testgate: AMBIT_TEST_STRICT=1, and no test ran")
		code = 1
	}
	if r.failed > 0 {
		code = 1
	}
	fmt.Fprintf(r.out, "\n%s\n", counts(r.passed, r.failed, r.skipped))
	return code
}

func counts(passed, failed, skipped int) string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", passed, failed, skipped)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
