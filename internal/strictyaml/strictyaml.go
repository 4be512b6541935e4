// Package strictyaml reads YAML without surprises: one document, no aliases,
// anchors, merge keys or tags, no key twice, nothing empty, and no key that the
// reader does not know. A value is never converted: a number is not text and
// text is not a number. Every problem of a file is reported at once, each with
// file, line, column and what would be right.
//
// [Decode] checks the bytes and parses; the methods of [Decoder] read the
// nodes, and [Decoder.Err] returns what was wrong.
//
// Trust: the bytes are hostile. Size, nesting, number of keys and every echoed
// character are bounded or escaped, and the YAML parser, which is not ours, sees
// no construct that the language does not have; a panic of it is an error.
package strictyaml
