package audit

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ambit/internal/durable"
	"ambit/internal/sqldb"
)

// The journal is a file of fixed size beside the database. It begins with a
// page that says whose it is; frames follow, from the same place again each
// time the database has caught up. Its space is written once, when the log is
// opened, so that overwriting it changes no metadata and finds no disk full.
const (
	journalMagic  = "ambit-journal/v1\n"
	journalHeader = 4096    // bytes before the first frame
	journalSize   = 2 << 20 // bytes of the whole file while the log is open
	// frameFull is when a batch goes on in another frame, in bytes. Together
	// with the longest event it is less than the journal.
	frameFull = 256 << 10
)

// journal is an open journal, locked against every other process.
type journal struct {
	f      *os.File
	end    int64           // where the next frame goes
	writer *durable.Writer // nil until start
}

// journalPath is agent.journal for agent.db.
func journalPath(database string) string {
	return strings.TrimSuffix(database, filepath.Ext(database)) + ".journal"
}

// openJournal opens the journal beside the database, or makes it, and locks it
// for as long as it is open. A power cut on the way leaves a file without a
// header and without frames, which the next call makes anew.
//
// open(O_CREAT|O_DSYNC), flock, write zeros, write header, fsync(directory)
func openJournal(database string, keys *keyring) (*journal, error) {
	path := journalPath(database)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file; move it out of the way", path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_DSYNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log's journal: %w", err)
	}
	j := &journal{f: f, end: journalHeader}
	if err := j.prepare(keys); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("opening the log's journal %s: %w", path, err)
	}
	return j, nil
}

func (j *journal) prepare(keys *keyring) error {
	if err := syscall.Flock(int(j.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: it has this log open; end it and try again", sqldb.ErrBusy)
	} else if err != nil {
		return fmt.Errorf("locking it: %w", err)
	}
	if err := j.f.Chmod(0o600); err != nil {
		return err
	}
	b, err := io.ReadAll(j.f)
	if err != nil {
		return err
	}
	fresh, err := checkHeader(b, keys)
	if err != nil {
		return err
	}
	if missing := journalSize - len(b); missing > 0 {
		if err := j.write(make([]byte, missing), int64(len(b))); err != nil {
			return err
		}
	}
	if !fresh {
		return nil
	}
	if err := j.write(header(keys), 0); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(j.f.Name()))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// header is the first page: magic, 16 bytes that only the log's key gives, the
// length of the origin in one byte, the origin, CRC-32C of all that.
func header(keys *keyring) []byte {
	b := append([]byte(journalMagic), keys.keycheck...)
	b = append(append(b, byte(len(keys.origin))), keys.origin...)
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	return append(b, make([]byte, journalHeader-len(b))...)
}

// checkHeader says whether b is a journal that has yet to get its header.
func checkHeader(b []byte, keys *keyring) (fresh bool, err error) {
	head := b[:min(len(b), journalHeader)]
	if len(bytes.Trim(head, "\x00")) == 0 && len(frames(b[len(head):])) == 0 {
		return true, nil
	}
	damaged := fmt.Errorf("%w: the first page of the log's journal is not what was written; keep the file, and restore a backup of the folder", sqldb.ErrDamaged)
	if i := len(journalMagic) - 2; len(head) < journalHeader || string(head[:i]) != journalMagic[:i] {
		return false, damaged
	} else if string(head[i:i+2]) != journalMagic[i:] {
		return false, fmt.Errorf("%w: the journal is of another form than this program knows; use the version that wrote it", sqldb.ErrNewer)
	}
	n := len(journalMagic) + len(keys.keycheck)
	end := n + 1 + int(head[n])
	if checksum(head[:end]) != binary.LittleEndian.Uint32(head[end:]) {
		return false, damaged
	}
	switch origin := string(head[n+1 : end]); {
	case origin != keys.origin:
		return false, fmt.Errorf("%w: the journal is of %s, not of %s; put the right one in its place", ErrForeign, origin, keys.origin)
	case subtle.ConstantTimeCompare(head[len(journalMagic):n], keys.keycheck) != 1:
		return false, fmt.Errorf("%w: the data key is not the one the journal was made with", ErrForeign)
	}
	return false, nil
}

// pending finds the frames of b, a journal, that a database of size events
// does not have yet. With an error it returns those before.
//
// Frames were written one after another, each after the one before was
// durable; so a frame that is whole proves that everything before it had been
// acknowledged. What is there in place of a frame is therefore
//   - of an earlier round, or of a write that failed, when its positions are
//     not above those that are expected: passed over;
//   - a batch that a power cut tore: not whole, and nothing whole with a
//     higher position behind it: dropped, nobody was told that it is durable;
//   - damage, when a whole frame with a higher position is behind it.
//
// A write that failed and is whole nevertheless may be taken for the next
// batch if the process ended before another came: as after a commit that
// failed late, an append that got an error may be in the log.
func pending(b []byte, size uint64, keys *keyring) ([]*frame, error) {
	if len(b) < journalHeader {
		return nil, nil
	}
	var found []*frame
	for _, f := range frames(b[journalHeader:]) {
		switch {
		case f.first() < size:
			continue
		case f.first() > size:
			return found, fmt.Errorf("%w: events %d to %d were acknowledged and are neither in the database nor whole in its journal; keep both files and restore a backup of both",
				errGap, size, f.first()-1)
		}
		for i := range f.rows {
			if _, err := f.rows[i].event(keys); err != nil {
				return found, fmt.Errorf("%w: event %d in the journal: %w", ErrTampered, f.rows[i].seq, err)
			}
		}
		found, size = append(found, f), f.next()
	}
	return found, nil
}

// errGap: damage, or the database is an older copy than the journal. Both
// ErrTampered and sqldb.ErrDamaged.
var errGap = fmt.Errorf("%w, or %w", ErrTampered, sqldb.ErrDamaged)

// readJournal reads the journal beside a database without locking it, and
// nothing if there is none.
func readJournal(database string, keys *keyring) ([]byte, error) {
	b, err := os.ReadFile(journalPath(database))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log's journal: %w", err)
	}
	_, err = checkHeader(b, keys)
	return b, err
}

// read returns everything.
func (j *journal) read() ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(j.f, 0, journalSize))
}

// start makes ready for append. After it nothing is read.
func (j *journal) start(keys *keyring) (err error) {
	j.writer, err = durable.NewWriter(j.f, journalSize-journalHeader, header(keys))
	if err != nil {
		return fmt.Errorf("writing the log's journal %s: %w", j.f.Name(), full(err))
	}
	return nil
}

// has says whether n more bytes fit behind the last frame.
func (j *journal) has(n int) bool { return j.end+int64(n) <= journalSize }

// append makes a frame durable. After an error it may be there or not; the
// next frame is written in its place.
func (j *journal) append(b []byte) error {
	if err := j.writer.WriteAt(b, j.end); err != nil {
		return fmt.Errorf("writing the log's journal %s: %w", j.f.Name(), full(err))
	}
	j.end += int64(blocks(len(b)))
	return nil
}

// blocks is how many bytes of the journal a frame of n bytes takes.
func blocks(n int) int {
	return (n + durable.BlockSize - 1) / durable.BlockSize * durable.BlockSize
}

// restart lets the next frame overwrite the first. The database must have all.
func (j *journal) restart() { j.end = journalHeader }

// scrub overwrites all frames. The database must have all. A crash on the way
// leaves frames of positions that it has, whole or torn.
func (j *journal) scrub() error {
	j.restart()
	if err := j.writer.WriteAt(make([]byte, journalSize-journalHeader), journalHeader); err != nil {
		return fmt.Errorf("overwriting the log's journal %s: %w", j.f.Name(), full(err))
	}
	return nil
}

// write returns when b is durable: the file is open with O_DSYNC, which is a
// pwrite and an fdatasync in one system call (open(2)).
func (j *journal) write(b []byte, at int64) error {
	_, err := j.f.WriteAt(b, at)
	return full(err)
}

// full says so if err means that there is no room.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		err = fmt.Errorf("%w: %w; make room and try again", sqldb.ErrFull, err)
	}
	return err
}

// close ends the lock. If the database has everything, the frames are removed,
// so that the database alone is a whole copy.
func (j *journal) close(settled bool) error {
	var err error
	if j.writer != nil {
		err = j.writer.Close()
	}
	if settled {
		// ftruncate, fsync
		err = errors.Join(j.f.Truncate(journalHeader), j.f.Sync())
	}
	return errors.Join(err, j.f.Close())
}
