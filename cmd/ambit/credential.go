package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"ambit/api"
)

// maxCredential bounds what is read of a credential, in bytes: in base64 it
// still fits into api.MaxConnect.
const maxCredential = 320 << 10

// credential comes by what the way needs, from files, standard input or the
// terminal. The caller wipes it. No error quotes any of it.
func (a *app) credential(ctx context.Context, way api.Way, o connecting) (values map[string][]byte, err error) {
	values = make(map[string][]byte)
	defer func() {
		if err != nil {
			wipe(values)
		}
	}()
	for _, f := range o.fields {
		name, file, ok := strings.Cut(f, "=")
		if !ok || file == "" {
			return values, usageError{errors.New("--field is written NAME=FILE, with the file that has the value")}
		}
		if !slices.ContainsFunc(way.Fields, func(f api.Field) bool { return f.Name == name }) {
			return values, usageError{fmt.Errorf("--field names a field that the way %s does not have; its fields are: %s", way.Name, fieldNames(way.Fields))}
		}
		if values[name], err = a.readCredential(file); err != nil {
			return values, err
		}
	}
	missing := slices.DeleteFunc(slices.Clone(way.Fields), func(f api.Field) bool { return values[f.Name] != nil })
	needed := slices.DeleteFunc(slices.Clone(missing), func(f api.Field) bool { return f.Optional })
	_, asks := terminal(a.stdin)
	switch {
	case len(missing) == 0:
		if o.from != "" {
			return values, usageError{errors.New("--from has nothing left to give: every field has its --field, or there is none")}
		}
	case o.from != "":
		err = a.readFields(o.from, missing, needed, values)
	case len(needed) == 0 && len(o.fields) > 0:
	case asks:
		err = a.askFields(ctx, missing, values)
	default:
		err = a.readFields("-", missing, needed, values)
	}
	if err != nil {
		return values, err
	}
	for _, f := range way.Fields {
		if len(values[f.Name]) > 0 {
			continue
		}
		if delete(values, f.Name); !f.Optional {
			return values, fmt.Errorf("%s (%s) is empty: nothing was connected", f.Title, f.Name)
		}
	}
	return values, nil
}

func fieldNames(fields []api.Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return or(strings.Join(names, ", "), "none")
}

func wipe(values map[string][]byte) {
	for _, b := range values {
		clear(b)
	}
}

// readCredential reads a file, or standard input for "-".
func (a *app) readCredential(file string) ([]byte, error) {
	r := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the credential: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b := make([]byte, maxCredential+1) // of this size at once, so that no copy of a part is left behind
	n, err := io.ReadFull(r, b)
	switch {
	case err == nil:
		clear(b)
		return nil, fmt.Errorf("the credential is longer than %d KiB: see that it is the right file", maxCredential>>10)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		clear(b)
		return nil, fmt.Errorf("reading the credential: %w", err)
	}
	return b[:n], nil
}

// readFields takes the values of the missing fields out of a file: all of it is
// one value if one is needed.
func (a *app) readFields(file string, missing, needed []api.Field, values map[string][]byte) error {
	b, err := a.readCredential(file)
	if err != nil {
		return err
	}
	if len(missing) == 1 {
		needed = missing
	}
	if len(needed) == 1 {
		values[needed[0].Name] = b
		return nil
	}
	defer clear(b)
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return readObject(b, missing, values)
	}
	return readLines(b, missing, values)
}

// errFields says what the input should be.
func errFields(what string, missing []api.Field) error {
	return fmt.Errorf("%s: several values are needed (%s), as a JSON object of texts or as lines of the form name=value; or give each with --field", what, fieldNames(missing))
}

func readObject(b []byte, missing []api.Field, values map[string][]byte) error {
	var object map[string]string
	if json.Unmarshal(b, &object) != nil { // the error would quote it
		return errFields("the input begins like JSON and is no object of texts", missing)
	}
	for name, value := range object {
		if !slices.ContainsFunc(missing, func(f api.Field) bool { return f.Name == name }) {
			return errFields("the JSON object has a name that is no field", missing)
		}
		values[name] = []byte(value)
	}
	return nil
}

func readLines(b []byte, missing []api.Field, values map[string][]byte) error {
	n := 0
	for line := range bytes.Lines(b) {
		n++
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		name, value, ok := bytes.Cut(line, []byte("="))
		known := slices.ContainsFunc(missing, func(f api.Field) bool { return f.Name == string(name) })
		if !ok || !known || values[string(name)] != nil {
			return errFields(fmt.Sprintf("line %d is not of the form name=value with the name of a field that was not given yet", n), missing)
		}
		values[string(name)] = bytes.Clone(value)
	}
	return nil
}

// askFields asks for each field on the terminal. What has several lines cannot
// be typed there: its file is asked for.
func (a *app) askFields(ctx context.Context, missing []api.Field, values map[string][]byte) error {
	for _, f := range missing {
		question := f.Title
		if f.Hint != "" {
			question += " (" + f.Hint + ")"
		}
		if f.Multiline {
			question += ", name of its file"
		}
		if f.Optional {
			question += ", nothing for none"
		}
		question += ": "
		if f.Secret && !f.Multiline {
			secret, err := a.askSecret(ctx, question)
			if err != nil {
				return err
			}
			if values[f.Name] = secret.Reveal(); len(values[f.Name]) == 0 {
				delete(values, f.Name)
			}
			continue
		}
		line, err := a.askLine(ctx, question)
		if err != nil {
			return err
		}
		switch {
		case line == "":
		case f.Multiline:
			if values[f.Name], err = a.readCredential(line); err != nil {
				return err
			}
		default:
			values[f.Name] = []byte(line)
		}
	}
	return nil
}
