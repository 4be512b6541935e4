package secretbytes_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"ambit/internal/secretbytes"
)

const canary = "canary-secret-7f3a"

type holder struct {
	Open   secretbytes.Bytes
	hidden secretbytes.Bytes
	ptr    *secretbytes.Bytes
}

func TestNothingPrintsTheSecret(t *testing.T) {
	s := secretbytes.New([]byte(canary))
	h := holder{Open: s, hidden: s, ptr: &s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%T", "%p"} {
		for _, v := range []any{s, &s, h, &h, []secretbytes.Bytes{s}, map[string]secretbytes.Bytes{"k": s}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintln(&out, s, h)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("x", "s", s, "h", h, "p", &s)
	}
	for _, v := range []any{s, h, map[string]any{"s": s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	decimal := strings.Trim(fmt.Sprint([]byte(canary)), "[]")
	for _, form := range []string{canary, hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary))),
		base64.StdEncoding.EncodeToString([]byte(canary)), decimal, fmt.Sprintf("%#v", []byte(canary))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("output holds the secret as %q:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), secretbytes.Redacted) {
		t.Error("nothing says that something was redacted")
	}
}

func TestEqualAndWipe(t *testing.T) {
	a, b := secretbytes.New([]byte("same")), secretbytes.New([]byte("same"))
	if !a.Equal(b) || a.Equal(secretbytes.New([]byte("other"))) || a.Equal(secretbytes.Bytes{}) {
		t.Error("Equal is wrong")
	}
	raw := a.Reveal()
	twin := a
	a.Wipe()
	if !bytes.Equal(raw, make([]byte, 4)) {
		t.Errorf("bytes after Wipe: %q", raw)
	}
	if a.Len() != 0 || twin.Len() != 0 {
		t.Error("a wiped secret is not empty")
	}
	secretbytes.Bytes{}.Wipe()
}

func TestNotComparable(t *testing.T) {
	if reflect.TypeFor[secretbytes.Bytes]().Comparable() {
		t.Error("== on two secrets would compile")
	}
}
