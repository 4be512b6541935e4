package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"ambit/internal/sqldb"
)

var migrations = fstest.MapFS{
	"00001_first.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;\nCREATE TABLE b (a INTEGER NOT NULL REFERENCES a (id)) STRICT;\n-- +goose Down\nDROP TABLE b;\nDROP TABLE a;\n")},
}

func open(t *testing.T, path string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func migrated(t *testing.T) *sqldb.DB {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	if err := db.Migrate(t.Context(), "first_version", migrations); err != nil {
		t.Fatal(err)
	}
	return db
}

func exec(ctx context.Context, db *sqldb.DB, query string, args ...any) error {
	return db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
}

func count(t *testing.T, db *sqldb.DB) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM a", nil, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSettings(t *testing.T) {
	db := migrated(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return tx.QueryRow(t.Context(), "PRAGMA "+pragma, nil, &got) })
		if err != nil || got != want {
			t.Errorf("%s = %s, %v", pragma, got, err)
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(db.Path() + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", suffix, info.Mode(), err)
		}
	}
	if err := exec(t.Context(), db, "INSERT INTO b (a) VALUES (7)"); err == nil {
		t.Error("a reference to nothing was taken")
	}
	if rows, err := db.Query(t.Context(), "DELETE FROM a"); err == nil {
		rows.Close()
		if rows.Err() == nil {
			t.Error("a reader wrote")
		}
	}
}

func TestFileOfOthersIsTakenFromThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestWriteIsAllOrNothing(t *testing.T) {
	db := migrated(t)
	stop := errors.New("stop")
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(t.Context(), "INSERT INTO a (n) VALUES (1)"); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) || count(t, db) != 0 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, _ = tx.Exec(t.Context(), "INSERT INTO a (n) VALUES (1)")
			panic("in the middle")
		})
	}()
	ctx, cancel := context.WithCancel(t.Context())
	err = db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO a (n) VALUES (1)")
		cancel()
		_, err2 := tx.Exec(ctx, "INSERT INTO a (n) VALUES (2)")
		return errors.Join(err, err2)
	})
	if !errors.Is(err, context.Canceled) || count(t, db) != 0 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
	if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (3)"); err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}

// TestCancelledWhileBeginning: a transaction whose context ends at any moment
// leaves nothing open that would be in the way of the next one.
func TestCancelledWhileBeginning(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	nothing := func(*sqldb.Tx) error { return nil }
	for i := range 3000 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range i % 300 * 10 { // a moment of another length each time
			}
			cancel()
		}()
		_ = db.Write(ctx, nothing)
		<-done
		if err := db.Write(t.Context(), nothing); err != nil {
			t.Fatalf("after %d cancelled transactions: %v", i, err)
		}
	}
}

func TestConcurrentWriters(t *testing.T) {
	db := migrated(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (1)"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, db); n != 200 {
		t.Errorf("%d rows", n)
	}
}

func TestMigrateKeepsPackagesApartAndRefusesNewer(t *testing.T) {
	db := migrated(t)
	other := fstest.MapFS{"00001_c.sql": {Data: []byte("-- +goose Up\nCREATE TABLE c (id INTEGER PRIMARY KEY) STRICT;\n")}}
	newer := fstest.MapFS{"00001_c.sql": other["00001_c.sql"], "00002_d.sql": {Data: []byte("-- +goose Up\nCREATE TABLE d (id INTEGER PRIMARY KEY) STRICT;\n")}}
	for _, fsys := range []fstest.MapFS{other, other, newer} {
		if err := db.Migrate(t.Context(), "other_version", fsys); err != nil {
			t.Fatal(err)
		}
	}
	err := db.Migrate(t.Context(), "other_version", other)
	if !errors.Is(err, sqldb.ErrNewer) || !strings.Contains(err.Error(), "is at 2, this program knows 1") || !strings.Contains(err.Error(), db.Path()) {
		t.Errorf("%v", err)
	}
	if err := db.Migrate(t.Context(), "first_version", migrations); err != nil {
		t.Errorf("the other package: %v", err)
	}
	broken := fstest.MapFS{"00001_x.sql": {Data: []byte("-- +goose Up\nCREATE TABLE x (id INTEGER PRIMARY KEY) STRICT;\nCREATE NONSENSE;\n")}}
	if err := db.Migrate(t.Context(), "broken_version", broken); err == nil {
		t.Error("a broken migration was applied")
	}
	var n int
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM sqlite_schema WHERE name = 'x'", nil, &n); err != nil || n != 0 {
		t.Errorf("half a migration is there: %d, %v", n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := filepath.Join(dir, "foreign.db")
	raw, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("CREATE TABLE theirs (x)"); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(foreign, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want error
		text string
	}{
		{foreign, sqldb.ErrForeign, "move the file away"},
		{write("text.db", strings.Repeat("no database ", 1000)), sqldb.ErrDamaged, "restore a backup"},
		{link, nil, "not a regular file"},
		{dir, nil, "not a regular file"},
		{filepath.Join(dir, "none", "x.db"), os.ErrNotExist, "folder exists"},
	} {
		db, err := sqldb.Open(t.Context(), c.path)
		if err == nil {
			db.Close()
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), filepath.Dir(c.path)) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a path ? # % ü.db")
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), "v", migrations); err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 5000) INSERT INTO a (n) SELECT i FROM s")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Errorf("Check of a sound one: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[len(b)-3*4096:], strings.Repeat("damage", 600))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path).Check(t.Context()); !errors.Is(err, sqldb.ErrDamaged) {
		t.Errorf("Check of a damaged one: %v", err)
	}
}

// max_page_count makes SQLite meet a full disk without one.
func TestFullDiskFailsTheTransactionOnly(t *testing.T) {
	db := migrated(t)
	limit := func(pages int) {
		t.Helper()
		var got int
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			return tx.QueryRow(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &got)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // never below what there is
	err := exec(t.Context(), db, "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 50000) INSERT INTO a (n) SELECT i FROM s")
	if !errors.Is(err, sqldb.ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("%v", err)
	}
	limit(1 << 20)
	if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (1)"); err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}
