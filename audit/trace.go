package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"ambit"
)

// Touch is a call with everything that belongs to it, or another event that
// nothing belongs to. An event that belongs to another is part of its touch.
type Touch struct {
	At        uint64        `json:"at"`                  // the position that matched: go on from it with After or Before
	Event     ambit.Event   `json:"event"`               // what was decided or done
	Outcome   *ambit.Event  `json:"outcome,omitempty"`   // how it ended; nil if that is not known
	Approvals []ambit.Event `json:"approvals,omitempty"` // that a person was asked, and what they answered
	Others    []ambit.Event `json:"others,omitempty"`    // what else belongs to it: alerts, for instance
	// Subjects are those that were asked for and that one of these events touches.
	Subjects []ambit.Subject `json:"subjects,omitempty"`
}

// Trail is what a trace found.
type Trail struct {
	Touches []Touch `json:"touches"`
	// Cut: there are more, from the last touch on.
	Cut bool `json:"cut"`
	// More is how many events of the span asked about touch more subjects than
	// they name, and Erased how many have no body any more: any of these may
	// have touched whom was asked about.
	More   uint64 `json:"more"`
	Erased uint64 `json:"erased"`
	// Unseen is how many have a part that was not looked through for subjects.
	Unseen uint64 `json:"unseen"`
}

// maxMembers bounds the events that are shown with one that they belong to.
const maxMembers = 32

// Find returns what matches, one entry for each call. An event is looked at
// together with the one that it belongs to, and the one that this belongs to:
// an outcome matches for its status and for its request's host at once. A call
// is there once, for the first of its events that matches, or with Newest for
// the last; if its request matches, then for that. The order is that of these
// positions. Of a call whose request is before After, what matches later
// counts. There may be more if it returns fewer than asked for, but one.
func (l *Log) Find(ctx context.Context, q Query) ([]Touch, error) {
	t, err := l.join(ctx, &q, false)
	if err != nil {
		return nil, fmt.Errorf("searching the log: %w", err)
	}
	return t.Touches, nil
}

// Trace returns everything that touched any of the subjects, as [Log.Find] does,
// and how complete that is. q narrows it further; its own subjects are not used.
func (l *Log) Trace(ctx context.Context, subjects []ambit.Subject, q Query) (Trail, error) {
	if len(subjects) == 0 {
		return Trail{}, errors.New("tracing in the log: there is nobody to trace")
	}
	q.Subjects = subjects
	t, err := l.join(ctx, &q, true)
	if err != nil {
		return Trail{}, fmt.Errorf("tracing in the log: %w", err)
	}
	return t, nil
}

// hit is a position that matched, and the call that it is part of.
type hit struct{ at, root uint64 }

// joining is one search for calls.
type joining struct {
	l     *Log
	m     *matcher
	from  uint64
	limit int
	seen  map[uint64]bool // calls that were found
	hits  []hit
	trail Trail

	parents map[uint64]*found // events that others belong to; nil for one that is missing
	weight  int               // of parents
	kept    map[uint64]*found // of the hits, to be shown, as far as there is room
	room    int               // for kept
}

func (l *Log) join(ctx context.Context, q *Query, counts bool) (Trail, error) {
	m, from, to, err := l.prepare(ctx, q)
	if err != nil {
		return Trail{}, err
	}
	m.counts = counts
	j := &joining{l: l, m: m, from: from, limit: limit(q.Limit), seen: map[uint64]bool{}, parents: map[uint64]*found{}, kept: map[uint64]*found{}, room: maxWeight}
	err = l.eachPart(ctx, m, from, to, q.Newest, func(p part) error {
		j.trail.More += p.more
		j.trail.Erased += p.erased
		j.trail.Unseen += p.unseen
		if p.indexed && j.trail.Cut {
			return nil
		}
		return l.eachBatch(ctx, p, q.Newest, func(rows []row) error { return j.batch(ctx, rows, !p.indexed) })
	})
	if err != nil && !errors.Is(err, errEnough) {
		return Trail{}, err
	}
	return j.trail, j.finish(ctx, q.Subjects)
}

// batch looks at some rows.
func (j *joining) batch(ctx context.Context, rows []row, count bool) error {
	if !j.trail.Cut {
		if err := j.loadParents(ctx, rows); err != nil {
			return err
		}
	}
	for i := range rows {
		e, ok := j.parents[rows[i].seq]
		if !ok {
			f := j.l.decode(&rows[i])
			e = &f
		}
		if count && e.erased {
			j.trail.Erased++
		}
		if count && e.read && e.shown.More > 0 {
			j.trail.More++
		}
		if count && e.read && e.shown.Unseen {
			j.trail.Unseen++
		}
		if j.trail.Cut {
			continue
		}
		root, ok := j.matches(e)
		if !ok || j.seen[root] {
			continue
		}
		if len(j.hits) == j.limit {
			j.trail.Cut = true
			if !j.m.counts {
				return errEnough
			}
			continue
		}
		j.seen[root] = true
		j.hits = append(j.hits, hit{e.shown.Seq, root})
		j.keep(e)
		j.keep(j.parents[root])
	}
	return nil
}

// keep remembers an event that will be shown.
func (j *joining) keep(f *found) {
	if f == nil || j.room < f.weight || j.kept[f.shown.Seq] != nil {
		return
	}
	j.kept[f.shown.Seq] = f
	j.room -= f.weight
}

// decode is an event that is shown.
func (j *joining) decode(r *row) *found {
	if f := j.kept[r.seq]; f != nil {
		return f
	}
	f := j.l.decode(r)
	return &f
}

// matches says whether an event matches with those that it belongs to, and none
// of these by itself; and which is the first of them.
func (j *joining) matches(e *found) (root uint64, ok bool) {
	chain, root := j.chain(e)
	if !j.m.matches(chain...) {
		return root, false
	}
	for i := 1; i < len(chain); i++ {
		if chain[i].Seq >= j.from && j.m.matches(chain[i:]...) {
			return root, false
		}
	}
	return root, true
}

// parent is the position of the event that a row belongs to; nil if it is not
// before it.
func (r *row) parent() *uint64 {
	if !r.of.Valid || r.of.Int64 < 0 || uint64(r.of.Int64) >= r.seq {
		return nil
	}
	of := uint64(r.of.Int64)
	return &of
}

// chain is an event and those that it belongs to, and the position of the last
// of these, which may be missing.
func (j *joining) chain(e *found) (chain []*ambit.Event, root uint64) {
	chain, root = []*ambit.Event{e.known()}, e.shown.Seq
	for len(chain) < maxChain {
		of := e.shown.Of
		if of == nil || *of >= e.shown.Seq {
			break
		}
		root = *of
		if e = j.parents[root]; e == nil {
			break
		}
		chain = append(chain, e.known())
	}
	return chain, root
}

// loadParents sees that the events that rows belong to are in memory.
func (j *joining) loadParents(ctx context.Context, rows []row) error {
	if j.weight > rowsWeight || len(j.parents) > 8*rowsMost {
		clear(j.parents)
		j.weight = 0
	}
	here := make(map[uint64]*row, len(rows))
	for i := range rows {
		here[rows[i].seq] = &rows[i]
	}
	var missing []uint64
	want := func(child uint64, of *uint64) { // and what is known to be above it
		for range maxChain - 1 {
			if of == nil || *of >= child {
				return
			}
			f, ok := j.parents[*of]
			if !ok {
				missing = append(missing, *of)
			}
			if f == nil {
				return
			}
			child, of = *of, f.shown.Of
		}
	}
	for i := range rows {
		want(rows[i].seq, rows[i].parent())
	}
	for depth := 1; depth < maxChain && len(missing) > 0; depth++ {
		slices.Sort(missing)
		load := slices.Compact(missing)
		missing = nil
		keep := func(r *row) {
			f := j.l.decode(r)
			j.parents[r.seq] = &f
			j.weight += f.weight
			want(r.seq, r.parent())
		}
		var query []uint64
		for _, at := range load {
			j.parents[at] = nil
			if r := here[at]; r != nil {
				keep(r)
			} else {
				query = append(query, at)
			}
		}
		for len(query) > 0 {
			found, more, err := collectRows(ctx, j.l.db, rowsAt, false, len(query), jsonNumbers(query))
			if err != nil {
				return err
			}
			for i := range found {
				keep(&found[i])
			}
			if !more {
				break
			}
			query = query[slices.Index(query, found[len(found)-1].seq)+1:]
		}
	}
	return nil
}

// finishers is how many parts of an answer are read at the same time: some of
// the database's readers stay free for others.
const finishers = 2

// finish reads the calls that were found and what belongs to them.
func (j *joining) finish(ctx context.Context, subjects []ambit.Subject) error {
	type part struct {
		touches []Touch
		weight  int
	}
	j.parents = nil
	j.trail.Touches = []Touch{}
	weight := 0
	for len(j.hits) > 0 && weight < maxWeight {
		var parts [finishers]part
		work, ctx := errgroup.WithContext(ctx)
		for i := range parts {
			n := min(len(j.hits), 256)
			if n == 0 {
				break
			}
			hits := j.hits[:n]
			j.hits = j.hits[n:]
			work.Go(func() (err error) {
				parts[i].touches, parts[i].weight, err = j.touches(ctx, hits, subjects)
				return err
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
		for _, p := range parts {
			j.trail.Touches = append(j.trail.Touches, p.touches...)
			weight += p.weight
		}
	}
	j.trail.Cut = j.trail.Cut || len(j.hits) > 0
	return nil
}

// touches may be called several times at once: it changes nothing of j.
func (j *joining) touches(ctx context.Context, hits []hit, subjects []ambit.Subject) (touches []Touch, weight int, err error) {
	roots := make([]uint64, len(hits))
	index := make(map[uint64]int, len(hits)) // of the touch that a position is part of
	touches = make([]Touch, len(hits))
	for i, h := range hits {
		roots[i], index[h.root] = h.root, i
		touches[i] = Touch{At: h.at, Event: ambit.Event{Seq: h.root, Detail: "(missing; run the verification)"}}
	}
	var rest []uint64
	for _, at := range roots {
		if f := j.kept[at]; f != nil {
			weight += f.weight
			touches[index[at]].put(f.shown, true, j.m.subjects, subjects)
		} else {
			rest = append(rest, at)
		}
	}
	for slices.Sort(rest); len(rest) > 0; {
		rows, more, err := collectRows(ctx, j.l.db, rowsAt, false, len(rest), jsonNumbers(rest))
		if err != nil {
			return nil, 0, err
		}
		for i := range rows {
			f := j.l.decode(&rows[i])
			weight += f.weight
			touches[index[f.shown.Seq]].put(f.shown, true, j.m.subjects, subjects)
		}
		if !more {
			break
		}
		rest = rest[slices.Index(rest, rows[len(rows)-1].seq)+1:]
	}
	members := make([]int, len(hits))
	for depth := 1; depth < maxChain && len(roots) > 0; depth++ {
		rows, err := j.members(ctx, roots)
		if err != nil {
			return nil, 0, err
		}
		roots = roots[:0:0]
		for i := range rows {
			r := &rows[i]
			at, ok := index[uint64(r.of.Int64)]
			if _, known := index[r.seq]; !ok || known || members[at] >= maxMembers || uint64(r.of.Int64) >= r.seq {
				continue
			}
			f := j.decode(r)
			weight += f.weight
			touches[at].put(f.shown, false, j.m.subjects, subjects)
			members[at]++
			index[r.seq] = at
			roots = append(roots, r.seq)
		}
	}
	return touches, weight, nil
}

// members are the rows that belong to one of some events, at most maxMembers of
// each.
func (j *joining) members(ctx context.Context, of []uint64) ([]row, error) {
	most := 4 * max(len(of), maxMembers)
	rows, more, err := collectRows(ctx, j.l.db, rowsOf, false, most, jsonNumbers(of))
	if err != nil || !more && len(rows) < most {
		return rows, err
	}
	if len(of) == 1 {
		return rows[:min(len(rows), maxMembers)], nil
	}
	first, err := j.members(ctx, of[:len(of)/2]) // one of them has many
	if err != nil {
		return nil, err
	}
	second, err := j.members(ctx, of[len(of)/2:])
	return append(first, second...), err
}

// put puts an event in its place. hashes are those of subjects.
func (t *Touch) put(e ambit.Event, root bool, hashes []string, subjects []ambit.Subject) {
	for i, s := range subjects {
		if slices.Contains(e.Subjects, hashes[i]) && !slices.Contains(t.Subjects, s) {
			t.Subjects = append(t.Subjects, s)
		}
	}
	switch {
	case root:
		t.Event = e
	case t.Outcome == nil && (strings.HasSuffix(string(e.Kind), ".outcome") || e.Kind == ambit.KindAgentExecEnd):
		t.Outcome = &e
	case strings.HasPrefix(string(e.Kind), "approval."):
		t.Approvals = append(t.Approvals, e)
	default:
		t.Others = append(t.Others, e)
	}
}
