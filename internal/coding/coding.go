// Package coding undoes the compression of HTTP bodies (RFC 9110, section
// 8.4.1), as far as the standard library can: gzip and deflate.
//
// Trust: bodies are hostile. A small one can become a very large one: whoever
// reads it bounds how much.
package coding

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
)

// Unknown is a compression that cannot be undone here, or several.
const Unknown = "?"

// Of returns the one compression of a message with the fields h: "gzip",
// "deflate", "" if there is none, or [Unknown].
func Of(h http.Header) string {
	found := ""
	for _, v := range h["Content-Encoding"] {
		for c := range strings.SplitSeq(v, ",") {
			switch c = strings.ToLower(strings.TrimSpace(c)); c {
			case "", "identity", "aws-chunked": // the last is a framing of chunks
			case "gzip", "x-gzip", "deflate":
				if found != "" {
					return Unknown
				}
				found = strings.TrimPrefix(c, "x-")
			default:
				return Unknown
			}
		}
	}
	return found
}

// NewReader returns what a body in the compression "gzip" or "deflate" is. It
// reads the first bytes.
func NewReader(r io.Reader, coding string) (io.Reader, error) {
	if coding == "gzip" {
		return gzip.NewReader(r)
	}
	// RFC 9110 section 8.4.1.2 means zlib; some send bare deflate.
	head := make([]byte, 2)
	n, err := io.ReadFull(r, head)
	if err != nil {
		return nil, err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if head[0]&0xf == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(r)
	}
	return flate.NewReader(r), nil
}
