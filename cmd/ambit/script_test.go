package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if isRunsc(os.Args[0]) {
		runscMain()
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") && filepath.Base(os.Args[0]) != "ambit" {
		// serve starts this binary again as one of its inner roles
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"ambit": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs what is promised of the command line.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			home, err := os.MkdirTemp("", "ambit") // short: a socket's path
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(home) })
			if err := os.Chmod(home, 0o711); err != nil { // agents' users pass through
				return err
			}
			e.Setenv("AMBIT_HOME", filepath.Join(home, "h"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("AMBIT_ADDRESS", "")
			e.Setenv("AMBIT_TOKEN", "")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"waitfor": waitFor, "exits": exits, "bundle": makeBundle},
	})
}
