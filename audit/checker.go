package audit

import (
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"ambit"
)

// ProblemKind is what a verification found wrong. The names are stable.
type ProblemKind string

// The kinds of problems.
const (
	ProblemEdited       ProblemKind = "edited"             // an event, a hash or the log's own row is not what was written
	ProblemMissing      ProblemKind = "missing"            // an event or a hash tile is gone
	ProblemErased       ProblemKind = "erased-unannounced" // a body is gone, and no audit.erase says so
	ProblemTruncated    ProblemKind = "truncated"          // the log ends before a signed head: cut off, or an older copy
	ProblemForked       ProblemKind = "forked"             // the log agrees with itself and not with a head: another history
	ProblemBadSignature ProblemKind = "bad-signature"      // a head is not of this log, or was changed; a witness did not sign
	ProblemTime         ProblemKind = "time"               // the time goes back
	ProblemDamaged      ProblemKind = "damaged"            // the database cannot be read further
)

// Problem is one thing that is wrong.
type Problem struct {
	Seq  uint64      `json:"seq"` // the event, or the size that a head speaks of
	Kind ProblemKind `json:"kind"`
	Text string      `json:"text"` // one sentence for a person
}

// maxProblems is how many problems a report lists.
const maxProblems = 100

// Report is the result of a verification. The zero value is not OK.
type Report struct {
	OK     bool      `json:"ok"`
	Origin string    `json:"origin"`
	Size   uint64    `json:"size"`   // position after the last event
	Root   tlog.Hash `json:"root"`   // of all events; zero if one is missing
	Events uint64    `json:"events"` // events that were checked
	Erased uint64    `json:"erased"` // of which the body was deleted
	// Withheld is how many bodies a bundle leaves out without saying that they
	// were erased; nothing is said of them.
	Withheld uint64 `json:"withheld,omitempty"`
	// Unfinished is how many bodies are there although the log says that they
	// were erased: an erasure is running or was interrupted. No problem.
	Unfinished uint64 `json:"unfinished,omitempty"`
	// Erasures are the last 1,000 audit.erase events, oldest first, and
	// EarlierErasures how many there are before them.
	Erasures        []Erased  `json:"erasures,omitempty"`
	EarlierErasures int       `json:"earlierErasures,omitempty"`
	Heads           int       `json:"heads"`               // given heads that agree
	Witnesses       []string  `json:"witnesses,omitempty"` // given witnesses that signed the bundle's checkpoint
	Unchecked       []string  `json:"unchecked,omitempty"` // files of a bundle that nothing vouches for
	Problems        []Problem `json:"problems"`
	More            int       `json:"more,omitempty"` // problems that are not listed
}

// target is a head that the tree must agree with at its size.
type target struct {
	Head
	own bool // the checkpoint that the log stored, or that a bundle has
}

// checker recomputes a tree from events in order, wherever they come from.
type checker struct {
	report   Report
	targets  []target // by size, those still to come
	edge     edge
	next     uint64 // the position that must come next
	micros   int64  // time of the event before
	gap      bool   // an event is missing: no hash can be recomputed any more
	seen     map[uint64]bool
	differ   []target // heads that do not agree
	erasures erasures
}

func newChecker(origin string) checker {
	c := checker{seen: map[uint64]bool{}}
	c.report.Origin, c.report.Problems = origin, []Problem{}
	return c
}

// expect adds the heads that were given, and own.
func (c *checker) expect(verifier note.Verifier, own []target, heads [][]byte) {
	c.targets = own
	for i, b := range heads {
		h, err := parseHead(b, verifier)
		if err != nil {
			c.problem(0, ProblemBadSignature, fmt.Sprintf("head %d of those given: %v", i+1, err))
			continue
		}
		c.targets = append(c.targets, target{h, false})
	}
	slices.SortStableFunc(c.targets, func(a, b target) int { return int(min(max(int64(a.Size)-int64(b.Size), -1), 1)) })
}

// reach begins with the event at a position.
func (c *checker) reach(seq uint64, micros int64) {
	if seq != c.next {
		c.problem(c.next, ProblemMissing, fmt.Sprintf("events %d to %d are missing", c.next, seq-1))
		c.gap = true
	}
	c.next = seq + 1
	c.report.Events++
	if micros < c.micros {
		c.problem(seq, ProblemTime, fmt.Sprintf("event %d is older than the one before it", seq))
	}
	c.micros = micros
}

// gone takes note of an event without a body.
func (c *checker) gone(seq uint64, kind ambit.Kind) {
	c.report.Erased++
	switch {
	case neverErased(kind):
		c.lost(seq, fmt.Sprintf("event %d has no body, and an %s is never erased", seq, kind))
	case seq < c.report.Events+maxGap:
		c.erasures.body(seq, true)
	}
}

// there takes note of a body that is what was written.
func (c *checker) there(e *ambit.Event) {
	if e.Kind == ambit.KindAuditErase {
		if err := c.erasures.announced(e); err != nil {
			c.problem(e.Seq, ProblemEdited, fmt.Sprintf("event %d: %v", e.Seq, err))
			return
		}
		if len(c.report.Erasures) == maxErased {
			c.report.Erasures = append(c.report.Erasures[:0], c.report.Erasures[1:]...)
			c.report.EarlierErasures++
		}
		c.report.Erasures = append(c.report.Erasures, Erased{e.Seq, e.Time, e.Principal, e.Erasure.Rule, e.Erasure.Subject, e.Erasure.Bodies})
	}
	if !neverErased(e.Kind) && e.Seq < c.report.Events+maxGap {
		c.erasures.body(e.Seq, false)
	}
}

// grow adds a leaf to the tree and returns the tiles that it filled.
func (c *checker) grow(seq uint64, leaf []byte) (full []tile) {
	if c.gap {
		return nil
	}
	full = c.edge.add(seq, tlog.RecordHash(leaf))
	c.compare()
	return full
}

// compare holds the tree against the heads of its present size.
func (c *checker) compare() {
	for len(c.targets) > 0 && c.targets[0].Size == c.next {
		t := c.targets[0]
		c.targets = c.targets[1:]
		switch {
		case t.Root != c.edge.root():
			c.differ = append(c.differ, t)
		case !t.own:
			c.report.Heads++
		}
	}
}

// sameTile compares a tile with the recomputed one. The verdict does not rest
// on stored tiles; they show which event was changed when its body is gone.
func (c *checker) sameTile(got, want tile) {
	first := want.n << (tileHeight * (want.level + 1))
	for i := range want.hashes {
		at := first + uint64(i)<<(tileHeight*want.level)
		if got.hashes[i] != want.hashes[i] && !c.seen[at] {
			c.problem(at, ProblemEdited, fmt.Sprintf("event %d and its stored hash do not agree (tile %d/%d)", at, want.level, want.n))
		}
	}
}

// finish says what the heads and the erasures show, knowing what the events show.
func (c *checker) finish() {
	if !c.gap {
		c.report.Root = c.edge.root()
	}
	inside := len(c.report.Problems) > 0 || slices.ContainsFunc(c.differ, func(t target) bool { return t.own })
	for _, t := range c.differ {
		switch {
		case t.own:
			c.problem(t.Size, ProblemEdited, fmt.Sprintf("the first %d events do not give the root hash that the log signed", t.Size))
		case inside:
			c.problem(t.Size, ProblemEdited, fmt.Sprintf("the first %d events do not give the root hash of the head kept elsewhere", t.Size))
		default:
			c.problem(t.Size, ProblemForked, fmt.Sprintf("the head kept elsewhere, of size %d, belongs to another history than the one that is here: the log was written anew, or goes on from an older copy", t.Size))
		}
	}
	for _, t := range c.targets { // not reached
		if t.Size <= c.report.Size {
			continue // behind a gap, which is a problem already
		}
		whose := "the head kept elsewhere"
		if t.own {
			whose = "the log's own checkpoint"
		}
		c.problem(c.report.Size, ProblemTruncated, fmt.Sprintf("%s is of size %d, but the log ends after %d events: the end was cut off, or an older copy was put in its place", whose, t.Size, c.report.Size))
	}
	c.report.Unfinished = c.erasures.unfinished
	for first, end, ok := c.erasures.gone.next(0); ok; first, end, ok = c.erasures.gone.next(end) {
		text := fmt.Sprintf("event %d has no body, and no event says that it was erased", first)
		if end-first > 1 {
			text = fmt.Sprintf("events %d to %d have no bodies, and no event says that they were erased", first, end-1)
		}
		c.lost(first, text)
	}
}

// lost is a problem of a body that is gone. The hash of its event is still to
// be looked at.
func (c *checker) lost(seq uint64, text string) {
	seen := c.seen[seq]
	c.problem(seq, ProblemErased, text)
	if !seen {
		delete(c.seen, seq)
	}
}

func (c *checker) problem(seq uint64, kind ProblemKind, text string) {
	if len(c.report.Problems) >= maxProblems {
		c.report.More++
		return
	}
	c.seen[seq] = true
	c.report.Problems = append(c.report.Problems, Problem{seq, kind, text})
}
