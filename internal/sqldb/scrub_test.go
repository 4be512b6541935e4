package sqldb_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"testing"
	"testing/fstest"

	"ambit/internal/sqldb"
)

// Rows of all sizes are emptied here and there. After a scrub nothing of them is
// in either file, which without it fails in most rounds, and everything else is
// as it was.
func TestScrub(t *testing.T) {
	for range 3 {
		db := migrated(t)
		if err := db.Migrate(t.Context(), "bodies_version", bodies); err != nil {
			t.Fatal(err)
		}
		const n = 1500
		kept, gone := map[int][]byte{}, [][]byte{}
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			for i := range n {
				size := 32 + mathrand.IntN(600)
				if mathrand.IntN(20) == 0 {
					size += mathrand.IntN(12000)
				}
				kept[i] = make([]byte, size)
				_, _ = rand.Read(kept[i])
				if _, err := tx.Exec(t.Context(), "INSERT INTO body (id, b) VALUES (?, ?)", i, kept[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < n; at += 1 + mathrand.IntN(40) {
			err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				for i := at; i < min(n, at+mathrand.IntN(40)); i++ {
					if b := kept[i]; b != nil {
						gone = append(gone, b)
						delete(kept, i)
					}
					if _, err := tx.Exec(t.Context(), "UPDATE body SET b = NULL WHERE id = ?", i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Scrub(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{db.Path(), db.Path() + "-wal"} {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range gone {
				if bytes.Contains(file, b[:16]) || bytes.Contains(file, b[len(b)-16:]) {
					t.Fatalf("%s holds what was erased", path)
				}
			}
		}
		if err := db.Check(t.Context()); err != nil {
			t.Error(err)
		}
		for i, want := range kept {
			var got []byte
			if err := db.QueryRow(t.Context(), "SELECT b FROM body WHERE id = ?", []any{i}, &got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("row %d is not what it was: %v", i, err)
			}
		}
	}
}

var bodies = fstest.MapFS{
	"00001_body.sql": {Data: []byte("-- +goose Up\nCREATE TABLE body (id INTEGER PRIMARY KEY, b BLOB) STRICT;\n")},
}

// Somebody who reads keeps the write-ahead log from being emptied; afterwards
// it works, and writing does in any case.
func TestScrubWhileSomebodyReads(t *testing.T) {
	db := migrated(t)
	for range 3 {
		if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (1)"); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Query(t.Context(), "SELECT id FROM a")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Scrub(t.Context()); !errors.Is(err, sqldb.ErrBusy) {
		t.Errorf("while somebody reads: %v", err)
	}
	if err := exec(t.Context(), db, "INSERT INTO a (n) VALUES (3)"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if err := db.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(db.Path() + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the write-ahead log: %v, %v", info, err)
	}
}
