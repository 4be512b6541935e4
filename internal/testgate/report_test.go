package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The events are as go 1.26 writes them, without the times.
const (
	begin = `{"Action":"start","Package":"ambit/audit"}
`
	passing = `{"Action":"run","Package":"ambit/audit","Test":"TestAppend"}
{"Action":"output","Package":"ambit/audit","Test":"TestAppend","Output":"=== RUN   TestAppend\n"}
{"Action":"pass","Package":"ambit/audit","Test":"TestAppend","Elapsed":0}
`
	skipping = `{"Action":"run","Package":"ambit/audit","Test":"TestFull"}
{"Action":"output","Package":"ambit/audit","Test":"TestFull","Output":"=== RUN   TestFull\n"}
{"Action":"output","Package":"ambit/audit","Test":"TestFull","Output":"    full_test.go:7: needs root to mount a small disk\n"}
{"Action":"output","Package":"ambit/audit","Test":"TestFull","Output":"--- SKIP: TestFull (0.00s)\n"}
{"Action":"skip","Package":"ambit/audit","Test":"TestFull","Elapsed":0}
`
	failing = `{"Action":"run","Package":"ambit/audit","Test":"TestEdit"}
{"Action":"output","Package":"ambit/audit","Test":"TestEdit","Output":"    edit_test.go:9: the edit "}
{"Action":"output","Package":"ambit/audit","Test":"TestEdit","Output":"was not found\n"}
{"Action":"fail","Package":"ambit/audit","Test":"TestEdit","Elapsed":0.1}
`
	dying = `{"Action":"run","Package":"ambit/audit","Test":"TestDie"}
{"Action":"output","Package":"ambit/audit","Test":"TestDie","Output":"panic: out of cheese\n"}
{"Action":"output","Package":"ambit/audit","Output":"FAIL\tambit/audit\t0.2s\n"}
`
	endPass = `{"Action":"pass","Package":"ambit/audit","Elapsed":1.25}
`
	endFail = `{"Action":"fail","Package":"ambit/audit","Elapsed":1.25}
`
	noBuild = `{"ImportPath":"ambit/audit","Action":"build-output","Output":"# ambit/audit\n"}
{"ImportPath":"ambit/audit","Action":"build-output","Output":"audit/log.go:3:1: syntax error\n"}
{"ImportPath":"ambit/audit","Action":"build-fail"}
{"Action":"start","Package":"ambit/audit"}
{"Action":"output","Package":"ambit/audit","Output":"FAIL\tambit/audit [build failed]\n"}
{"Action":"fail","Package":"ambit/audit","Elapsed":0,"FailedBuild":"ambit/audit"}
`
	noTests = `{"Action":"start","Package":"ambit/cmd/ambit"}
{"Action":"output","Package":"ambit/cmd/ambit","Output":"?   \tambit/cmd/ambit\t[no test files]\n"}
{"Action":"skip","Package":"ambit/cmd/ambit","Elapsed":0}
`
)

func TestReport(t *testing.T) {
	const audit = "  ambit/audit                          1.2s  "
	tests := map[string]struct {
		in     string
		strict bool
		code   int
		out    string
	}{
		"all passed":                {begin + passing + endPass + noTests, true, 0, "ok  " + audit + "1 passed, 0 failed, 0 skipped\n\n1 passed, 0 failed, 0 skipped\n"},
		"a skip is named":           {begin + passing + skipping + endPass, false, 0, "ok  " + audit + "1 passed, 0 failed, 1 skipped\n\nskipped:\n  ambit/audit TestFull: full_test.go:7: needs root to mount a small disk\n\n1 passed, 0 failed, 1 skipped\n"},
		"a skip fails in CI":        {begin + passing + skipping + endPass, true, 1, "ok  " + audit + "1 passed, 0 failed, 1 skipped\n\nskipped:\n  ambit/audit TestFull: full_test.go:7: needs root to mount a small disk\ntestgate: AMBIT_TEST_STRICT=1, so a skipped test is a failure: give the machine what the test needs (scripts/setup-tests)\n\n1 passed, 0 failed, 1 skipped\n"},
		"a failure has its output":  {begin + passing + failing + endFail, false, 1, "FAIL" + audit + "1 passed, 1 failed, 0 skipped\n  TestEdit\n    edit_test.go:9: the edit was not found\n\n1 passed, 1 failed, 0 skipped\n"},
		"a dead process":            {begin + passing + dying + endFail, false, 1, "FAIL" + audit + "1 passed, 1 failed, 0 skipped\n  TestDie\n    panic: out of cheese\n    FAIL\tambit/audit\t0.2s\n\n1 passed, 1 failed, 0 skipped\n"},
		"a package fails by itself": {begin + passing + endFail, false, 1, "FAIL" + audit + "1 passed, 1 failed, 0 skipped\n\n1 passed, 1 failed, 0 skipped\n"},
		"a build fails":             {noBuild, false, 1, "FAIL  ambit/audit                          0.0s  0 passed, 1 failed, 0 skipped\n    # ambit/audit\n    audit/log.go:3:1: syntax error\n    FAIL\tambit/audit [build failed]\n\n0 passed, 1 failed, 0 skipped\n"},
		"cut off":                   {begin + passing + dying, false, 1, "FAIL  ambit/audit began and never ended\n  TestDie\n    panic: out of cheese\n    FAIL\tambit/audit\t0.2s\n\n1 passed, 1 failed, 0 skipped\n"},
		"not JSON":                  {begin + "go: no such tool\n" + passing + endPass, false, 1, "go: no such tool\nok  " + audit + "1 passed, 0 failed, 0 skipped\ntestgate: 1 lines above are not from go test -json, so something may not have been tested\n\n1 passed, 0 failed, 0 skipped\n"},
		"nothing ran":               {noTests, false, 0, "\n0 passed, 0 failed, 0 skipped\n"},
		"nothing ran in CI":         {noTests, true, 1, "testgate: AMBIT_TEST_STRICT=1, and no test ran\n\n0 passed, 0 failed, 0 skipped\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if code := run(strings.NewReader(test.in), &out, test.strict); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			// fmt pads the package's name; what is compared is the words
			if d := cmp.Diff(strings.Fields(test.out), strings.Fields(out.String())); d != "" {
				t.Errorf("report (-want +got):\n%s", d)
			}
			last := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := last[len(last)-1]; !strings.HasSuffix(got, " skipped") {
				t.Errorf("last line %q, want the counts", got)
			}
		})
	}
}

func TestLongOutputKeepsItsEnd(t *testing.T) {
	long := strings.Repeat(`{"Action":"output","Package":"ambit/audit","Test":"TestEdit","Output":"noise\n"}`+"\n", 2*maxOutput)
	var out strings.Builder
	run(strings.NewReader(begin+long+failing+endFail), &out, false)
	if n := strings.Count(out.String(), "noise"); n != maxOutput-1 {
		t.Errorf("%d lines of noise are left, want %d", n, maxOutput-1)
	}
	for _, want := range []string{"(201 earlier lines left out)", "was not found"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
