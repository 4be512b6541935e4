package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"ambit"
	"ambit/agent"
	"ambit/alert"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// controlLogFile is a database of its own: control.db is emptied of old keys by
// rewriting its journal, which nothing may hold open, and a log that somebody
// made grow must not fill the file that knows the agents.
const controlLogFile = "control-log.db"

// ControlLog is the log of the control plane, with the alerts about it and the
// key with which it cosigns the heads of all logs.
//
// Crash points: it is made before its first head is kept in control.db, so a
// crash in between makes it again; from the head on, a log that is missing is
// an error.
type ControlLog struct {
	store    *agent.Store
	db       *sqldb.DB
	log      *audit.Log
	alerts   *alert.Book
	rules    *alert.Rules
	events   *alert.Watched // log, with the rules behind it
	cosigner *audit.Cosigner
	close    func(context.Context) error // once
}

// OpenControlLog opens the log of a home's control plane, makes it if there
// never was one, and writes that it was opened by this version. The store stays
// open longer.
func OpenControlLog(ctx context.Context, home string, store *agent.Store, version string) (*ControlLog, error) {
	c := &ControlLog{store: store}
	if err := c.open(ctx, filepath.Join(home, controlLogFile), version); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log of the control plane: %w", err), c.shut(context.WithoutCancel(ctx)))
	}
	closing := sync.OnceValue(func() error {
		ctx := context.Background() // whoever closes waits; there is little to write
		_, err := c.log.Append(ctx, ambit.Event{Kind: ambit.KindControlStop, Principal: ambit.PrincipalAmbit, Decision: ambit.Allow})
		return errors.Join(err, c.shut(ctx))
	})
	c.close = func(context.Context) error { return closing() }
	return c, nil
}

func (c *ControlLog) open(ctx context.Context, path, version string) error {
	keys, err := c.store.ControlKeys(ctx)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	head, err := c.store.ControlHead(ctx)
	if err != nil {
		return err
	}
	if c.cosigner, err = newCosigner(keys.Witness); err != nil {
		return err
	}
	if c.db, err = sqldb.Open(ctx, path); err != nil {
		return err
	}
	c.log, err = audit.Open(ctx, audit.Config{DB: c.db, Keys: audit.Keys{Body: keys.Data, Sign: keys.Sign}, Create: head == nil})
	if err != nil {
		return err
	}
	if c.alerts, err = alert.Open(ctx, alert.Config{DB: c.db, Log: c.log, Key: keys.Data}); err != nil {
		return err
	}
	if c.rules, err = alert.NewRules(alert.RulesConfig{Book: c.alerts}); err != nil {
		return err
	}
	c.events = alert.Watch(c.log, c.rules)
	if _, err := c.log.Append(ctx, ambit.Event{Kind: ambit.KindControlStart, Principal: ambit.PrincipalAmbit, Decision: ambit.Allow, Detail: "version " + version}); err != nil {
		return err
	}
	if head != nil {
		return nil
	}
	first, err := c.log.Head(ctx)
	if err != nil {
		return err
	}
	cosigned, err := audit.Cosign(first.Note, c.log.VerifierKey(), nil, c.cosigner)
	if err == nil {
		_, err = c.store.SetControlHead(ctx, nil, cosigned)
	}
	return err
}

// newCosigner is named after its key, so that two homes' are told apart.
func newCosigner(seed secretbytes.Bytes) (*audit.Cosigner, error) {
	private := ed25519.NewKeyFromSeed(seed.Reveal())
	defer clear(private)
	sum := sha256.Sum256(private[ed25519.SeedSize:])
	return audit.NewCosigner("ambit/witness/"+hex.EncodeToString(sum[:4]), seed, nil)
}

// Close writes that the log is closed, and closes it. It may be called again.
func (c *ControlLog) Close(ctx context.Context) error { return c.close(ctx) }

func (c *ControlLog) shut(ctx context.Context) error {
	var errs []error
	if c.alerts != nil {
		errs = append(errs, c.alerts.Close(ctx))
	}
	if c.log != nil {
		errs = append(errs, c.log.Close(ctx))
	}
	if c.db != nil {
		errs = append(errs, c.db.Close())
	}
	return errors.Join(errs...)
}

// Consistency and ConsistencyTo make it a log that the witness looks at like at
// those of the workers.

// Consistency proves that the log had old events before.
func (c *ControlLog) Consistency(ctx context.Context, old uint64) (audit.Consistency, error) {
	p, err := c.log.ProveConsistency(ctx, old)
	if errors.Is(err, audit.ErrNoEvent) {
		return p, nil // the head says it
	}
	return p, err
}

// ConsistencyTo proves it for a head that the log signed before.
func (c *ControlLog) ConsistencyTo(ctx context.Context, old uint64, head []byte) (audit.Consistency, error) {
	return c.log.ProveBetween(ctx, old, head)
}

// note writes an event into the log of the control plane, durably; who makes
// the request is its principal unless it has one. What cannot be written there
// does not happen: the caller returns the error and does nothing.
func (s *Server) note(ctx context.Context, e ambit.Event) error {
	_, err := s.noted(ctx, e)
	return err
}

// noted is note, with the event's position.
func (s *Server) noted(ctx context.Context, e ambit.Event) (uint64, error) {
	if e.Principal == "" {
		e.Principal = principal(ctx)
	}
	seq, err := s.cfg.ControlLog.events.Append(ctx, e)
	if err != nil {
		return 0, fmt.Errorf("nothing was done, because it could not be written to the log of the control plane: %w", err)
	}
	return seq, nil
}
