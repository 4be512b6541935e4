package sqldb

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// What a caller branches on. The error around one of these names the file and
// what to do.
var (
	// ErrNewer: a newer version of the program wrote this database.
	ErrNewer = errors.New("the database was written by a newer version")
	// ErrForeign: the database belongs to another program.
	ErrForeign = errors.New("the database belongs to another program")
	// ErrDamaged: the file is no database, or a damaged one.
	ErrDamaged = errors.New("the database is damaged")
	// ErrFull: the disk is full, or a quota or file size limit is reached.
	ErrFull = errors.New("the disk is full")
	// ErrBusy: another process holds the database.
	ErrBusy = errors.New("the database is locked by another process")
)

var remedies = map[error]string{
	ErrNewer:   "use that version, or restore a backup from before it ran",
	ErrForeign: "nothing was changed; move the file away",
	ErrDamaged: "nothing was changed; keep the file for examination and restore a backup",
	ErrFull:    "nothing of this was written; make room and try again",
	ErrBusy:    "nothing of this was written; end the other process and try again",
}

// explain says which file an error is about, and what to do about it. A nil
// error stays nil, and errors.Is still finds the cause.
func (d *DB) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if class := classify(err); class != nil && !errors.Is(err, class) {
		err = fmt.Errorf("%w: %w", class, err)
	}
	for class, remedy := range remedies {
		if errors.Is(err, class) {
			return fmt.Errorf("%s %s: %w; %s", doing, d.path, err, remedy)
		}
	}
	return fmt.Errorf("%s %s: %w", doing, d.path, err)
}

// classify maps SQLite's result codes (https://sqlite.org/rescode.html), of
// which the low byte is the class.
func classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE { // a full disk, met when the shared memory file grows
		return ErrFull
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return ErrFull
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return ErrBusy
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return ErrDamaged
	}
	return nil
}
