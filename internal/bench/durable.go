//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ambit/audit"
	"ambit/internal/sqldb"
)

// durables measures what a log costs while nobody searches it: appends that
// survive a power cut, verification, and an export. The reference of appends is a
// row of the same size in a transaction of SQLite's own, with the same durability.
func durables(ctx context.Context, l *lab) (rows []row, err error) {
	disk, err := fdatasync(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	rows = append(rows, row{Figure: "disk: fdatasync of 4 KiB", Unit: "per second", Ours: 1e6 / disk})
	path := filepath.Join(l.dir, "durable.db")
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			err = errors.Join(err, clean(path+suffix), clean(path+".bare"+suffix))
		}
	}()
	//nolint:gosec // the same events each time
	a := &archive{random: rand.New(rand.NewPCG(1, 2)), time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.people, a.hosts, a.words = rand.NewZipf(a.random, 1.1, 20, 500_000), rand.NewZipf(a.random, 1.3, 4, 200), rand.NewZipf(a.random, 1.1, 10, 20_000)
	if err := a.open(ctx, path); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	bare, err := sqldb.Open(ctx, path+".bare")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()
	if err := execute(ctx, bare, "CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"); err != nil {
		return nil, err
	}
	event, body := a.call(), make([]byte, 450)
	for _, writers := range []int{1, 16, 256} {
		l.say("log: appends of %d writers", writers)
		ours, err := perSecond(ctx, l, writers, func() error {
			_, err := a.log.Append(ctx, event)
			return err
		})
		if err != nil {
			return nil, err
		}
		reference, err := perSecond(ctx, l, writers, func() error {
			return execute(ctx, bare, "INSERT INTO bare (body) VALUES (?)", body)
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, compare(fmt.Sprintf("log: durable appends, %d writers", writers), "per second", ours, reference).
			ratioAtLeast(0.8).noted("the reference is a transaction of bare SQLite"))
	}
	more, err := a.whole(ctx, l)
	return append(rows, more...), err
}

// whole measures what reads the whole log.
func (a *archive) whole(ctx context.Context, l *lab) ([]row, error) {
	n := uint64(pick(l, 1_000_000, 50_000))
	l.say("log: writing %d events", n)
	if err := a.fill(ctx, n); err != nil {
		return nil, err
	}
	if err := a.indexed(ctx); err != nil {
		return nil, err
	}
	n = a.log.Size()
	began := time.Now()
	r, err := a.log.Verify(ctx)
	if err == nil && !r.OK {
		err = errors.New("the log is not whole")
	}
	if err != nil {
		return nil, err
	}
	verified := float64(n) / time.Since(began).Minutes()
	began = time.Now()
	if err := a.log.Export(ctx, io.Discard, audit.ExportOptions{}); err != nil {
		return nil, err
	}
	exported := float64(n) / time.Since(began).Seconds()
	most, err := status("VmHWM")
	return []row{
		row{Figure: "log: verification", Unit: "events/min", Ours: verified}.judged("≥ 1000000 events/min", verified >= 1e6).noted("of %d events, on one core", n),
		{Figure: "log: export", Unit: "events/s", Ours: exported, Note: "a bundle of everything"},
		row{Figure: "log: memory", Unit: "MB", Ours: float64(most) / 1e6}.atMost(200).noted("the most of this process with all of this"),
	}, err
}

// perSecond lets writers do something for a while.
func perSecond(ctx context.Context, l *lab, writers int, do func() error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, pick(l, 8*time.Second, time.Second))
	defer cancel()
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, writers)
	began := time.Now()
	for i := range writers {
		wg.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				if errs[i] = do(); errs[i] == nil {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

func execute(ctx context.Context, db *sqldb.DB, query string, args ...any) error {
	return db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
}

// clean removes a file that may not be there.
func clean(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
