package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"ambit/agent"
	"ambit/internal/secretbytes"
	"ambit/kek"
	"ambit/server"
	"ambit/server/fleet"
)

// closePatience is how long workers and computers have to be let go of.
const closePatience = 30 * time.Second

func (a *app) serveCommands() []*cobra.Command {
	var listen, passphrase string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane",
		Long: "Run the control plane: it keeps the agents in its home, runs them, and answers the other commands. There is one for each home. Ctrl-C ends it in good order.\n\n" +
			"The API is on a socket in the home; --listen adds a loopback port, which needs the token in run/token.",
		Example: "ambit serve\nambit serve --home /srv/ambit --listen 127.0.0.1:7400",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), listen, passphrase) },
	}
	c.Flags().StringVar(&listen, "listen", "", "also answer on this loopback address: 127.0.0.1:7400")
	c.Flags().StringVar(&passphrase, "passphrase-file", "", passphraseHelp)
	return []*cobra.Command{c, a.demoCommand()}
}

func (a *app) serve(ctx context.Context, listen, passphrase string) (err error) {
	if a.home == "" {
		return usageError{errors.New("there is no home folder for this user: say where with --home")}
	}
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	if a.json {
		log = slog.New(slog.NewJSONHandler(a.stderr, nil))
	}
	if err := secretbytes.HideProcess(); err != nil {
		return err
	}
	home, err := server.OpenHome(a.home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	store, err := agent.Open(ctx, agent.Config{Home: home.Dir, OwnUID: os.Geteuid() == 0, Unlock: kek.Unlock{
		Passphrase: func(ctx context.Context) (secretbytes.Bytes, error) {
			return a.passphrase(ctx, passphraseFile(passphrase), "Passphrase of the root key of "+home.Dir+": ", false)
		},
		Keeper: kek.Program{},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	controlLog, err := server.OpenControlLog(ctx, home.Dir, store, programVersion())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, controlLog.Close(context.WithoutCancel(ctx))) }()
	listeners, err := server.Listen(home, listen)
	if err != nil {
		return err
	}
	defer func() { _ = listeners.Close() }() // after Serve there is nothing left to close
	agents, err := fleet.Open(ctx, fleet.Config{Home: home.Dir, Store: store, Version: programVersion(), Log: log, Never: listeners.Ports()})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // ended before it began, in good order
	}
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
		defer cancel()
		err = errors.Join(err, agents.Close(end))
	}()
	s, err := server.New(server.Config{
		Store: store, Runner: agents, Workers: agents, Version: programVersion(), Connectors: server.ConnectorsDir(home.Dir), Log: log,
		ControlLog: controlLog,
		NotifyState: filepath.Join(home.Dir, "notify.json"),
	})
	if err != nil {
		return err
	}
	for _, address := range listeners.Addresses() {
		if err := a.print("ambit serve answers at %s", address); err != nil {
			return fmt.Errorf("saying where it answers: %w", err)
		}
	}
	return s.Serve(ctx, listeners)
}
