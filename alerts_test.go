package ambit_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ambit"
)

// The page of the catalogue of alerts is the catalogue.
func TestAlertsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	seen := map[string]bool{}
	for _, a := range ambit.AlertCatalogue() {
		from := "-"
		switch {
		case a.Refusal:
			from = "refusal"
		case a.Count > 0:
			from = fmt.Sprintf("%d in %v", a.Count, strings.TrimSuffix(a.Within.String(), "0s"))
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s | %s |\n", a.Code, a.Log, a.Severity, from, a.Text)
		if seen[a.Code] || a.Text == "" || a.Count == 1 || (a.Count == 0) != (a.Within == 0) || a.Within > 24*time.Hour ||
			a.Log != "agent" && a.Log != "control" && a.Log != "both" {
			t.Errorf("%+v", a)
		}
		seen[a.Code] = true
	}
	if !strings.Contains(string(text), "|---|---|---|---|---|\n"+want.String()+"\n") {
		t.Errorf("docs/alerts.md does not have the catalogue:\n%s", want.String())
	}
}

// Whatever raises an alert by itself does so under a code of the catalogue.
func TestRaisedCodesAreInTheCatalogue(t *testing.T) {
	known := map[string]bool{}
	for _, a := range ambit.AlertCatalogue() {
		known[a.Code] = true
	}
	raise := regexp.MustCompile(`\.Raise\([^"\n]*"([a-z-]+)[ "]`)
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range raise.FindAllSubmatch(text, -1) {
			if found++; !known[string(m[1])] {
				t.Errorf("%s raises %s, which is not in ambit.AlertCatalogue", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 5 {
		t.Errorf("%d found, %v", found, err)
	}
}

func TestRefusalSeverity(t *testing.T) {
	for code, want := range map[string]ambit.Severity{
		"metadata-address": ambit.High, "reference-misplaced": ambit.High, "intent-required": ambit.Low, "a-code-of-tomorrow": ambit.Medium, "erased": ambit.Medium, "": ambit.Medium,
	} {
		if got := ambit.RefusalSeverity(code); got != want {
			t.Errorf("%q: %v, want %v", code, got, want)
		}
	}
}
