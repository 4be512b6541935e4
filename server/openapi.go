package server

import (
	"path"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"ambit/api"
	"ambit/audit"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// schemaName names a type in the document. Two packages may have types of the
// same name; those of the wire itself go without their package.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	pkg := path.Base(t.PkgPath())
	if t.Name() == "" || pkg == "api" || pkg == "server" || pkg == "huma" || pkg == "." {
		return name
	}
	return strings.ToUpper(pkg[:1]) + pkg[1:] + name
}

// ownProblemSchema documents errors the way they are sent: the HTTP library
// describes its own type.
func ownProblemSchema(doc *huma.OpenAPI) {
	schema := doc.Components.Schemas.Schema(typeOf[api.Problem](), true, "")
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			for status := range op.Responses {
				if c := op.Responses[status].Content[api.ProblemType]; c != nil {
					delete(op.Responses, status)
				}
			}
			op.Responses["default"] = &huma.Response{
				Description: "What happened, why, and what to do",
				Content:     map[string]*huma.MediaType{api.ProblemType: {Schema: schema}},
			}
		}
	}
	delete(doc.Components.Schemas.Map(), "ErrorModel")
	delete(doc.Components.Schemas.Map(), "ErrorDetail")
}

func egressResponses(op *huma.Operation, r huma.Registry) {
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		"application/json":     {Schema: r.Schema(typeOf[[]audit.Call](), true, "")},
		"application/x-ndjson": {Schema: r.Schema(typeOf[audit.Call](), true, "")},
	}}}
	op.Description = "With follow=1 one JSON document a line, for as long as the connection lasts: a call when it was decided, and again when it has ended."
}

func execResponses(op *huma.Operation, _ huma.Registry) {
	op.Description = "The connection is upgraded to " + api.ExecProtocol + ": frames both ways, each 1 byte type, 4 bytes big-endian length of at most 65536, payload. " +
		"Types: 0 standard input, 1 standard output, 2 standard error, 3 resize (rows and columns, uint16), 4 exit code (int32, last), 5 end of standard input, 6 problem (JSON, last), 7 what to run (JSON, first). " +
		"The program ends when the connection does."
	op.Responses = map[string]*huma.Response{
		"101": {Description: "Switching Protocols"},
		"426": {Description: "Upgrade Required", Content: map[string]*huma.MediaType{api.ProblemType: {}}},
	}
}
