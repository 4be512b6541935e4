package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ambit"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// waitFor waits until something answers on a Unix socket.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("unix", args[0])
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nothing answers at %s: %v", args[0], err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// exits runs a command and wants this exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// makeBundle makes the log of an agent, of whom three events were erased, and
// exports it: NAME.tar, NAME.vkey, NAME.head of its beginning, and bad.tar, of
// which one event was changed.
func makeBundle(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	name := args[0]
	db, err := sqldb.Open(ctx, ts.MkAbs(name+".db"))
	ts.Check(err)
	secret := func(b byte) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{b}, 32)) }
	l, err := audit.Open(ctx, audit.Config{DB: db, Agent: ambit.AgentID(name), Keys: audit.Keys{Body: secret(1), Sign: secret(2)}, Create: true})
	ts.Check(err)
	for range 30 {
		l.Record(ambit.Event{Kind: ambit.KindAlert, Principal: ambit.PrincipalAmbit, Detail: "something happened"})
	}
	head, err := l.Head(ctx)
	ts.Check(err)
	_, err = l.Erase(ctx, "uid:1000", "subject", [][2]uint64{{3, 6}}, nil)
	ts.Check(err)
	var b bytes.Buffer
	ts.Check(l.Export(ctx, &b, audit.ExportOptions{}))
	for file, data := range map[string][]byte{
		name + ".tar": b.Bytes(), name + ".vkey": []byte(l.VerifierKey() + "\n"), name + ".head": head.Note,
		"bad.tar": bytes.Replace(b.Bytes(), []byte("something happened"), []byte("something hapqened"), 1),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(file), data, 0o600))
	}
	ts.Check(errors.Join(l.Close(ctx), db.Close()))
}
