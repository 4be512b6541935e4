// Package sqldb opens a SQLite database so that it can be relied on: a
// committed transaction survives a power cut, a full disk fails the
// transaction and nothing else, and a file of a newer version or of another
// program is refused instead of being written to.
//
// Durability: write-ahead log with synchronous=FULL, so COMMIT returns after
// the log's fsync (https://sqlite.org/pragma.html#pragma_synchronous). All
// writes of a process go through one connection and one lock, so its packages
// never meet SQLITE_BUSY among themselves; another process may hold the file
// for up to five seconds. Readers have a pool of their own, see the last
// committed state, and never wait for the writer.
//
// Several packages share one file: each owns its tables and a migration table
// of its own (see [DB.Migrate]).
//
// What is deleted is overwritten in the file; [DB.Scrub] also takes it out of
// the places where SQLite leaves copies. Nothing is written to temporary files.
//
// Known hole: a disk that lies about fsync.
//
// Trust: the file is trusted to be the one that this package wrote, no
// further than SQLite itself checks. Whoever can write to it can change every
// row; what must notice that, as the audit log must, checks for itself.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// applicationID marks the files of this product ("ambi"); SQLite keeps it in
// the file's header (https://sqlite.org/fileformat2.html#application_id).
const applicationID = 0x616d6269

// maxReaders is how many queries of one process run at the same time.
const maxReaders = 4

const (
	writePragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=foreign_keys(on)&_pragma=trusted_schema(off)&_pragma=secure_delete(on)&_pragma=temp_store(memory)&_dqs=0"
	readPragmas  = "_pragma=busy_timeout(5000)&_pragma=query_only(on)&_pragma=trusted_schema(off)&_dqs=0"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path  string
	read  *sql.DB
	write *sql.DB

	// lock holds one token; whoever took it owns what is below.
	lock  chan struct{}
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// Open opens the database at path and makes it, with mode 0600, if there is
// none; its folder must exist. It returns [ErrForeign] for a database of
// another program and [ErrDamaged] for a file that is no database.
func Open(ctx context.Context, path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := secureFile(path); err != nil {
		return nil, err
	}
	d := &DB{path: path, lock: make(chan struct{}, 1), stmts: map[string]*sql.Stmt{}}
	if err := d.connect(ctx); err != nil {
		_ = d.Close()
		return nil, d.explain("opening", err)
	}
	return d, nil
}

// secureFile makes an empty file that only its owner can read, or takes the
// access of others away from the one that is there. It never opens an existing
// file: closing it would drop the locks that SQLite holds in this process
// (https://sqlite.org/howtocorrupt.html, section 2.2).
func secureFile(path string) error {
	// open(O_CREAT|O_EXCL), close, fsync(directory)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		return errors.Join(f.Close(), syncDir(filepath.Dir(path)))
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the database: %w; see that its folder exists and is writable", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("opening the database %s: it is not a regular file; move it out of the way", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("taking access to the database from others: %w", err)
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (d *DB) dsn(params string) string {
	return (&url.URL{Scheme: "file", Path: d.path, RawQuery: params}).String()
}

func (d *DB) connect(ctx context.Context) (err error) {
	if d.write, err = sql.Open("sqlite", d.dsn(writePragmas)); err != nil {
		return err
	}
	d.write.SetMaxOpenConns(1)
	if d.conn, err = d.write.Conn(ctx); err != nil {
		return err
	}
	if err := d.claim(ctx); err != nil {
		return err
	}
	if d.read, err = sql.Open("sqlite", d.dsn(readPragmas)); err != nil {
		return err
	}
	d.read.SetMaxOpenConns(maxReaders)
	d.read.SetMaxIdleConns(1)
	d.lock <- struct{}{}
	return nil
}

// claim checks whose file this is, and marks one that is still empty.
func (d *DB) claim(ctx context.Context) error {
	var tables, id int
	if err := d.conn.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM sqlite_schema), application_id FROM pragma_application_id").Scan(&tables, &id); err != nil {
		return err
	}
	switch {
	case id == applicationID:
		return nil
	case id == 0 && tables == 0:
		_, err := d.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
		return err
	}
	return ErrForeign
}

// Path is the database's absolute path.
func (d *DB) Path() string { return d.path }

// Close closes the database after the transaction that is running. It must be
// called once, after everything else.
func (d *DB) Close() error {
	var errs []error
	if d.read != nil {
		errs = append(errs, d.read.Close())
		<-d.lock
	}
	for _, s := range d.stmts {
		errs = append(errs, s.Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.write != nil {
		errs = append(errs, d.write.Close())
	}
	return errors.Join(errs...)
}

// Query runs a read-only query on the last committed state. The caller closes
// the rows.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	rows, err := d.read.QueryContext(ctx, query, args...) //nolint:rowserrcheck // whoever reads them does
	if err != nil {
		return nil, d.explain("reading", err)
	}
	return &Rows{rows, d}, nil
}

// Rows are the rows of a query, as in database/sql.
type Rows struct {
	*sql.Rows
	db *DB
}

// Err is the error that ended the rows early, if any: for instance ErrDamaged.
func (r *Rows) Err() error { return r.db.explain("reading", r.Rows.Err()) }

// QueryRow runs a read-only query that returns at most one row and scans it
// into dest. It returns sql.ErrNoRows if there is none.
func (d *DB) QueryRow(ctx context.Context, query string, args []any, dest ...any) error {
	return d.explain("reading", d.read.QueryRowContext(ctx, query, args...).Scan(dest...))
}

// Check reads the whole file and returns [ErrDamaged] with what SQLite found
// wrong with it. It takes seconds for each gigabyte.
func (d *DB) Check(ctx context.Context) error {
	var verdict string
	if err := d.QueryRow(ctx, "PRAGMA quick_check(1)", nil, &verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return d.explain("checking", fmt.Errorf("%w: %s", ErrDamaged, verdict))
	}
	return nil
}

// Write runs fn in a transaction that is durable when Write returns nil. If fn
// or the commit fails, nothing of it happened, with one exception: after a
// failed commit on a disk that reports errors late, the rows may be there when
// the database is next read, so the caller reads before it goes on.
//
// fn must use tx only, and must not call Write.
func (d *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	select {
	case <-d.lock:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the database: %w", ctx.Err())
	}
	defer func() { d.lock <- struct{}{} }()
	tx := &Tx{d}
	if err := tx.run(ctx, "BEGIN IMMEDIATE"); err != nil {
		// It may have begun all the same, if ctx ended at that moment; left open it
		// would be in the way of every later one.
		_ = tx.run(context.WithoutCancel(ctx), "ROLLBACK")
		return d.explain("writing", err)
	}
	done := false
	defer func() {
		if !done { // an error, or fn panicked
			_ = tx.run(context.WithoutCancel(ctx), "ROLLBACK") // SQLite may have rolled back by itself
		}
	}()
	if err := fn(tx); err != nil {
		return d.explain("writing", err)
	}
	if err := tx.run(context.WithoutCancel(ctx), "COMMIT"); err != nil {
		return d.explain("writing", err)
	}
	done = true
	return nil
}

// Tx is the transaction of one call of [DB.Write], usable only inside it and
// by one goroutine. Statements are prepared once for the life of the database,
// so query texts must be constants or few.
type Tx struct{ db *DB }

func (t *Tx) run(ctx context.Context, query string) error {
	_, err := t.Exec(ctx, query)
	return err
}

func (t *Tx) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := t.db.stmts[query]; ok {
		return s, nil
	}
	s, err := t.db.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	t.db.stmts[query] = s
	return s, nil
}

// Exec runs a statement.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// Query runs a query inside the transaction. The caller closes the rows.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args...) //nolint:rowserrcheck // whoever reads them does
	if err != nil {
		return nil, err
	}
	return &Rows{rows, t.db}, nil
}

// QueryRow runs a query that returns at most one row and scans it into dest.
// It returns sql.ErrNoRows if there is none.
func (t *Tx) QueryRow(ctx context.Context, query string, args []any, dest ...any) error {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(dest...)
}
