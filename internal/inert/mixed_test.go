package inert

import (
	"slices"
	"testing"
)

// Names that look like another are found, ordinary words of any language are not.
func TestMixed(t *testing.T) {
	for s, want := range map[string][]string{
		"kim@pаypal.com or pay":          {"kim@pаypal.com"}, // Cyrillic а
		"аррӏе.com":                      {"аррӏе.com"},      // all Cyrillic but for com
		"DE89 3704 οrder":                {"οrder"},          // Greek ο
		"Größe, naïve, Ðjøgli, 東京 tokyo": nil,
		"привет, мир":                    nil,
		"":                               nil,
	} {
		if got := Mixed(s); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
	if got := Spelled("pаypal\u202e"); got != `p\u0430ypal\u202e` {
		t.Error(got)
	}
}
