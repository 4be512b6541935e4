package manifest

import (
	"bytes"
	_ "embed"
	"regexp"
	"sync"
)

//go:embed schema/manifest.v1.json
var schemaV1 []byte

// Schema returns the JSON Schema (draft 2020-12) of a manifest, for editors. It
// accepts whatever [Parse] accepts, and refuses what a schema can refuse; its
// $comment says what only Parse sees.
func Schema() []byte { return bytes.Clone(schemaV1) }

// pattern compiles a regular expression when it is first used: every start of
// the program would pay for all of them otherwise.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
