package vault

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ambit/internal/secretbytes"
)

// within says whether b is in the vault's arena. Which is locked and left out of
// dumps: see the tests of package secretbytes.
func (d *desk) within(b []byte) bool {
	first := d.v.store.memory.room(1) // the lowest place, if nothing else is in it
	defer first.Wipe()
	base, at := uintptr(unsafe.Pointer(&first.Reveal()[0])), uintptr(unsafe.Pointer(&b[0]))
	return at >= base&^0xfff && at+uintptr(len(b)) <= base&^0xfff+arenaSize
}

// Whatever the vault opens is in locked memory, and zeros when it is done with.
func TestValuesAreInLockedMemory(t *testing.T) {
	d := newDesk(t, "gmail", "{name: bearer, as: one, hosts: [one.example]}")
	newGoogle(d)
	d.login()
	d.connect("one", "", "token", tokenA)
	if live := d.v.Live(); live != 0 {
		t.Errorf("%d values are open, and nobody uses one", live)
	}
	for _, c := range []struct{ name, secret string }{
		{"one", "token"}, {"gmail", "access_token"}, // as it is stored, and by way of the refresher
	} {
		value, err := d.v.value(t.Context(), d.v.state.Load().named(c.name), c.secret)
		if err != nil {
			t.Fatal(err)
		}
		b := value.Reveal()
		if !d.within(b) || bytes.Count(b, []byte{0}) > 0 {
			t.Errorf("%s of %s is not in locked memory", c.secret, c.name)
		}
		value.Wipe()
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s of %s was not wiped", c.secret, c.name)
		}
	}
	d.notOpened(t)
	conn := d.v.connected(d.v.state.Load().named("one"))
	s, err := d.v.scrubberOf(d.v.state.Load().named("one"), conn)
	if err != nil {
		t.Fatal(err)
	}
	if live := d.v.Live(); live != 1 {
		t.Errorf("%d values are open, want the search for what is to be scrubbed", live)
	}
	d.v.leases.cut("one")
	if d.v.Live() != 1 {
		t.Error("the search was wiped in use")
	}
	d.v.leases.release(s)
	if live := d.v.Live(); live != 0 {
		t.Errorf("%d values are open after the end", live)
	}
}

// A row that does not open leaves nothing behind.
func (d *desk) notOpened(t *testing.T) {
	t.Helper()
	c := d.v.store.connection("one")
	for _, text := range [][]byte{nil, make([]byte, 27), make([]byte, 100), c.fields["token"].text[1:]} {
		if s, err := (sealed{c.row.seal, text}).open(place{}); err == nil || s.Len() != 0 || d.v.Live() != 0 {
			t.Errorf("a row of %d bytes opened: %v", len(text), err)
		}
	}
}

// Without room, or without an arena at all, values are on the heap, and that is
// said once.
func TestValuesWithoutRoom(t *testing.T) {
	var said bytes.Buffer
	m := newMemory(4096, slog.New(slog.NewTextHandler(&said, nil)))
	said.Reset() // of what this machine permits
	most := m.room(4096)
	for range 2 {
		s := m.take([]byte(tokenA))
		if string(s.Reveal()) != tokenA {
			t.Errorf("without room: %q", s.Reveal())
		}
		b := s.Reveal()
		s.Wipe()
		if !bytes.Equal(b, make([]byte, len(tokenA))) || s.Len() != 0 {
			t.Error("without room it is not wiped")
		}
	}
	if n := strings.Count(said.String(), "\n"); n != 1 || !strings.Contains(said.String(), "no room for a credential") {
		t.Errorf("said: %s", &said)
	}
	most.Wipe()
	if s := m.take([]byte(tokenA)); m.arena.Live() != 1 {
		t.Error("room that was given back is not used")
	} else {
		s.Wipe()
	}
	if s := (&memory{}).take([]byte(tokenA)); string(s.Reveal()) != tokenA {
		t.Error("without an arena")
	}
	if err := m.arena.Close(); err != nil {
		t.Error(err)
	}
}

// Where the system does not let memory be locked, the vault works, and says that it
// is not.
func TestValuesWithoutLock(t *testing.T) {
	d := newDesk(t, "{name: bearer, as: one, hosts: [one.example]}")
	d.connect("one", "", "token", tokenA)
	d.close()
	d.lines.text.Reset()
	lifted := forbidLocking(t)
	d.open() // the cleanup closes it
	lifted()
	if !strings.Contains(d.lines.text.String(), "RLIMIT_MEMLOCK is too small") || d.v.store.memory.arena.Locked() {
		t.Errorf("said: %s", d.lines.text.String())
	}
	d.want("one", "token", tokenA)
}

// forbidLocking takes this thread the right to lock memory, until lifted is called.
func forbidLocking(t *testing.T) (lifted func()) {
	t.Helper()
	runtime.LockOSThread()
	var limit unix.Rlimit
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before, after [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		t.Fatal(err)
	}
	after = before
	after[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &after[0]); err != nil {
		t.Fatal(err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			t.Error(err)
		}
		if err := unix.Capset(&header, &before[0]); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	}
}

// BenchmarkOpen is a credential of 40 bytes: opened, and wiped.
func BenchmarkOpen(b *testing.B) {
	m := newMemory(arenaSize, slog.New(slog.DiscardHandler))
	defer func() { _ = m.arena.Close() }()
	s, err := newSeal(Key{1, secretbytes.New(make([]byte, 32))}, m)
	if err != nil {
		b.Fatal(err)
	}
	at := place{agent: "support", connection: "github", life: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", field: "token", version: 1}
	row := s.close(at, make([]byte, 40))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			value, err := row.open(at)
			if err != nil {
				b.Error(err)
			}
			value.Wipe()
		}
	})
}
