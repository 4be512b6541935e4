package connector

import (
	"bytes"
	_ "embed"
)

//go:embed schema/connector.v1.json
var schemaV1 []byte

// Schema returns the JSON Schema (draft 2020-12) of a connector file, for
// editors. It accepts whatever [Catalog.With] accepts.
func Schema() []byte { return bytes.Clone(schemaV1) }
