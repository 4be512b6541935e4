package alert

import (
	"context"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"ambit"
	"ambit/internal/sqldb"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// sealedText is what is encrypted in a row.
type sealedText struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Why   string `json:"why,omitempty"` // of a mute
}

func (b *Book) load(ctx context.Context) error {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	if err := b.cfg.DB.Migrate(ctx, "alert_version", migrations); err != nil {
		return err
	}
	if err := b.identity(ctx); err != nil {
		return err
	}
	if err := b.seen.load(ctx, b.cfg.DB); err != nil {
		return err
	}
	return b.loadAlerts(ctx)
}

// identity reads what tells this book from others.
func (b *Book) identity(ctx context.Context) error {
	rows, err := b.cfg.DB.Query(ctx, "SELECT id FROM alert_book LIMIT 1")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&b.id); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (b *Book) loadAlerts(ctx context.Context) error {
	rows, err := b.cfg.DB.Query(ctx, "SELECT id, severity, first, last, count, event, acked, acked_by, muted_until, muted_by, news, sealed FROM alert ORDER BY id LIMIT ?", MaxKeys+maxCodes+1)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e entry
		var first, last, count, event, until, told int64
		var sealed []byte
		if err := rows.Scan(&e.ID, &e.Severity, &first, &last, &count, &event, &e.Acked, &e.AckedBy, &until, &e.MutedBy, &told, &sealed); err != nil {
			return err
		}
		plain, err := b.aead.Open(nil, nil, sealed, associated(e.ID))
		if err != nil {
			return fmt.Errorf("alert %d does not decrypt: it was changed, or the key is another one; restore the database from a backup", e.ID)
		}
		var text sealedText
		if err := json.Unmarshal(plain, &text); err != nil {
			return fmt.Errorf("reading alert %d: %w", e.ID, err)
		}
		e.Key, e.Title, e.Severity = text.Key, text.Title, min(e.Severity, ambit.Critical)
		e.First, e.Last = time.UnixMicro(first).UTC(), time.UnixMicro(last).UTC()
		e.Count, e.Event = uint64(max(count, 1)), uint64(event)
		e.told, e.stored, e.MutedWhy = uint64(max(told, 0)), uint64(max(told, 0)), text.Why
		if until != 0 {
			t := time.UnixMicro(until).UTC()
			e.MutedUntil = &t
		}
		b.lastTold = max(b.lastTold, e.told)
		b.entries[e.Key] = &e
		b.lastID = max(b.lastID, e.ID)
	}
	return rows.Err()
}

func associated(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// run writes what was raised until the book is closed. It sleeps while there
// is nothing to do.
func (b *Book) run() {
	defer close(b.done)
	ctx := context.Background() // its work is short, and Close waits for it
	for {
		select {
		case <-b.nudge:
		case <-b.stop:
			return // Close flushes
		}
		if b.flush(ctx) != nil {
			b.wake() // try again
		}
		pause := time.NewTimer(rest)
		select {
		case <-pause.C:
		case <-b.stop:
			pause.Stop()
			return
		}
	}
}

// flush logs what is news and then writes the rows.
func (b *Book) flush(ctx context.Context) error {
	b.mu.Lock()
	var news []*entry
	var events []ambit.Event
	for _, e := range b.entries {
		if e.news {
			e.news = false
			of := e.Event
			news = append(news, e)
			events = append(events, ambit.Event{
				Kind: ambit.KindAlert, Agent: b.cfg.Agent, Principal: ambit.PrincipalAmbit,
				Of: &of, Severity: e.Severity, Detail: e.Title,
			})
		}
	}
	b.mu.Unlock()
	for i, event := range events {
		if _, err := b.cfg.Log.Append(ctx, event); err != nil {
			b.mu.Lock()
			for _, e := range news[i:] {
				e.news = true
			}
			b.mu.Unlock()
			return errors.Join(fmt.Errorf("logging an alert: %w", err), b.store(ctx))
		}
		b.mu.Lock()
		b.lastTold++
		news[i].told, news[i].dirty = b.lastTold, true
		b.mu.Unlock()
	}
	return b.store(ctx)
}

// store writes the rows that changed, in one transaction.
func (b *Book) store(ctx context.Context) error {
	b.flushing.Lock() // rows are written in the order in which they changed
	defer b.flushing.Unlock()
	b.mu.Lock()
	var changed []*entry
	var rows []entry
	for _, e := range b.entries {
		if e.dirty {
			e.dirty = false
			changed, rows = append(changed, e), append(rows, *e)
		}
	}
	b.mu.Unlock()
	gone, fresh := b.seen.take()
	if len(rows)+len(gone)+len(fresh) == 0 {
		return nil
	}
	err := b.cfg.DB.Write(ctx, func(tx *sqldb.Tx) error {
		for i := range rows {
			if err := b.put(ctx, tx, &rows[i]); err != nil {
				return err
			}
		}
		return writeSeen(ctx, tx, gone, fresh)
	})
	b.mu.Lock()
	for i, e := range changed {
		if err != nil {
			e.dirty = true
		} else {
			e.stored = rows[i].told
		}
	}
	b.mu.Unlock()
	if err != nil {
		b.seen.back(gone, fresh)
		b.wake() // also when Ack failed
		return fmt.Errorf("storing alerts: %w", err)
	}
	return nil
}

func (b *Book) put(ctx context.Context, tx *sqldb.Tx, e *entry) error {
	text, err := json.Marshal(sealedText{e.Key, e.Title, e.MutedWhy})
	if err != nil {
		return err
	}
	var until int64
	if e.MutedUntil != nil {
		until = e.MutedUntil.UnixMicro()
	}
	_, err = tx.Exec(ctx, `INSERT INTO alert (id, severity, first, last, count, event, acked, acked_by, muted_until, muted_by, news, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, last = excluded.last, count = excluded.count,
			event = excluded.event, acked = excluded.acked, acked_by = excluded.acked_by, muted_until = excluded.muted_until,
			muted_by = excluded.muted_by, news = excluded.news, sealed = excluded.sealed`,
		e.ID, int64(e.Severity), e.First.UnixMicro(), e.Last.UnixMicro(), int64(e.Count), int64(e.Event), e.Acked,
		string(e.AckedBy), until, string(e.MutedBy), int64(e.told), b.aead.Seal(nil, nil, text, associated(e.ID)))
	return err
}
