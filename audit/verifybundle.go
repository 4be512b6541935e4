package audit

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"ambit"
)

// ErrBundle says that a file is no bundle, or not a whole one.
var ErrBundle = errors.New("this is not a whole bundle")

// BundleOptions say what a bundle is held against.
type BundleOptions struct {
	// Key is the log's public key ([Log.VerifierKey]), from a source other than
	// the bundle. Trusted.
	Key string
	// Heads are signed notes that were kept elsewhere.
	Heads [][]byte
	// Witnesses are public keys that must have signed the bundle's checkpoint,
	// as [ParseWitness] reads them.
	Witnesses []string
}

// VerifyBundle checks a bundle of size bytes with public keys alone. It
// recomputes every hash from the leaves and compares them with the tiles, the
// checkpoint and the given heads; opens the commitment of every body that is
// shown; and sees that what is said to be erased was erased by an audit.erase
// event. What is wrong with the log is in the report. An error means that there
// is nothing to check: the key is not that of the bundle's checkpoint
// ([ErrBadSignature]), or the file is not laid out as [Log.Export] does
// ([ErrBundle]).
//
// The file may be hostile. Nothing of it is written anywhere; memory is two
// bits for each event, besides some megabytes.
func VerifyBundle(r io.ReaderAt, size int64, o BundleOptions) (Report, error) {
	b := &bundle{file: r, size: size}
	if err := b.verify(o); err != nil {
		return Report{}, fmt.Errorf("verifying a bundle: %w", err)
	}
	b.report.OK = len(b.report.Problems) == 0
	return b.report, nil
}

// bundle is a bundle that is being verified.
type bundle struct {
	checker
	file   io.ReaderAt
	size   int64
	head   Head
	events lineReader
	full   []tile // became full, and are still to come in the file
}

func (b *bundle) verify(o BundleOptions) error {
	verifier, err := note.NewVerifier(strings.TrimSpace(o.Key))
	if err != nil {
		return fmt.Errorf("reading the log's key: %w", err)
	}
	if err := b.layout(verifier); err != nil {
		return err
	}
	unchecked := b.report.Unchecked
	b.checker = newChecker(b.head.Origin)
	b.report.Size, b.report.Unchecked = b.head.Size, unchecked
	b.expect(verifier, []target{{b.head, true}}, o.Heads)
	for _, key := range o.Witnesses {
		w, err := ParseWitness(strings.TrimSpace(key))
		if err != nil {
			return err
		}
		if signedBy(b.head.Note, w) {
			b.report.Witnesses = append(b.report.Witnesses, w.Name())
		} else {
			b.problem(b.head.Size, ProblemBadSignature, "the checkpoint is not signed by the witness "+w.Name())
		}
	}
	b.compare() // an empty log
	if err := b.tree(); err != nil {
		return err
	}
	if line, err := b.events.next(); err != nil || line != nil {
		return errors.Join(err, fmt.Errorf("%w: %s goes on after the last event", ErrBundle, bundleEvents))
	}
	b.finish()
	return nil
}

// archive reads the tar from its beginning.
type archive struct {
	*tar.Reader
	section *io.SectionReader
}

func (b *bundle) archive() archive {
	section := io.NewSectionReader(b.file, 0, b.size)
	return archive{tar.NewReader(section), section}
}

// expect goes on to the next file, which must have that name and at most max bytes.
func (a archive) expect(name string, max int64) (*tar.Header, error) {
	h, err := a.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it ends before %s", ErrBundle, name)
	case err != nil:
		return nil, fmt.Errorf("%w: before %s: %w", ErrBundle, name, err)
	case h.Name != name:
		return nil, fmt.Errorf("%w: it has %.100q in the place of %s", ErrBundle, h.Name, name)
	case !plain(h):
		return nil, fmt.Errorf("%w: %s is not an ordinary file", ErrBundle, name)
	case h.Size > max:
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are possible", ErrBundle, name, h.Size, max)
	}
	return h, nil
}

// plain says whether a file is what it looks like: no link, nothing sparse.
func plain(h *tar.Header) bool {
	for record := range h.PAXRecords {
		if record != "size" {
			return false
		}
	}
	return h.Typeflag == tar.TypeReg && h.Size >= 0
}

// read reads the next file, which must have that name.
func (a archive) read(name string, max int64) ([]byte, error) {
	if _, err := a.expect(name, max); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(a, max))
	if err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrBundle, name, err)
	}
	return b, nil
}

// layout reads the checkpoint, from which all names follow, and looks whether
// the files are there and how long they are.
func (b *bundle) layout(verifier note.Verifier) error {
	a := b.archive()
	var magic [2]byte
	if n, _ := b.file.ReadAt(magic[:], 0); n == 2 && magic == [2]byte{0x1f, 0x8b} {
		return fmt.Errorf("%w: it is compressed; gunzip it first", ErrBundle)
	}
	if _, err := a.expect(bundleReadme, maxCheckpoint); err != nil {
		return err
	}
	key, err := a.read(bundleKey, maxLeaf)
	if err != nil {
		return err
	}
	text, err := a.read(bundleCheckpoint, maxCheckpoint)
	if err != nil {
		return err
	}
	if b.head, err = parseHead(text, verifier); err != nil {
		return err
	}
	if v, err := note.NewVerifier(strings.TrimSpace(string(key))); err != nil || v.Name() != verifier.Name() || v.KeyHash() != verifier.KeyHash() {
		return fmt.Errorf("%w: the key in it is not the one that its checkpoint is signed with", ErrBundle)
	}
	for f := range treeFiles(b.head.Size) {
		if err := a.sized(f); err != nil {
			return err
		}
	}
	h, err := a.expect(bundleEvents, b.size)
	if err != nil {
		return err
	}
	at, err := a.section.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b.events.r = bufio.NewReaderSize(io.NewSectionReader(b.file, at, h.Size), 64<<10)
	return b.rest(a)
}

// sized goes on to a file of the tree.
func (a archive) sized(f treeFile) error {
	if f.level < 0 {
		_, err := a.expect(f.name(), int64(f.width)*(2+maxLeaf))
		return err
	}
	want := int64(f.width) * tlog.HashSize
	h, err := a.expect(f.name(), want)
	if err == nil && h.Size != want {
		err = fmt.Errorf("%w: %s has %d bytes instead of %d", ErrBundle, f.name(), h.Size, want)
	}
	return err
}

// rest notes the files that nothing vouches for.
func (b *bundle) rest(a archive) error {
	b.report.Unchecked = []string{bundleReadme}
	for {
		h, err := a.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: after %s: %w", ErrBundle, bundleEvents, err)
		case !plain(h) || !extraName(h.Name) || slices.Contains(b.report.Unchecked, h.Name) || len(b.report.Unchecked) > maxExtra:
			return fmt.Errorf("%w: it has %.100q behind %s, or has it again", ErrBundle, h.Name, bundleEvents)
		}
		b.report.Unchecked = append(b.report.Unchecked, h.Name)
	}
}

// tree reads leaves, tiles and bodies side by side.
func (b *bundle) tree() error {
	a := b.archive()
	for _, name := range []string{bundleReadme, bundleKey, bundleCheckpoint} {
		if _, err := a.expect(name, maxCheckpoint); err != nil {
			return err
		}
	}
	for f := range treeFiles(b.head.Size) {
		data, err := a.read(f.name(), int64(f.width)*(2+maxLeaf))
		if err != nil {
			return err
		}
		if f.level < 0 {
			err = b.entries(f, data)
		} else {
			err = b.tile(f, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tile compares a tile with the one that was computed.
func (b *bundle) tile(f treeFile, data []byte) error {
	want := tile{level: f.level, n: f.n}
	if f.width == tileWidth {
		want, b.full = b.full[0], b.full[1:]
	} else {
		want.hashes = b.edge.levels[f.level]
	}
	if len(data) != f.width*tlog.HashSize || len(want.hashes) != f.width {
		return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrBundle, f.name(), len(data), f.width*tlog.HashSize)
	}
	got := tile{level: f.level, n: f.n, hashes: make([]tlog.Hash, f.width)}
	for i := range got.hashes {
		got.hashes[i] = tlog.Hash(data[i*tlog.HashSize:])
	}
	b.sameTile(got, want)
	return nil
}

// entries goes through the leaves of one file, with the lines of their events.
func (b *bundle) entries(f treeFile, data []byte) error {
	list, err := parseEntries(data, f.width)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBundle, f.name(), err)
	}
	for i, entry := range list {
		seq := f.n*tileWidth + uint64(i)
		l, err := ParseLeaf(entry)
		switch {
		case err != nil:
			b.reach(seq, b.micros)
			b.problem(seq, ProblemEdited, fmt.Sprintf("event %d: %v", seq, err))
		case l.Seq != seq:
			b.reach(seq, b.micros)
			b.problem(seq, ProblemEdited, fmt.Sprintf("in the place of event %d is event %d", seq, l.Seq))
		case l.Origin != b.head.Origin:
			b.reach(seq, b.micros)
			b.problem(seq, ProblemEdited, fmt.Sprintf("event %d is of another log, %.250q", seq, l.Origin))
		default:
			b.reach(seq, l.Micros)
		}
		if err := b.body(seq, &l); err != nil {
			return err
		}
		b.full = append(b.full, b.grow(seq, entry)...)
	}
	return nil
}

// body checks what the bundle says of one event's body.
func (b *bundle) body(seq uint64, l *Leaf) error {
	line, err := b.events.next()
	if err != nil {
		return err
	}
	switch {
	case line != nil && line.Seq < seq:
		return fmt.Errorf("%w: %s has event %d again, or not in its place", ErrBundle, bundleEvents, line.Seq)
	case line == nil || line.Seq > seq:
		if l.Kind == ambit.KindAuditErase {
			b.problem(seq, ProblemMissing, fmt.Sprintf("event %d says what was erased, and its body is not in the bundle", seq))
		}
		b.report.Withheld++
		return nil
	}
	b.events.taken = true
	if line.Body == nil {
		b.gone(seq, l.Kind)
		return nil
	}
	e, err := l.open(b.events.salt, []byte(*line.Body))
	if err != nil || e.Seq != seq {
		b.problem(seq, ProblemEdited, fmt.Sprintf("event %d was changed: %v", seq, err))
		return nil
	}
	b.there(&e)
	return nil
}

// lineReader reads events.jsonl with a look at the next line.
type lineReader struct {
	r      *bufio.Reader
	number int
	line   *eventLine // the next one; nil at the end
	salt   []byte     // of it
	taken  bool       // it is not the next one any more
	buf    []byte
}

// next is the next line, again and again until it is taken.
func (l *lineReader) next() (*eventLine, error) {
	if l.number > 0 && !l.taken {
		return l.line, nil
	}
	l.number, l.taken, l.line, l.buf = l.number+1, false, nil, l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		switch {
		case errors.Is(err, io.EOF) && len(l.buf) == 0:
			return nil, nil
		case errors.Is(err, io.EOF):
			return nil, l.wrong(errors.New("it has no end"))
		case len(l.buf) > maxLine:
			return nil, l.wrong(errors.New("it is too long"))
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return nil, l.wrong(err)
		}
		line, salt, err := parseEventLine(bytes.TrimSuffix(l.buf, []byte("\n")))
		if err != nil {
			return nil, l.wrong(err)
		}
		l.line, l.salt = &line, salt
		return l.line, nil
	}
}

func (l *lineReader) wrong(err error) error {
	return fmt.Errorf("%w: line %d of %s: %w", ErrBundle, l.number, bundleEvents, err)
}
