package agent

import (
	"errors"
	"strings"
	"testing"
)

// The control plane's keys are made once. Where its log was begun they are
// never made again: that log would look like a new one.
func TestControlKeysAreMadeOnce(t *testing.T) {
	s := open(t, t.TempDir())
	before := everything(t, s)
	if len(before) != 3 || before["control data"] == before["control sign"] || before["control sign"] == before["control witness"] {
		t.Fatalf("keys: %v", before)
	}
	s = reopen(t, s, "")
	same(t, s, before)
	if h, err := s.ControlHead(t.Context()); err != nil || h != nil {
		t.Errorf("the head of a log that was never begun: %q, %v", h, err)
	}
	for _, c := range []struct {
		old, new string
		set      bool
	}{{"", "one", true}, {"", "two", false}, {"one", "two", true}, {"one", "three", false}} {
		var old []byte
		if c.old != "" {
			old = []byte(c.old)
		}
		if set, err := s.SetControlHead(t.Context(), old, []byte(c.new)); err != nil || set != c.set {
			t.Errorf("SetControlHead(%q, %q) = %v, %v", c.old, c.new, set, err)
		}
	}
	change(t, s.db, "DELETE FROM control_keys")
	s = reopen(t, s, "")
	if _, err := s.ControlKeys(t.Context()); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("keys of a log that was begun are gone: %v", err)
	}
}

// A key of the control plane's does not open as another one of its own, and no
// agent's key as one of its.
func TestControlKeysAreBoundToTheirPurpose(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	change(t, s.db, "UPDATE control_keys SET wrapped = (SELECT wrapped FROM control_keys WHERE purpose = 'sign') WHERE purpose = 'witness'")
	if _, err := s.ControlKeys(t.Context()); err == nil || !strings.Contains(err.Error(), "the witness key of the control plane does not open") {
		t.Errorf("another key of the control plane's: %v", err)
	}
	change(t, s.db, "UPDATE control_keys SET wrapped = (SELECT wrapped FROM agent_keys WHERE purpose = 'sign') WHERE purpose IN ('witness', 'sign')")
	if _, err := s.ControlKeys(t.Context()); err == nil || !strings.Contains(err.Error(), "the sign key of the control plane does not open") {
		t.Errorf("an agent's key: %v", err)
	}
}

func TestRefusedIsKept(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	for _, want := range []string{"", "it went back", ""} {
		if err := s.SetRefused(t.Context(), "a", want); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s, "")
		if got, err := s.Refused(t.Context(), "a"); err != nil || got != want {
			t.Errorf("Refused = %q, %v, want %q", got, err, want)
		}
	}
	if _, err := s.Refused(t.Context(), "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if err := s.SetRefused(t.Context(), "b", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}
