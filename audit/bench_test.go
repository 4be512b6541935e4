package audit_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ambit/internal/sqldb"
)

// processorTime is what this process has used, in nanoseconds.
func processorTime(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// share runs f b.N times, by so many goroutines, and reports processor time.
func share(b *testing.B, writers int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	start := processorTime(b)
	for range writers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				f(int(i))
			}
		})
	}
	wg.Wait()
	b.ReportMetric((processorTime(b)-start)/1000/float64(b.N), "cpu-µs/op")
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			l, closeLog := newHome(b).open()
			defer closeLog()
			share(b, writers, func(i int) {
				if _, err := l.Append(context.Background(), request(i)); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkRecord is the cost of an event when commits are as large as they get.
func BenchmarkRecord(b *testing.B) {
	l, closeLog := newHome(b).open()
	defer closeLog()
	share(b, 1, func(i int) { l.Record(request(i)) })
}

// BenchmarkBareSQLite is the reference: one row of the same size in a
// transaction of its own, with the same durability and nothing else.
func BenchmarkBareSQLite(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			db := newHome(b).db()
			defer db.Close()
			ctx := context.Background()
			exec := func(query string, args ...any) {
				err := db.Write(ctx, func(tx *sqldb.Tx) error {
					_, err := tx.Exec(ctx, query, args...)
					return err
				})
				if err != nil {
					b.Error(err)
				}
			}
			exec("CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")
			body := make([]byte, 450)
			share(b, writers, func(int) { exec("INSERT INTO bare (body) VALUES (?)", body) })
		})
	}
}

// BenchmarkVerify checks 100,000 events again and again; one operation is one
// event.
func BenchmarkVerify(b *testing.B) {
	const n = 100_000
	l, closeLog := newHome(b).open()
	defer closeLog()
	for i := range n {
		l.Record(request(i))
	}
	if _, err := l.Head(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	start := processorTime(b)
	runs := (b.N + n - 1) / n
	for range runs {
		if r, err := l.Verify(context.Background()); err != nil || !r.OK {
			b.Fatal(r, err)
		}
	}
	b.StopTimer()
	b.ReportMetric((processorTime(b)-start)/1000/float64(runs*n), "cpu-µs/event")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/float64(runs*n), "µs/event")
}

// BenchmarkIndex builds the index of 65,536 events again and again; one
// operation is one event.
func BenchmarkIndex(b *testing.B) {
	const n = 65_536
	h := newHome(b)
	h.fill(n)
	b.ResetTimer()
	start := processorTime(b)
	runs := (b.N + n - 1) / n
	for range runs {
		l, closeLog := h.open()
		for l.Index().Built < n {
			time.Sleep(time.Millisecond)
		}
		closeLog()
		h.exec("DELETE FROM audit_index_segment")
		h.exec("DELETE FROM audit_index_page")
	}
	b.StopTimer()
	b.ReportMetric((processorTime(b)-start)/1000/float64(runs*n), "cpu-µs/event")
	b.ReportMetric(float64(runs*n)/b.Elapsed().Seconds(), "events/s")
}
