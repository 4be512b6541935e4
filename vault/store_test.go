package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit/connector"
	"ambit/internal/secretbytes"
)

const (
	tokenA = "tok-CANARY-aaaaaaaaaaaaaaaaaaaaaa"
	tokenB = "tok-CANARY-bbbbbbbbbbbbbbbbbbbbbb"
)

func twoBearers(t testing.TB) *desk {
	return newDesk(t, "{name: bearer, as: one, hosts: [one.example]}", "{name: bearer, as: two, hosts: [two.example]}", "{name: basic, as: three, hosts: [three.example]}")
}

// TestK7RowsOpenOnlyWhereTheyWereSealed (ATTACKS K7): a row that is copied to
// another agent, connection or field, or replaced by its own older copy, does
// not open; nor does one that is edited or cut short. Only its own connection is
// lost, and nothing is deleted.
func TestK7RowsOpenOnlyWhereTheyWereSealed(t *testing.T) {
	const row = "SELECT sealed FROM vault_connection WHERE name = ?"
	const field = "SELECT sealed FROM vault_secret WHERE connection = ? AND field = ?"
	const setRow = "UPDATE vault_connection SET sealed = ? WHERE name = ?"
	const setField = "UPDATE vault_secret SET sealed = ? WHERE connection = ? AND field = ?"
	for name, tamper := range map[string]func(d *desk){
		"field of another connection": func(d *desk) { d.sql(setField, d.blob(field, "two", "token"), "one", "token") },
		"row of another connection":   func(d *desk) { d.sql(setRow, d.blob(row, "two"), "one") },
		"row and fields of another connection": func(d *desk) {
			d.sql(setRow, d.blob(row, "two"), "one")
			d.sql(setField, d.blob(field, "two", "token"), "one", "token")
		},
		"another field": func(d *desk) { d.sql(setField, d.blob(field, "three", "password"), "one", "token") },
		"older field": func(d *desk) {
			old := d.blob(field, "one", "token")
			d.connect("one", "", "token", tokenB)
			d.sql(setField, old, "one", "token")
		},
		"older row": func(d *desk) {
			old := d.blob(row, "one")
			d.connect("one", "", "token", tokenB)
			d.sql(setRow, old, "one")
		},
		"older row with its version": func(d *desk) {
			old := d.blob(row, "one")
			d.connect("one", "", "token", tokenB)
			d.sql(setRow, old, "one")
			d.sql("UPDATE vault_connection SET version = 1 WHERE name = 'one'")
		},
		"field of an earlier life": func(d *desk) {
			old := d.blob(field, "one", "token")
			if _, err := d.v.Revoke(d.t.Context(), "one", person); err != nil {
				d.t.Fatal(err)
			}
			d.connect("one", "", "token", tokenB) // version 1 again
			d.sql(setField, old, "one", "token")
		},
		"cut short":       func(d *desk) { d.sql(setField, d.blob(field, "one", "token")[:20], "one", "token") },
		"empty":           func(d *desk) { d.sql(setField, []byte{}, "one", "token") },
		"version edited":  func(d *desk) { d.sql("UPDATE vault_connection SET version = 7 WHERE name = 'one'") },
		"unknown key":     func(d *desk) { d.sql("UPDATE vault_secret SET key = 9 WHERE connection = 'one'") },
		"field is gone":   func(d *desk) { d.sql("DELETE FROM vault_secret WHERE connection = 'one'") },
		"one bit flipped": func(d *desk) { b := d.blob(row, "one"); b[len(b)/2] ^= 1; d.sql(setRow, b, "one") },
	} {
		t.Run(name, func(t *testing.T) {
			d := twoBearers(t)
			d.connect("one", "", "token", tokenA)
			d.connect("two", "", "token", tokenB)
			d.connect("three", "", "user", "somebody", "password", "pass-CANARY-1")
			tamper(d)
			d.reopen()
			if got := d.value("one", "token"); !strings.HasPrefix(got, "error: the account is not connected: its row in the database does not open") {
				t.Errorf("the token is %q", got)
			}
			if s := d.status("one"); s.Status != StatusNotConnected || !strings.Contains(s.Reason, "connect it again") {
				t.Errorf("the status is %+v", s)
			}
			if raised := d.alerts.all(); len(raised) != 1 || !strings.Contains(raised[0], "credential-damaged one") {
				t.Errorf("alerts: %q", raised)
			}
			d.want("two", "token", tokenB)
			d.want("three", "password", "pass-CANARY-1")
			d.connect("one", "", "token", tokenA)
			d.reopen()
			d.want("one", "token", tokenA)
		})
	}
}

// TestK7DatabaseOfAnotherAgent (ATTACKS K7): a database that is copied to
// another agent, or opened with other keys, is refused as a whole, and works
// again where it belongs.
func TestK7DatabaseOfAnotherAgent(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	for name, change := range map[string]func(){
		"agent": func() { d.agent = "other" },
		"key":   func() { d.keys = []byte{77} },
	} {
		agent, keys := d.agent, d.keys
		d.close()
		d.v = nil
		change()
		if err := d.tryOpen(); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("another %s: %v", name, err)
		}
		d.agent, d.keys = agent, keys
		d.close()
		d.open()
		d.want("one", "token", tokenA)
	}
}

func TestKeysAreChecked(t *testing.T) {
	key := func(version, length int) Key {
		return Key{version, secretbytes.New(bytes.Repeat([]byte{1}, length))}
	}
	for name, c := range map[string]struct {
		keys []Key
		want string
	}{
		"none": {nil, "no key"}, "short": {[]Key{key(1, 16)}, "32 bytes"}, "version 0": {[]Key{key(0, 32)}, "from 1"}, "twice": {[]Key{key(1, 32), key(1, 32)}, "twice"},
	} {
		if _, err := newSeals(c.keys, &memory{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, k := range c.keys {
			if k.Bytes.Len() != 0 {
				t.Errorf("%s: a key was not wiped", name)
			}
		}
	}
}

// TestStoredIsForTheSameAccount: what was given for one account is used for no
// other that gets its name.
func TestStoredIsForTheSameAccount(t *testing.T) {
	d := newDesk(t, "{name: shopify, as: shop, account: acme}", "{name: bearer, as: own, hosts: [one.example]}")
	d.connect("shop", "token", "token", "shpat_0123456789abcdef0123456789abcdef")
	d.connect("own", "", "token", tokenA)
	rebind := func(lines ...string) {
		t.Helper()
		d.bound = bindings(t, lines...)
		if err := d.v.Bind(d.bound); err != nil {
			t.Fatal(err)
		}
	}
	rebind("{name: shopify, as: shop, account: evil}", "{name: bearer, as: own, hosts: [evil.example]}")
	for name, field := range map[string]string{"shop": "token", "own": "token"} {
		d.want(name, field, "error: the account is not connected")
		if s := d.status(name); s.Status != StatusNotConnected || !strings.Contains(s.Reason, "another account") {
			t.Errorf("%+v", s)
		}
	}
	rebind("{name: bearer, as: shop, hosts: [shop.example]}", "{name: header, as: own, hosts: [one.example]}")
	d.want("shop", "token", "error: the account is not connected")
	d.want("own", "key", "error: the account is not connected")
	rebind("{name: shopify, as: shop, account: acme}", "{name: bearer, as: own, hosts: [one.example]}")
	d.want("shop", "token", "shpat_0123456789abcdef0123456789abcdef")
	d.want("own", "token", tokenA)
}

// TestStoreAgainstModel connects, replaces, revokes, re-keys, starts again and
// lets the disk fail, in any order, against a map.
func TestStoreAgainstModel(t *testing.T) {
	names := []string{"one", "two", "three"}
	rapid.Check(t, func(rt *rapid.T) {
		d := twoBearers(t)
		t.Cleanup(func() { d.log.text.Reset() }) // the next ones must not search all of it again
		model := map[string]map[string]string{}
		n := 0
		failing := func() bool { return rapid.IntRange(0, 4).Draw(rt, "the disk fails") == 0 }
		steps := map[string]func(*rapid.T){
			"connect": func(rt *rapid.T) {
				n++
				name := rapid.SampledFrom(names).Draw(rt, "name")
				fields := map[string]string{"token": fmt.Sprintf("%s-%d", tokenA, n)}
				if name == "three" {
					fields = map[string]string{"user": fmt.Sprintf("user-%06d", n), "password": fmt.Sprintf("pass-CANARY-%d", n)}
				}
				q := ConnectRequest{Name: name, Fields: map[string]secretbytes.Bytes{}}
				for k, v := range fields {
					q.Fields[k] = secretbytes.New([]byte(v))
				}
				fails := failing()
				d.breakDisk(fails)
				_, err := d.v.Connect(t.Context(), q, person)
				d.breakDisk(false)
				if (err != nil) != fails {
					rt.Fatalf("connect: %v", err)
				}
				if err == nil {
					model[name] = fields
				}
			},
			"revoke": func(rt *rapid.T) {
				name := rapid.SampledFrom(append(names, "")).Draw(rt, "name")
				want := model[name] != nil || name == ""
				done, err := d.v.Revoke(t.Context(), name, person)
				if (err == nil) != want || name == "" && len(done) != len(model) {
					rt.Fatalf("revoke %q of %v: %v, %v", name, model, done, err)
				}
				delete(model, name)
				if name == "" {
					clear(model)
				}
			},
			"rekey": func(rt *rapid.T) {
				d.keys = append(d.keys, byte(len(d.keys)+1))
				fails := failing() && len(model) > 0
				d.breakDisk(fails)
				err := d.v.Rekey(t.Context(), d.ring(), person)
				d.breakDisk(false)
				if (err != nil) != fails {
					rt.Fatalf("rekey: %v", err)
				}
			},
			"start again": func(*rapid.T) { d.reopen() },
			"": func(rt *rapid.T) {
				var connected []string
				for _, c := range d.v.Connections() {
					if c.Status == StatusConnected {
						connected = append(connected, c.Name)
					}
				}
				slices.Sort(connected)
				if want := slices.Sorted(maps.Keys(model)); !slices.Equal(connected, want) {
					rt.Fatalf("connected are %v, want %v", connected, want)
				}
				for name, fields := range model {
					for field, value := range fields {
						if got := d.value(name, field); got != value {
							rt.Fatalf("%s of %s is %q, want %q", field, name, got, value)
						}
					}
				}
			},
		}
		rt.Repeat(steps)
		d.close()
		d.open() // the cleanup closes it once more
	})
}

// breakDisk makes the last write of a transaction fail, and mends it.
func (d *desk) breakDisk(broken bool) {
	if broken {
		d.sql("CREATE TRIGGER broken AFTER INSERT ON vault_secret BEGIN SELECT RAISE(ABORT, 'input/output error'); END")
		return
	}
	d.sql("DROP TRIGGER IF EXISTS broken")
}

func TestStoreClosed(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	b := d.v.state.Load().named("one")
	if err := d.v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.v.value(t.Context(), b, "token"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("a value after Close: %v", err)
	}
	if _, err := d.v.Connect(t.Context(), d.request("one", "", "token", tokenB), person); !errors.Is(err, errClosed) {
		t.Errorf("connecting after Close: %v", err)
	}
	if err := d.v.Rekey(t.Context(), []Key{{2, secretbytes.New(make([]byte, 32))}}, person); !errors.Is(err, errClosed) {
		t.Errorf("rekeying after Close: %v", err)
	}
}

// TestValueOf10000 has as many connections as an operator may.
func BenchmarkValueOf10000(b *testing.B) {
	d := twoBearers(b)
	template := d.bound[0]
	d.bound = nil
	for i := range 10_000 {
		one := *template
		one.Name = fmt.Sprintf("c%d", i)
		one.Hosts = []connector.Host{{Name: one.Name + ".example", Ports: []uint16{443}, Auth: template.Hosts[0].Auth}}
		d.bound = append(d.bound, &one)
	}
	if err := d.v.Bind(d.bound); err != nil {
		b.Fatal(err)
	}
	for _, one := range d.bound {
		q := ConnectRequest{Name: one.Name, Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(tokenA))}}
		if _, err := d.v.Connect(b.Context(), q, person); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			d.reopen()
		}
	})
	bound := d.v.state.Load().bound
	b.Run("value", func(b *testing.B) {
		i := 0
		for b.Loop() {
			s, err := d.v.value(b.Context(), bound[i%len(bound)], "token")
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Discard.Write(s.Reveal())
			s.Wipe()
			i++
		}
	})
	version := 1
	b.Run("rekey", func(b *testing.B) {
		for b.Loop() {
			version++
			if err := d.v.Rekey(b.Context(), []Key{{version, secretbytes.New(bytes.Repeat([]byte{1}, 32))}}, person); err != nil {
				b.Fatal(err)
			}
		}
	})
	d.keys = bytes.Repeat([]byte{1}, version) // for who opens it next
}
