package ambit_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"ambit"
)

// The page of the catalogue is the catalogue.
func TestEventsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, k := range ambit.Catalogue() {
		star := ""
		if k.Later {
			star = " *"
		}
		fmt.Fprintf(&want, "| `%s`%s | %s | %s | %s |\n", k.Kind, star, k.Log, k.Text, strings.ReplaceAll(k.Fields, " ", ", "))
	}
	if !strings.HasSuffix(string(text), "|---|---|---|---|\n"+want.String()) {
		t.Errorf("docs/events.md does not end with the catalogue:\n%s", want.String())
	}
	for f := range reflect.TypeFor[ambit.Event]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "-" && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/events.md does not explain the field %s", name)
		}
	}
}

// Each kind is in the catalogue once, with fields that an event has.
func TestCatalogue(t *testing.T) {
	fields := map[string]bool{}
	for f := range reflect.TypeFor[ambit.Event]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = true
	}
	seen := map[ambit.Kind]bool{}
	for _, k := range ambit.Catalogue() {
		if seen[k.Kind] {
			t.Errorf("%s is there twice", k.Kind)
		}
		seen[k.Kind] = true
		for f := range strings.FieldsSeq(k.Fields) {
			if !fields[f] {
				t.Errorf("%s has a field %q, which no event has", k.Kind, f)
			}
		}
		if k.Text == "" || k.Log != "agent" && k.Log != "control" && k.Log != "both" {
			t.Errorf("%s is not described: %+v", k.Kind, k)
		}
	}
}
