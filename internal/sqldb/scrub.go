package sqldb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// With secure_delete SQLite overwrites what is deleted
// (https://sqlite.org/pragma.html#pragma_secure_delete). Three places keep
// copies all the same: the write-ahead log, until a later round of it; pages
// that were deleted from before, by a version without that setting; and, in a
// page from which balancing the tree moved rows to its neighbours, the space
// that they had: SQLite writes such a page anew without clearing the rest.
// When one of those rows is deleted in its new place, the old copy stays.

const (
	// scrubPages is how many pages one read looks at, and one transaction
	// changes at most.
	scrubPages = 256
	// maxScrub is the largest database that can be scrubbed, in pages: below
	// it the first byte of a page that is no tree's, which begins with a page
	// number, cannot look like that of a tree's.
	maxScrub = 1 << 25
	// truncateTries is how often emptying the write-ahead log is tried while
	// somebody reads, truncateWait how long each try holds up other writers.
	truncateTries = 6
	truncateWait  = 100 * time.Millisecond
)

// Scrub overwrites what the unused parts of the tree's pages still hold of rows
// that were deleted, changed or moved, and empties the write-ahead log, so that
// nothing but what queries return is in either file. It reads the whole
// database, in portions between which others write. It returns [ErrBusy] if
// somebody reads for so long that the log cannot be emptied; the rest is done
// then.
func (d *DB) Scrub(ctx context.Context) error {
	var pages int64
	if err := d.QueryRow(ctx, "PRAGMA page_count", nil, &pages); err != nil {
		return err
	}
	if pages >= maxScrub {
		return d.explain("scrubbing", fmt.Errorf("%d pages are too many", pages))
	}
	for first := int64(1); first <= pages; first += scrubPages {
		unclean, err := d.unclean(ctx, first, first+scrubPages)
		if err != nil {
			return err
		}
		if len(unclean) == 0 {
			continue
		}
		if err := d.clean(ctx, unclean); err != nil {
			return err
		}
	}
	return d.truncate(ctx)
}

// unclean is which pages from first on, and before end, have something left in
// their free space.
func (d *DB) unclean(ctx context.Context, first, end int64) (numbers []int64, err error) {
	// One by one: the table finds a page by its number, but no range of them.
	rows, err := d.Query(ctx, "WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "+
		"SELECT pgno, data FROM n CROSS JOIN sqlite_dbpage ON pgno = i", first, end)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var page []byte
		if err := rows.Scan(&n, &page); err != nil {
			return nil, err
		}
		if clearFree(n, page) {
			numbers = append(numbers, n)
		}
	}
	return numbers, rows.Err()
}

// clean clears the free space of pages, as they are now.
func (d *DB) clean(ctx context.Context, numbers []int64) error {
	return d.Write(ctx, func(tx *Tx) error {
		for _, n := range numbers {
			var page []byte
			if err := tx.QueryRow(ctx, "SELECT data FROM sqlite_dbpage WHERE pgno = ?", []any{n}, &page); err != nil {
				return err
			}
			if !clearFree(n, page) {
				continue
			}
			if _, err := tx.Exec(ctx, "UPDATE sqlite_dbpage SET data = ? WHERE pgno = ?", page, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// clearFree zeroes what no row is in, if the page is of a tree
// (https://sqlite.org/fileformat2.html, section 1.6), and says whether that
// changed it. The bytes of fragments, at most three together, stay.
func clearFree(number int64, page []byte) (changed bool) {
	header := 0
	if number == 1 {
		header = 100
	}
	if len(page) < header+12 {
		return false
	}
	var cells int // where the array of pointers begins
	switch page[header] {
	case 0x02, 0x05:
		cells = header + 12
	case 0x0a, 0x0d:
		cells = header + 8
	default:
		return false
	}
	at := func(i int) int { return int(binary.BigEndian.Uint16(page[i:])) }
	zero := func(from, to int) {
		for i := from; i < to; i++ {
			changed = changed || page[i] != 0
			page[i] = 0
		}
	}
	used, content := cells+2*at(header+3), at(header+5)
	if content == 0 {
		content = 1 << 16
	}
	if used > content || content > len(page) {
		return false // damaged: not for us to touch
	}
	zero(used, content)
	for block := at(header + 1); block >= content && block+4 <= len(page); {
		next, size := at(block), at(block+2)
		if size < 4 || block+size > len(page) {
			break
		}
		zero(block+4, block+size)
		if next <= block {
			break
		}
		block = next
	}
	return changed
}

// truncate moves what is in the write-ahead log into the file and empties it.
func (d *DB) truncate(ctx context.Context) error {
	for try := range truncateTries {
		if try > 0 {
			select {
			case <-time.After(truncateWait):
			case <-ctx.Done():
				return fmt.Errorf("emptying the write-ahead log: %w", ctx.Err())
			}
		}
		busy, err := d.tryTruncate(ctx)
		if err != nil {
			return d.explain("emptying the write-ahead log of", err)
		}
		if !busy {
			return nil
		}
	}
	return d.explain("emptying the write-ahead log of", fmt.Errorf("%w: somebody is reading it", ErrBusy))
}

func (d *DB) tryTruncate(ctx context.Context) (busy bool, err error) {
	select {
	case <-d.lock:
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for the database: %w", ctx.Err())
	}
	defer func() { d.lock <- struct{}{} }()
	if _, err := d.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", truncateWait.Milliseconds())); err != nil {
		return false, err
	}
	defer func() {
		_, e := d.conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout = 5000")
		err = errors.Join(err, e)
	}()
	var frames, moved int
	err = d.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if errors.Is(classify(err), ErrBusy) {
		return true, nil
	}
	return busy, err
}
