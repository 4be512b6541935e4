package alert

import (
	"context"
	"embed"
	"encoding/binary"
	"encoding/json"
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
}

func (b *Book) load(ctx context.Context) error {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	if err := b.cfg.DB.Migrate(ctx, "alert_version", migrations); err != nil {
		return err
	}
	rows, err := b.cfg.DB.Query(ctx, "SELECT id, severity, first, last, count, event, acked, sealed FROM alert ORDER BY id LIMIT ?", MaxKeys+maxCodes+1)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e entry
		var first, last, count, event int64
		var sealed []byte
		if err := rows.Scan(&e.ID, &e.Severity, &first, &last, &count, &event, &e.Acked, &sealed); err != nil {
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
			return fmt.Errorf("logging an alert: %w", err)
		}
	}
	return b.store(ctx)
}

// store writes the rows that changed, in one transaction.
func (b *Book) store(ctx context.Context) error {
	b.flushing.Lock() // rows are written in the order in which they changed
	defer b.flushing.Unlock()
	b.mu.Lock()
	var changed []*entry
	var rows []Alert
	for _, e := range b.entries {
		if e.dirty {
			e.dirty = false
			changed, rows = append(changed, e), append(rows, e.Alert)
		}
	}
	b.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	err := b.cfg.DB.Write(ctx, func(tx *sqldb.Tx) error {
		for i := range rows {
			if err := b.put(ctx, tx, &rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.mu.Lock()
		for _, e := range changed {
			e.dirty = true
		}
		b.mu.Unlock()
		b.wake() // also when Ack failed
		return fmt.Errorf("storing alerts: %w", err)
	}
	return nil
}

func (b *Book) put(ctx context.Context, tx *sqldb.Tx, a *Alert) error {
	text, err := json.Marshal(sealedText{a.Key, a.Title})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO alert (id, severity, first, last, count, event, acked, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, last = excluded.last, count = excluded.count,
			event = excluded.event, acked = excluded.acked, sealed = excluded.sealed`,
		a.ID, int64(a.Severity), a.First.UnixMicro(), a.Last.UnixMicro(), int64(a.Count), int64(a.Event), a.Acked,
		b.aead.Seal(nil, nil, text, associated(a.ID)))
	return err
}
