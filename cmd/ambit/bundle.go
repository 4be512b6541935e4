package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"ambit/audit"
)

// maxKey bounds a file with a public key, in bytes.
const maxKey = 4 << 10

// shownErasures is how many erasures are printed: the last ones.
const shownErasures = 20

// bundleFlags are those of audit verify that check a file without a control
// plane.
type bundleFlags struct {
	file, key string
	witnesses []string
}

// check says whether the arguments fit together.
func (b *bundleFlags) check(args []string, control bool) error {
	switch {
	case b.file == "" && (b.key != "" || len(b.witnesses) > 0):
		return usageError{errors.New("--key and --witness belong to --bundle")}
	case b.file != "" && (len(args) > 0 || control):
		return usageError{errors.New("a bundle says itself which log it is of: leave the agent out")}
	case b.file != "" && b.key == "":
		return usageError{errors.New("say with --key which key the log has; take it from elsewhere than the bundle, which proves nothing of itself")}
	}
	return nil
}

// verifyBundle checks a bundle.
func (a *app) verifyBundle(b bundleFlags, heads [][]byte) error {
	key, err := readKey(b.key)
	if err != nil {
		return err
	}
	o := audit.BundleOptions{Key: key, Heads: heads}
	for _, w := range b.witnesses {
		w, err := readKey(w)
		if err != nil {
			return err
		}
		o.Witnesses = append(o.Witnesses, w)
	}
	f, err := os.Open(b.file)
	if err != nil {
		return fmt.Errorf("opening the bundle: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return fmt.Errorf("opening the bundle %s: %w", b.file, err)
	}
	r, err := audit.VerifyBundle(f, info.Size(), o)
	if err != nil {
		return fmt.Errorf("%s: %w", b.file, err)
	}
	return a.printBundle(b.file, r)
}

// readKey is a public key, given as it is or as a file.
func readKey(s string) (string, error) {
	if _, err := audit.ParseWitness(s); err == nil { // of a log, too
		return s, nil
	}
	f, err := os.Open(s)
	if err != nil {
		return "", fmt.Errorf("reading a key, which is a file or a line like example.com/log+1234abcd+…: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if _, err := audit.ParseWitness(key); err != nil {
		return "", fmt.Errorf("%s: %w", s, err)
	}
	return key, nil
}

func (a *app) printBundle(file string, r audit.Report) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
		if !r.OK {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	if !r.OK {
		return &exitError{exitFailed, fmt.Sprintf("the bundle %s is NOT what %s wrote", file, r.Origin) + problemLines(r)}
	}
	text := fmt.Sprintf("The bundle is whole: %d events of %s, root %s.", r.Size, r.Origin, r.Root)
	text += fmt.Sprintf("\nBodies: %d shown and right, %d left out, %d erased.", r.Events-r.Withheld-r.Erased, r.Withheld, r.Erased)
	text += fmt.Sprintf("\nHeads kept elsewhere that it agrees with: %d. Witnesses that signed it: %s.", r.Heads, or(strings.Join(r.Witnesses, ", "), "none asked for"))
	text += erasureLines(r)
	if len(r.Unchecked) > 0 {
		text += "\nNothing vouches for: " + strings.Join(r.Unchecked, ", ")
	}
	return a.print("%s", text)
}

// problemLines are a report's problems, each on a line of its own.
func problemLines(r audit.Report) (text string) {
	for _, p := range r.Problems {
		text += fmt.Sprintf("\n  event %d: %s: %s", p.Seq, p.Kind, p.Text)
	}
	if r.More > 0 {
		text += fmt.Sprintf("\n  and %d more", r.More)
	}
	return text
}

// erasureLines say what was erased, when, by whom and by which rule.
func erasureLines(r audit.Report) (text string) {
	list, earlier := r.Erasures, r.EarlierErasures
	if n := len(list) - shownErasures; n > 0 {
		list, earlier = list[n:], earlier+n
	}
	if earlier > 0 {
		text += fmt.Sprintf("\n  %d earlier erasures", earlier)
	}
	for _, e := range list {
		text += fmt.Sprintf("\n  erased %s: %d bodies by %s, rule %q (event %d)", clock(e.Time), e.Bodies, e.By, e.Rule, e.Seq)
	}
	if r.Unfinished > 0 {
		text += fmt.Sprintf("\n  %d bodies of these are still there: the erasure is not finished", r.Unfinished)
	}
	return text
}
