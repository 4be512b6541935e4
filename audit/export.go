package audit

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
)

// ExportOptions say what a bundle has.
type ExportOptions struct {
	// Checkpoint is a signed head of this log, with the cosignatures that it
	// got; not older than the last erasure. One that is signed now, of the
	// whole log, if nil.
	Checkpoint []byte
	// Select says which events' bodies are in the bundle; all if nil. It is
	// asked more than once for each event, and must answer the same. The tree,
	// and the bodies of audit.erase events, are always in it.
	Select func(ambit.Event) bool
	// Extra are files with the same events in other forms.
	Extra []Extra
}

// Extra is a file of a bundle in some other form, such as events.csv. Nothing
// in the bundle vouches for it.
type Extra struct {
	// Name has up to 64 of a-z, 0-9, dot, hyphen and underscore.
	Name string
	// Write writes the file for events, in order. It is called twice, for the
	// length stands before the file, and must write the same.
	Write func(w io.Writer, events iter.Seq[ambit.Event]) error
}

// Export writes a bundle: a tar archive with which anybody who has the log's
// public key can check the log, or what is shown of it, without this program;
// see docs/audit-format.md. [VerifyBundle] does. Memory does not depend on the
// size of the log. Nothing is erased meanwhile. After an error what was written
// is no bundle. A log that was changed is not exported ([ErrTampered]).
func (l *Log) Export(ctx context.Context, w io.Writer, o ExportOptions) error {
	release, err := l.exclusive(ctx)
	if err == nil {
		defer release()
		err = l.export(ctx, w, o)
	}
	if err != nil {
		return fmt.Errorf("exporting the log: %w", err)
	}
	return nil
}

func (l *Log) export(ctx context.Context, w io.Writer, o ExportOptions) error {
	for i, x := range o.Extra {
		if !extraName(x.Name) || slices.ContainsFunc(o.Extra[:i], func(y Extra) bool { return x.Name == y.Name }) || i >= maxExtra {
			return fmt.Errorf("a bundle cannot have the file %q", x.Name)
		}
	}
	head, err := l.exportHead(ctx, o.Checkpoint)
	if err != nil {
		return err
	}
	x := &exporter{log: l, ctx: ctx, tar: tar.NewWriter(w), head: head, options: o}
	for _, f := range []struct{ name, text string }{
		{bundleReadme, readmeText(head)}, {bundleKey, l.keys.vkey + "\n"}, {bundleCheckpoint, string(head.Note)},
	} {
		if err := x.file(f.name, []byte(f.text)); err != nil {
			return err
		}
	}
	if err := x.tree(); err != nil {
		return err
	}
	if err := x.twice(bundleEvents, x.lines); err != nil {
		return err
	}
	for _, extra := range o.Extra {
		if err := x.twice(extra.Name, func(w io.Writer) error { return x.extra(w, extra) }); err != nil {
			return err
		}
	}
	return x.tar.Close()
}

// exportHead is the head that a bundle is for, all of it settled.
func (l *Log) exportHead(ctx context.Context, checkpoint []byte) (head Head, err error) {
	if checkpoint == nil {
		head, err = l.Head(ctx)
	} else {
		head, err = parseHead(checkpoint, l.keys.verifier)
	}
	if err != nil {
		return head, err
	}
	size, err := l.settle(ctx)
	if err == nil && head.Size > size {
		err = fmt.Errorf("%w: the head is of %d events, and the log has %d", ErrNoEvent, head.Size, size)
	}
	if err == nil && len(head.Note) > maxCheckpoint {
		err = errors.New("the head is too long")
	}
	if err != nil {
		return head, err
	}
	var later bool // what it erased could not be told from what was taken away
	err = l.db.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM audit_event WHERE kind = 'audit.erase' AND seq >= ?)", []any{int64(head.Size)}, &later)
	if err == nil && later {
		err = fmt.Errorf("something was erased since the head of %d events was signed; take a newer one", head.Size)
	}
	return head, err
}

// exporter writes one bundle.
type exporter struct {
	log     *Log
	ctx     context.Context //nolint:containedctx // of the one call that it lives for
	tar     *tar.Writer
	head    Head
	options ExportOptions
}

// begin begins a file. Whenever it was written, a bundle of the same is the same.
func (x *exporter) begin(name string, size int64) error {
	return x.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

func (x *exporter) file(name string, b []byte) error {
	if err := x.begin(name, int64(len(b))); err != nil {
		return err
	}
	_, err := x.tar.Write(b)
	return err
}

// twice writes a file whose length is not known: first into nothing.
func (x *exporter) twice(name string, write func(io.Writer) error) error {
	var n counter
	if err := write(&n); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := x.begin(name, int64(n)); err != nil {
		return err
	}
	if err := write(x.tar); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := x.tar.Flush(); err != nil {
		return fmt.Errorf("writing %s, which has another length the second time: %w", name, err)
	}
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// portion bounds what is read at once, so that no read of the database is open
// while a slow receiver takes it.
const (
	portionRows  = 4 * tileWidth
	portionBytes = 1 << 20
)

// errFull ends a portion.
var errFull = errors.New("this is enough at once")

// rows calls f with each row of the bundle.
func (x *exporter) rows(bodies bool, f func(*row) error) error {
	var portion []row
	for next := uint64(0); next < x.head.Size; {
		portion = portion[:0]
		bytes := 0
		_, _, err := readRows(x.ctx, x.log.db, next, bodies, portionRows, func(r *row) error {
			if r.seq != next {
				return fmt.Errorf("%w: event %d is missing", ErrTampered, next)
			}
			c := *r
			c.sealed = slices.Clone(r.sealed)
			portion = append(portion, c)
			next++
			if bytes += len(c.sealed); bytes >= portionBytes || next == x.head.Size {
				return errFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		if len(portion) == 0 {
			return fmt.Errorf("%w: event %d is missing", ErrTampered, next)
		}
		for i := range portion {
			if err := f(&portion[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// tree writes the leaves of all events and the tiles above, computed anew.
func (x *exporter) tree() error {
	var e edge
	var entries, leaf []byte
	var tiles []tile
	write := func(f treeFile) error {
		switch {
		case f.level < 0:
			defer func() { entries = entries[:0] }()
			return x.file(f.name(), entries)
		case f.width < tileWidth:
			return x.file(f.name(), hashBytes(e.levels[f.level]))
		}
		t := tiles[0]
		tiles = tiles[1:]
		return x.file(f.name(), t.bytes())
	}
	next, stop := iter.Pull(treeFiles(x.head.Size))
	defer stop()
	err := x.rows(false, func(r *row) error {
		l := r.leaf(x.log.keys.origin)
		leaf = l.AppendTo(leaf[:0])
		entries = appendLeaf(entries, leaf)
		full := e.add(r.seq, tlog.RecordHash(leaf))
		if len(full) == 0 {
			return nil
		}
		tiles = full
		for range 1 + len(full) { // the entries, and the tiles that they fill
			f, _ := next()
			if err := write(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for f, ok := next(); ok; f, ok = next() {
		if err := write(f); err != nil {
			return err
		}
	}
	if e.root() != x.head.Root {
		return fmt.Errorf("%w: its events do not give the root hash that was signed; run the verification", ErrTampered)
	}
	return nil
}

// shown is an event of the bundle with what opens its leaf; the event is nil
// if its body was erased.
type shown struct {
	seq        uint64
	salt, body []byte
	event      *ambit.Event
}

// each calls f with what the bundle shows.
func (x *exporter) each(f func(shown) error) error {
	return x.rows(true, func(r *row) error {
		s := shown{seq: r.seq}
		if r.sealed == nil {
			return f(s)
		}
		e, salt, body, err := r.open(x.log.keys)
		if err != nil {
			return fmt.Errorf("%w: event %d: %w; run the verification", ErrTampered, r.seq, err)
		}
		s = shown{r.seq, salt, body, &e}
		if e.Kind != ambit.KindAuditErase && x.options.Select != nil && !x.options.Select(e) {
			return nil
		}
		return f(s)
	})
}

// lines writes events.jsonl.
func (x *exporter) lines(w io.Writer) error {
	var b []byte
	return x.each(func(s shown) error {
		line := eventLine{Seq: s.seq}
		if s.event != nil {
			body := string(s.body)
			line.Salt, line.Body = base64.StdEncoding.EncodeToString(s.salt), &body
		}
		var err error
		if b, err = line.append(b[:0]); err != nil {
			return err
		}
		if len(b) > maxLine {
			return fmt.Errorf("event %d is too long", s.seq)
		}
		_, err = w.Write(b)
		return err
	})
}

// errEnough ends a walk that nobody wants to go on with.
var errEnough = errors.New("no more events are wanted")

func (x *exporter) extra(w io.Writer, extra Extra) error {
	var failed error
	err := extra.Write(w, func(yield func(ambit.Event) bool) {
		failed = x.each(func(s shown) error {
			if s.event != nil && !yield(*s.event) {
				return errEnough
			}
			return nil
		})
	})
	if failed != nil && !errors.Is(failed, errEnough) {
		return failed
	}
	return err
}
