package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/internal/sqldb"
)

// The test binary runs itself as a child for what must happen to a whole
// process; this variable names the part to play.
const rolePlay = "AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(rolePlay) {
	case "":
		os.Exit(m.Run())
	case "append":
		err = appendUntilKilled(os.Args[1])
	case "erase":
		err = eraseUntilKilled(os.Args[1])
	case "disk":
		err = fillDisk(os.Args[1])
	case "journal":
		err = fillJournal(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, role string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), rolePlay+"="+role)
	return cmd
}

func openAt(path string) (*sqldb.DB, *audit.Log, error) {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	l, err := audit.Open(ctx, audit.Config{DB: db, Agent: "support", Keys: audit.Keys{Body: key(1), Sign: key(2)}, Create: true})
	return db, l, err
}

// appendUntilKilled appends with many writers and prints, for each event that
// was acknowledged, its position and its text.
func appendUntilKilled(path string) error {
	_, l, err := openAt(path)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				e := request(i)
				e.Intent = fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
				seq, err := l.Append(context.Background(), e)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				mu.Lock()
				fmt.Printf("%d %s\n", seq, e.Intent)
				mu.Unlock()
				l.Record(outcome(seq, 200))
			}
		})
	}
	wg.Wait()
	return errors.New("nobody killed this process")
}

// L2: the process is killed under load at random moments, again and again.
// Everything that was acknowledged is there, once, in its place.
func TestL2KilledUnderLoad(t *testing.T) {
	h := newHome(t)
	acked := map[uint64]string{}
	var heads [][]byte
	for range 8 {
		cmd := child(t, "append", h.path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		enough := 1 + rand.IntN(400)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			seq, text, ok := strings.Cut(lines.Text(), " ")
			at, err := strconv.ParseUint(seq, 10, 64)
			if !ok || err != nil || strings.Count(text, "/") != 2 {
				break // the line that the kill cut off
			}
			if other, ok := acked[at]; ok {
				t.Fatalf("position %d was given to %q and to %q", at, other, text)
			}
			acked[at] = text
			if n == enough {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Process.Kill() // if it was not yet
		_ = cmd.Wait()
		r := h.verify(heads...)
		if !r.OK {
			t.Fatalf("after a kill: %+v", r)
		}
		heads = append(heads, h.fill(0).Note)
	}
	l, closeLog := h.open()
	defer closeLog()
	seen := map[string]bool{}
	var events []ambit.Event
	for {
		var q audit.Query
		if n := len(events); n > 0 {
			q.After = &events[n-1].Seq
		}
		part, err := l.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		events = append(events, part...)
	}
	for i, e := range events {
		if e.Seq != uint64(i) {
			t.Fatalf("event %d has position %d", i, e.Seq)
		}
		if e.Kind == ambit.KindEgressRequest {
			if seen[e.Intent] {
				t.Errorf("%q is there twice", e.Intent)
			}
			seen[e.Intent] = true
		}
	}
	for seq, text := range acked {
		if seq >= uint64(len(events)) || events[seq].Intent != text {
			t.Errorf("acknowledged event %d, %q, is not in its place", seq, text)
		}
	}
	t.Logf("%d acknowledged, %d found", len(acked), len(events))
}

// L2: the disk is full. A small file system is mounted where only the child
// sees it.
func TestL2DiskFull(t *testing.T) { onSmallDisk(t, "disk") }

// L2: the same for the journal, on a file system where overwriting takes room
// (one that copies on write): the file gets holes while the log is open.
func TestL2DiskFullUnderTheJournal(t *testing.T) { onSmallDisk(t, "journal") }

func onSmallDisk(t *testing.T, role string) {
	dir := t.TempDir()
	cmd := child(t, role, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "mounting: operation not permitted") {
		t.Skip("this machine does not let this user mount a file system of their own")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func fillDisk(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, l, err := openAt(filepath.Join(dir, "agent.db"))
	if err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	var acked uint64
	for round := range 3 {
		for range 20 { // all goes well
			if acked, err = l.Append(ctx, request(round)); err != nil {
				return err
			}
		}
		before, err := l.Head(ctx)
		if err != nil {
			return err
		}
		if err := fill(ballast); err != nil {
			return err
		}
		// What SQLite holds in reserve is used up first.
		refused := 0
		for n := 0; refused < 30 && n < 20_000; n++ {
			seq, err := l.Append(ctx, request(round))
			switch {
			case errors.Is(err, sqldb.ErrFull):
				refused++
				if refused == 1 {
					l.Record(outcome(acked, 201+round)) // must not be lost
				}
			case err != nil:
				return fmt.Errorf("with a full disk: %w", err)
			default:
				acked = seq
			}
		}
		if refused == 0 {
			return errors.New("the disk never became full")
		}
		if size := l.Size(); size != acked+1 {
			return fmt.Errorf("the log has %d events, acknowledged are %d", size, acked+1)
		}
		if err := os.Remove(ballast); err != nil {
			return err
		}
		seq, err := l.Append(ctx, request(round))
		if err != nil {
			return fmt.Errorf("with room again: %w", err)
		}
		if seq != acked+2 { // the recorded outcome came first
			return fmt.Errorf("position %d after %d", seq, acked)
		}
		calls, err := l.Calls(ctx, audit.CallQuery{})
		if err != nil {
			return err
		}
		if c := calls[len(calls)-2]; c.Seq != acked || c.Status != 201+round {
			return fmt.Errorf("the recorded outcome is lost: %+v", c)
		}
		r, err := l.Verify(ctx, before.Note)
		if err != nil || !r.OK {
			return fmt.Errorf("%+v, %w", r, err)
		}
		fmt.Printf("round %d: %d refused, %d events\n", round, refused, r.Size)
	}
	return errors.Join(l.Close(ctx), db.Close())
}

func fillJournal(dir string) error {
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m")); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, l, err := openAt(filepath.Join(dir, "agent.db"))
	if err != nil {
		return err
	}
	if _, err := l.Append(ctx, request(0)); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "agent.journal"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	const keepSize, punchHole = 1, 2
	if err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, 16<<10, 1<<20); err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := fill(ballast); err != nil {
		return err
	}
	acked, refused := 0, 0
	for n := 1; refused < 30 && n < 20_000; n++ {
		switch seq, err := l.Append(ctx, request(n)); {
		case errors.Is(err, sqldb.ErrFull) && strings.Contains(err.Error(), "agent.journal"):
			if refused++; refused == 1 {
				l.Record(outcome(uint64(acked), 207)) // must not be lost
			}
		case err != nil:
			return fmt.Errorf("with a full disk: %w", err)
		default:
			acked = int(seq)
		}
	}
	if refused < 30 || l.Size() != uint64(acked)+1 {
		return fmt.Errorf("%d refused, acknowledged are %d, the log has %d", refused, acked+1, l.Size())
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	seq, err := l.Append(ctx, request(0))
	if err != nil || seq != uint64(acked)+2 { // the recorded outcome came first
		return fmt.Errorf("with room again: position %d after %d: %w", seq, acked, err)
	}
	r, err := l.Verify(ctx)
	if err != nil || !r.OK || r.Size != seq+1 {
		return fmt.Errorf("%+v, %w", r, err)
	}
	return errors.Join(f.Close(), l.Close(ctx), db.Close())
}

// fill takes all room on the file system.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, size := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}
