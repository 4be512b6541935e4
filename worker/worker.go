// Package worker is one agent's gate, in a process of its own: it decides what
// leaves the agent's computer, keeps the agent's log and holds its keys in
// memory. It is assembled here from the rooms below it.
//
// The control plane starts it with its configuration and keys on an inherited
// pipe. Before it reads anything from the network or the computer it confines
// itself with Landlock to the agent's own folder. It outlives the control
// plane: while that is away it goes on deciding and logging.
//
// Crash points: until the log is open nothing is answered. If the process dies,
// the computer has no way out until the next one listens; that one reads the
// same log and enforces the manifest that the control plane hands it.
//
// Trust: the worker trusts the pipe and callers of its control socket that show
// the token. Everything from the gate socket is hostile.
package worker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/approval"
	"ambit/audit"
	"ambit/control"
	"ambit/egress"
	"ambit/gate"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/policy"
	"ambit/scan"
	"ambit/vault"
)

// Worker is a running worker.
type Worker struct {
	config   control.Start
	layout   control.Layout
	log      *slog.Logger
	db       *sqldb.DB
	audit    *audit.Log
	alerts   *alert.Book
	rules    *alert.Rules
	events   *alert.Watched // audit, with the rules behind it
	delivery delivery       // the log for the gate
	gate     *gate.Gate
	errands  *gate.Gate // decides what the worker itself asks on behalf of tool calls
	proxy    *egress.Proxy
	ca       *egress.CA
	vault    *vault.Vault
	output   *output
	started  time.Time
	stop     context.CancelFunc
	life     context.Context // of what goes on beside requests; set by serve

	approvals *approval.Store // questions that wait for a person
	tools     toolbox

	applying  sync.Mutex                 // held while a manifest takes effect
	policy    atomic.Pointer[policy.Set] // never nil once Run listens
	reach     atomic.Pointer[policy.Set] // of errands; never nil once Run listens
	subjects  atomic.Pointer[scan.Matcher]
	retention atomic.Int64 // a duration; 0 is forever
	version   atomic.Int64
	program   atomic.Pointer[programState]
	conns     chan struct{} // bounds connections from the computer
}

// maxConns bounds the connections from the computer at the same time.
const maxConns = 1024

// Run is the whole life of a worker: it calls ready once with nil when it
// decides, or with what keeps it from it, and returns when ctx ends or the
// control plane asks it to stop.
func Run(ctx context.Context, c control.Start, log *slog.Logger, ready func(error)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &Worker{config: c, layout: control.Layout(c.Dir), log: log, started: time.Now(), stop: stop, conns: make(chan struct{}, maxConns)}
	listeners, err := w.open(ctx)
	if err != nil {
		ready(err)
		return err
	}
	ready(nil)
	err = w.serve(ctx, listeners)
	return errors.Join(err, w.close())
}

type listeners struct{ gate, control net.Listener }

func (w *Worker) open(ctx context.Context) (_ listeners, err error) {
	c, err := compile(w.config.Policy)
	if err != nil {
		return listeners{}, err
	}
	w.adopt(c)
	w.version.Store(int64(w.config.Policy.Version))
	// Roots are read before the confinement, which hides where they are.
	roots, err := x509.SystemCertPool()
	if err != nil {
		return listeners{}, fmt.Errorf("reading the system's certificate authorities: %w; install the package ca-certificates", err)
	}
	if err := secretbytes.HideProcess(); err != nil {
		return listeners{}, err
	}
	if err := confine(w.layout); err != nil {
		return listeners{}, err
	}
	var ls listeners
	defer func() {
		if err != nil {
			closeAll(ls.gate, ls.control)
		}
	}()
	if err := w.openLog(ctx, c); err != nil {
		return ls, err
	}
	if w.ca, err = openCA(filepath.Join(w.layout.State(), "ca.sealed"), w.config.Agent, w.config.Data); err != nil {
		return ls, err
	}
	err = w.openVault(ctx, roots, c.bindings)
	clear(w.config.Data)
	clear(w.config.Sign)
	if err != nil {
		return ls, err
	}
	w.delivery.Log, w.delivery.size = w.events, w.audit.Size
	w.delivery.set(w.config.Delivered)
	if err := w.openDoor(roots, c); err != nil {
		return ls, err
	}
	if err := w.openTools(ctx, c); err != nil {
		return ls, err
	}
	if w.output, err = openOutput(w.layout.Output()); err != nil {
		return ls, err
	}
	// 0660 lets the computer's user in, which shares the group; the folder keeps
	// everybody else out.
	if ls.gate, err = listen(w.layout.GateSock(), 0o660); err != nil {
		return ls, err
	}
	if ls.control, err = listen(w.layout.Control(), 0o600); err != nil {
		return ls, err
	}
	_, err = w.events.Append(ctx, ambit.Event{
		Kind: ambit.KindWorkerStart, Agent: w.config.Agent, Principal: ambit.PrincipalAmbit,
		Detail: fmt.Sprintf("version %s, manifest %d", w.config.Version, w.config.Policy.Version),
	})
	return ls, err
}

// openLog opens the log, the book of alerts with its rules, and the questions that
// wait for a person. The keys that came over the pipe are wiped once all of them
// have derived their own.
func (w *Worker) openLog(ctx context.Context, c *compiled) (err error) {
	keys := audit.Keys{Body: secretbytes.New(w.config.Data), Sign: secretbytes.New(w.config.Sign)}
	if w.db, err = sqldb.Open(ctx, filepath.Join(w.layout.State(), "agent.db")); err != nil {
		return err
	}
	w.audit, err = audit.Open(ctx, audit.Config{DB: w.db, Agent: w.config.Agent, Keys: keys, Create: w.config.Create})
	if err != nil {
		return err
	}
	w.alerts, err = alert.Open(ctx, alert.Config{DB: w.db, Log: w.audit, Agent: w.config.Agent, Key: keys.Body})
	if err != nil {
		return err
	}
	if err := w.watch(c); err != nil {
		return err
	}
	return w.openApprovals(ctx, keys.Body)
}

// openDoor opens the egress door, with a gate for the agent and one for the
// errands of its tools. Both write the same log.
func (w *Worker) openDoor(roots *x509.CertPool, c *compiled) (err error) {
	w.gate = gate.New(gate.Config{Agent: w.config.Agent, Policy: c.policy, Log: &w.delivery, Alerts: w.rules})
	w.errands = gate.New(gate.Config{Agent: w.config.Agent, Policy: c.reach, Log: &w.delivery, Alerts: w.rules})
	w.proxy, err = egress.New(egress.Config{
		Gate: w.gate, Endpoints: func() egress.Endpoints { return w.policy.Load() }, Subjects: w.subjects.Load,
		Errands:  egress.Judge{Gate: w.errands, Endpoints: func() egress.Endpoints { return w.reach.Load() }},
		Internal: w.inside(), CA: w.ca, Resolver: &net.Resolver{PreferGo: true}, Roots: roots, Never: w.config.Never, Vault: w.vault, Log: w.log,
	})
	return err
}

func (w *Worker) serve(ctx context.Context, ls listeners) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { closeAll(ls.gate, ls.control) })
	wg.Go(func() { w.serveGate(ctx, ls.gate) })
	wg.Go(func() { w.retain(ctx) })
	w.life = ctx
	w.askServers(ctx)
	w.runAllAgreed(ctx)
	err := w.serveControl(ctx, ls.control)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *Worker) close() error {
	w.tools.servers.stopServers()
	err := w.proxy.Close()
	w.closeTools()
	err = errors.Join(err, w.approvals.Close(), w.vault.Close())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, aerr := w.events.Append(ctx, ambit.Event{Kind: ambit.KindWorkerStop, Agent: w.config.Agent, Principal: ambit.PrincipalAmbit})
	return errors.Join(err, aerr, w.alerts.Close(ctx), w.audit.Close(ctx), w.db.Close(), w.output.Close())
}

// listen replaces a socket that a dead worker left. The folder is the agent's
// own and the control plane runs one worker at a time.
func listen(path string, mode os.FileMode) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clearing the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l, nil
}

func closeAll(closers ...io.Closer) {
	for _, c := range closers {
		if c != nil {
			_ = c.Close()
		}
	}
}
