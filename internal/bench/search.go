//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// eventRoom is the disk that each event of a log needs, in bytes, with the index
// built anew beside the old one.
const eventRoom = 900

// archive is a log that is searched.
type archive struct {
	db     *sqldb.DB
	log    *audit.Log
	random *rand.Rand
	time   time.Time // of the next event
	people *rand.Zipf
	hosts  *rand.Zipf
	words  *rand.Zipf
}

// searches measures a large log: how fast it is searched, and what its index
// costs. The reference is reading every event.
func searches(ctx context.Context, l *lab) ([]row, error) {
	n := uint64(pick(l, 10_000_000, 150_000))
	var disk unix.Statfs_t
	if err := unix.Statfs(l.dir, &disk); err != nil {
		return nil, err
	}
	note := ""
	if room := disk.Bavail * uint64(disk.Bsize) / 2 / eventRoom; n > room {
		n, note = room, "there is disk for that many only"
	}
	path := filepath.Join(l.dir, "search.db")
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(path + suffix)
		}
	}()
	//nolint:gosec // the same events each time
	a := &archive{random: rand.New(rand.NewPCG(1, 2)), time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.people = rand.NewZipf(a.random, 1.1, 20, 500_000)
	a.hosts = rand.NewZipf(a.random, 1.3, 4, 200)
	a.words = rand.NewZipf(a.random, 1.1, 10, 20_000)
	if err := a.open(ctx, path); err != nil {
		return nil, err
	}
	defer func() { _ = a.close() }()
	rate, err := a.buildRate(ctx, l, path, n/10)
	if err != nil {
		return nil, err
	}
	l.say("search: writing %d events", n)
	if err := a.fill(ctx, n); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := a.indexed(ctx); err != nil {
		return nil, err
	}
	l.say("search: %v until the index had all", time.Since(began).Round(time.Millisecond))
	rows, err := a.measure(ctx, l, n)
	if err != nil {
		return nil, err
	}
	size, index, err := a.sizes(ctx)
	if err != nil {
		return nil, err
	}
	return append(rows,
		row{Figure: "search: log and index", Unit: "bytes/event", Ours: float64(size) / float64(n)}.atMost(700).noted("of it the index %.0f; %d events%s", float64(index)/float64(n), n, note),
		row{Figure: "search: building the index", Unit: "events/s", Ours: rate}.judged("≥ 30000 events/s", rate >= 30_000),
	), nil
}

func (a *archive) open(ctx context.Context, path string) (err error) {
	if a.db, err = sqldb.Open(ctx, path); err != nil {
		return err
	}
	key := func() secretbytes.Bytes { return secretbytes.New([]byte(strings.Repeat("k", 32))) }
	a.log, err = audit.Open(ctx, audit.Config{
		DB: a.db, Agent: "bench", Keys: audit.Keys{Body: key(), Sign: key()}, Create: true, Clock: func() time.Time { return a.time },
	})
	return err
}

func (a *archive) close() error {
	return errors.Join(a.log.Close(context.Background()), a.db.Close())
}

// buildRate writes n events and builds their index anew.
func (a *archive) buildRate(ctx context.Context, l *lab, path string, n uint64) (float64, error) {
	l.say("search: the index of %d events", n)
	if err := a.fill(ctx, n); err != nil {
		return 0, err
	}
	if err := a.log.Close(ctx); err != nil {
		return 0, err
	}
	err := a.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM audit_index_segment")
		_, perr := tx.Exec(ctx, "DELETE FROM audit_index_page")
		return errors.Join(err, perr)
	})
	if err := errors.Join(err, a.db.Close()); err != nil {
		return 0, err
	}
	if err := a.open(ctx, path); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := a.indexed(ctx); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// fill brings the log to n events.
func (a *archive) fill(ctx context.Context, n uint64) error {
	at := a.log.Size()
	for at < n && ctx.Err() == nil {
		a.time = a.time.Add(time.Duration(a.random.IntN(3000)) * time.Millisecond)
		e := a.call()
		a.log.Record(e)
		if at++; e.Decision == ambit.Allow {
			a.log.Record(a.outcome(at-1, e.Host))
			at++
		}
	}
	_, err := a.log.Head(ctx) // all is durable
	return err
}

// indexed waits until the index is as far as it goes.
func (a *archive) indexed(ctx context.Context) error {
	if _, err := a.log.Search(ctx, audit.Query{Limit: 1}); err != nil { // all is in the database
		return err
	}
	for {
		s := a.log.Index()
		if s.Error != "" {
			return errors.New(s.Error)
		}
		if s.Built+4096 > s.Events {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (a *archive) person() ambit.Subject {
	return ambit.Subject{Kind: "email", Value: "person" + strconv.FormatUint(a.people.Uint64(), 10) + "@mail.example"}
}

func (a *archive) host() string {
	return "api.service" + strconv.FormatUint(a.hosts.Uint64(), 10) + ".example"
}

func (a *archive) word() string { return "word" + strconv.FormatUint(a.words.Uint64(), 36) }

func (a *archive) call() ambit.Event {
	e := ambit.Event{
		Kind: ambit.KindEgressRequest, Principal: ambit.PrincipalAgent, Action: ambit.ActionHTTP, Method: "GET", Host: a.host(),
		Decision: ambit.Allow, Rule: "egress.allow[" + strconv.Itoa(a.random.IntN(20)) + "]", Effects: []ambit.Effect{ambit.EffectRead}, Connection: "shop",
		Intent: "look up the order of " + a.word() + " " + a.word() + " " + a.word(),
	}
	e.URL = fmt.Sprintf("https://%s/v1/orders/%d?expand=lines", e.Host, a.random.IntN(10_000_000))
	switch a.random.IntN(20) {
	case 0, 1, 2:
		e.Method, e.Effects = "POST", []ambit.Effect{ambit.EffectWrite}
	case 3:
		e.Decision, e.Rule = ambit.Deny, ""
		e.Reason = &ambit.Reason{Code: "host-not-allowed", Text: "no rule allows this host", Remedy: "add a rule for it"}
	}
	if a.random.IntN(4) == 0 {
		e.Touched = []ambit.Subject{a.person()}
	}
	return e
}

func (a *archive) outcome(of uint64, host string) ambit.Event {
	e := ambit.Event{
		Kind: ambit.KindEgressOutcome, Principal: ambit.PrincipalAmbit, Of: &of, Action: ambit.ActionHTTP, Host: host, Decision: ambit.Allow,
		Status: 200, BytesOut: 120, BytesIn: int64(a.random.IntN(20_000)), Duration: time.Duration(a.random.IntN(300)) * time.Millisecond,
	}
	if a.random.IntN(50) == 0 {
		e.Status = 500
	}
	for range a.random.IntN(3) {
		e.Touched = append(e.Touched, a.person())
	}
	return e
}

// measure asks the log many questions of each sort.
func (a *archive) measure(ctx context.Context, l *lab, n uint64) ([]row, error) {
	search := func(f func(q *audit.Query)) func() (int, error) {
		return func() (int, error) {
			q := audit.Query{Limit: 100, Newest: true}
			f(&q)
			found, err := a.log.Find(ctx, q)
			return len(found), err
		}
	}
	trace := func(whom func() ambit.Subject) func() (int, error) {
		return func() (int, error) {
			found, err := a.log.Trace(ctx, []ambit.Subject{whom()}, audit.Query{})
			return len(found.Touches), err
		}
	}
	sorts := []struct {
		name string
		ask  func() (int, error)
	}{
		{"an order number", search(func(q *audit.Query) { q.Text = strconv.Itoa(a.random.IntN(10_000_000)) })},
		{"words of an intent", search(func(q *audit.Query) { q.Intent = a.word() + " " + a.word() })},
		{"a host and a word", search(func(q *audit.Query) { q.Hosts, q.Text = []string{a.host()}, a.word() })},
		{"failed writes to a host", search(func(q *audit.Query) {
			q.Statuses, q.Hosts, q.Effects = []int{500}, []string{a.host()}, []ambit.Effect{ambit.EffectWrite}
		})},
		{"what is common and never together", search(func(q *audit.Query) {
			q.Text, q.Statuses, q.Decision = "lines order", []int{200}, new(ambit.Decision)
		})},
		{"trace of a person", trace(a.person)},
		{"trace of the most frequent person", trace(func() ambit.Subject { return ambit.Subject{Kind: "email", Value: "person0@mail.example"} })},
	}
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600) // the most memory so far is forgotten (proc(5))
	scan, err := a.scan(ctx, l, n)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, s := range sorts {
		l.say("search: %s", s.name)
		var times []float64
		hits := 0
		for range pick(l, 200, 20) {
			began := time.Now()
			found, err := s.ask()
			if err != nil {
				return nil, err
			}
			times = append(times, millis(time.Since(began)))
			hits += found
		}
		rows = append(rows, compare("search: "+s.name, "ms", percentile(times, 0.99), scan).atMost(1000).
			noted("p99; half take %s ms; %.1f found; reference: reading every event", number(median(times)), float64(hits)/float64(len(times))))
	}
	most, err := status("VmHWM")
	return append(rows, row{Figure: "search: memory", Unit: "MB", Ours: float64(most) / 1e6}.atMost(200).noted("the most of this process while it searches %d events", n)), err
}

// scan is how long it takes to read every event, in milliseconds, taken from
// the last million.
func (a *archive) scan(ctx context.Context, l *lab, n uint64) (float64, error) {
	part := min(n, 1_000_000)
	l.say("search: reading %d events", part)
	q := audit.Query{ReadAll: true, Text: "nothing of the kind"}
	if part < n {
		after := n - part - 1
		q.After = &after
	}
	began := time.Now()
	_, err := a.log.Find(ctx, q)
	return millis(time.Since(began)) * float64(n) / float64(part), err
}

// sizes are the bytes of the database, and of the index in it.
func (a *archive) sizes(ctx context.Context) (all, index int64, err error) {
	if err := a.close(); err != nil { // what is in the write-ahead log comes into the file
		return 0, 0, err
	}
	if a.db, err = sqldb.Open(ctx, a.db.Path()); err != nil {
		return 0, 0, err
	}
	err = a.db.QueryRow(ctx, "SELECT (SELECT sum(length(sealed)) FROM audit_index_page), (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size", nil, &index, &all)
	return all, index, err
}

// status is a size of this process, in bytes.
func status(name string) (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name+":" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}
