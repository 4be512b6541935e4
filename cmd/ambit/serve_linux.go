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
	"ambit/alert/notify"
	"ambit/audit/sink/outputs"
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
	out, err := readOutputs(home.Dir)
	if err != nil {
		return err
	}
	sinks, err := server.OpenSinks(ctx, home.Dir, out.Sinks, programVersion())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sinks.Close()) }()
	listeners, err := server.Listen(home, listen)
	if err != nil {
		return err
	}
	defer func() { _ = listeners.Close() }() // after Serve there is nothing left to close
	agents, err := fleet.Open(ctx, fleet.Config{Home: home.Dir, Store: store, Version: programVersion(), Log: log, Never: listeners.Ports(), Delivered: sinks.Delivered})
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
	config := server.Config{
		Store: store, Runner: agents, Workers: agents, Version: programVersion(), Connectors: server.ConnectorsDir(home.Dir), Log: log,
		ControlLog:  controlLog,
		NotifyState: filepath.Join(home.Dir, "notify.json"), Notify: notified(out.Notify), Sinks: sinks, Wiped: server.WipedDir(home.Dir),
	}
	for _, w := range out.Witnesses {
		config.Witnesses = append(config.Witnesses, server.Witness{Key: w.Key, URL: w.URL})
	}
	if out.Heads != nil {
		config.Heads = server.Heads{Folder: out.Heads.Folder, Every: out.Heads.Every}
	}
	s, err := server.New(config)
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

// readOutputs reads what leaves the logs.
func readOutputs(home string) (*outputs.Config, error) {
	path := filepath.Join(home, server.OutputsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &outputs.Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what leaves the logs: %w", err)
	}
	c, err := outputs.Parse(path, b)
	if err != nil {
		return nil, fmt.Errorf("reading what leaves the logs: %w", err)
	}
	return c, nil
}

// notified are those who are told of alerts.
func notified(all []outputs.Notify) []notify.Config {
	var out []notify.Config
	for _, n := range all {
		c := notify.Config{
			Name: n.Name, Kind: notify.Webhook, Severity: n.Severity, Codes: n.Codes, URL: n.URL, SecretFile: n.SecretFile, Insecure: n.Insecure,
			Address: n.Address, From: n.From, To: n.To, SMTP: n.SMTP, User: n.User,
			TLS: n.TLS,
		}
		if n.Email {
			c.Kind = notify.Email
		}
		out = append(out, c)
	}
	return out
}
