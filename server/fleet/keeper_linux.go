package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/control"
	"ambit/manifest"
	"ambit/sandbox"
	"ambit/server"
)

// keeper owns one agent's processes.
type keeper struct {
	fleet *Fleet
	id    ambit.AgentID
	log   *slog.Logger
	asks  chan ask
	gone  chan struct{} // closed when the agent was removed

	// Read by anyone, written by run's goroutine alone.
	shown  atomic.Pointer[server.AgentStatus]
	dialed atomic.Pointer[control.Client]
	live   atomic.Pointer[computer] // nil while no computer runs

	// Owned by run's goroutine.
	worker      *process
	workerBorn  time.Time
	workerRetry <-chan time.Time
	workerPause backoff
	computer    *computer
	retry       <-chan time.Time
	backoff     backoff
	restarts    int
	manifest    *manifest.Manifest
	state       server.AgentStatus
	watch       *time.Ticker
	disk        diskWatch
	swept       bool // no computer was left behind before this keeper's time
}

type ask struct {
	ctx   context.Context
	f     func(*keeper, context.Context) error
	reply chan error
}

// computer is a running computer.
type computer struct {
	*process
	spec  sandbox.Spec
	hash  string // of spec: a change needs a new computer
	born  time.Time
	owner owner
}

// watchEvery is how often limits without a cgroup are looked at.
const watchEvery = time.Second

func newKeeper(f *Fleet, id ambit.AgentID) *keeper {
	k := &keeper{fleet: f, id: id, log: f.log.With(slog.String("agent", string(id))), asks: make(chan ask), gone: make(chan struct{})}
	k.shown.Store(&server.AgentStatus{})
	return k
}

// do runs f in the keeper's goroutine and waits for it. The work goes on when
// the asker goes away: a computer is not left half started.
func (k *keeper) do(ctx context.Context, f func(*keeper, context.Context) error) error {
	a := ask{ctx: context.WithoutCancel(ctx), f: f, reply: make(chan error, 1)}
	select {
	case k.asks <- a:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-k.gone:
		return agent.ErrNotFound
	}
	select {
	case err := <-a.reply:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *keeper) retire() { close(k.gone) }

func (k *keeper) status() server.AgentStatus { return *k.shown.Load() }

func (k *keeper) client() *control.Client { return k.dialed.Load() }

func (k *keeper) show() {
	s := k.state
	k.shown.Store(&s)
}

func (k *keeper) setComputer(state, problem string) {
	if k.state.Computer != state || k.state.Error != problem {
		k.state.Since = time.Now().UTC()
	}
	k.state.Computer, k.state.Error, k.state.Restarts = state, problem, k.restarts
	k.show()
}

func (k *keeper) run(ctx context.Context) {
	k.watch = time.NewTicker(watchEvery)
	defer k.watch.Stop()
	for {
		var workerExit, computerExit <-chan struct{}
		if k.worker != nil {
			workerExit = k.worker.exited
		}
		if k.computer != nil {
			computerExit = k.computer.exited
		}
		select {
		case <-ctx.Done():
			return
		case <-k.gone:
			return
		case a := <-k.asks:
			a.reply <- a.f(k, a.ctx)
		case <-workerExit:
			k.workerDied()
		case <-computerExit:
			k.computerDied(ctx)
		case <-k.workerRetry:
			k.workerRetry = nil
			k.restartWorker(ctx)
		case <-k.retry:
			k.retry = nil
			k.restarts++
			if err := k.apply(ctx); err != nil {
				k.log.Warn("restarting", slog.Any("error", err))
			}
		case <-k.watch.C:
			k.checkLimits(ctx)
		}
	}
}

// apply makes what runs agree with the store.
func (k *keeper) apply(ctx context.Context) error {
	k.retry = nil
	a, m, policy, err := k.load(ctx)
	if err != nil {
		return err
	}
	k.manifest = m
	if err := k.ensureWorker(ctx, a, policy); err != nil {
		return err
	}
	k.adoptComputer(a)
	if a.Desired != agent.Running {
		k.stopComputer(ctx, "a person stopped it")
		k.setComputer(server.ComputerStopped, "")
		return nil
	}
	spec, err := k.spec(ctx, a, m)
	if err != nil {
		return k.failed(err)
	}
	hash := hashOf(spec)
	if k.computer != nil && k.computer.hash == hash {
		return nil
	}
	if k.computer != nil {
		k.stopComputer(ctx, "its manifest changed")
	}
	return k.startComputer(ctx, a, spec, hash)
}

// load reads what the store says: the agent, its manifest, and the same for its
// worker.
func (k *keeper) load(ctx context.Context) (a agent.Agent, m *manifest.Manifest, p control.Policy, err error) {
	if a, err = k.fleet.config.Store.Get(ctx, k.id); err != nil {
		return a, nil, p, err
	}
	v, err := k.fleet.config.Store.VersionSource(ctx, k.id, a.Version)
	if err != nil {
		return a, nil, p, err
	}
	if m, err = manifest.Parse(string(k.id), v.Source); err != nil {
		return a, nil, p, fmt.Errorf("reading the manifest again: %w", err)
	}
	p = control.Policy{Version: a.Version, Source: string(v.Source)}
	p.Connectors, err = server.DecodeConnectors(v.Connectors)
	return a, m, p, err
}

func hashOf(s sandbox.Spec) string {
	s.Init = "" // another version of init is no reason to end a computer
	b, err := json.Marshal(s)
	if err != nil {
		return "" // cannot be: a Spec has only strings and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// failed notes that the computer does not run and why.
func (k *keeper) failed(err error) error {
	k.setComputer(server.ComputerFailed, err.Error())
	return err
}

func (k *keeper) startComputer(ctx context.Context, a agent.Agent, spec sandbox.Spec, hash string) error {
	k.setComputer(server.ComputerStarting, "")
	own := ownerOf(a)
	if err := k.record(ctx, ambit.KindAgentStart, fmt.Sprintf("image %s, manifest %d", spec.Image, a.Version)); err != nil {
		return k.failed(err)
	}
	if !k.swept { // what an earlier control plane may have left
		killStrays(spec.Dir, own.computer)
		k.swept = true
	}
	if needsPull(&spec) {
		if err := k.fleet.pull(ctx, &spec, own, k.id); err != nil {
			return k.failed(err)
		}
	}
	p, err := k.fleet.launch(ctx, &spec, own, k.id)
	if err != nil {
		return k.failedStart(ctx, err)
	}
	k.computer = &computer{process: p, spec: spec, hash: hash, born: time.Now(), owner: own}
	k.disk = diskWatch{}
	writeHash(spec.Dir, hash, own)
	if err := k.awaitProgram(ctx); err != nil {
		return err
	}
	k.live.Store(k.computer)
	k.setComputer(server.ComputerRunning, "")
	return nil
}

func (k *keeper) failedStart(ctx context.Context, err error) error {
	_ = k.record(ctx, ambit.KindAgentStop, "did not start: "+err.Error())
	return k.failed(err)
}

// How long a start waits for the program to run, and how long it must not fail
// to count as started.
const (
	exitSettle   = 7 * time.Second // how long init may take to end after its program
	startTimeout = 20 * time.Second
	startSettle  = 150 * time.Millisecond
)

// awaitProgram waits until init says that the program runs and has survived its
// first moments.
func (k *keeper) awaitProgram(ctx context.Context) error {
	if len(k.computer.spec.Command) == 0 {
		return nil
	}
	deadline := time.Now().Add(startTimeout)
	var running time.Time
	for pause := 5 * time.Millisecond; time.Now().Before(deadline); {
		s, err := k.client().Status(ctx)
		if err != nil {
			return k.failed(fmt.Errorf("asking the worker about the program: %w", err))
		}
		switch {
		case s.Exit != nil:
			// Init says so, and init is not trusted: it ends now or is ended.
			select {
			case <-k.computer.exited:
			case <-time.After(exitSettle):
				k.computer.kill()
				<-k.computer.exited
			}
			return k.programEnded(ctx, s.Exit)
		case s.Program == "running" && running.IsZero():
			running = time.Now()
		case !running.IsZero() && time.Since(running) >= startSettle:
			return nil
		}
		select {
		case <-k.computer.exited:
			if s, err := k.client().Status(ctx); err == nil && s.Exit != nil {
				return k.programEnded(ctx, s.Exit)
			}
			return k.programEnded(ctx, nil)
		case <-time.After(pause):
		}
	}
	k.stopComputer(ctx, "its program did not start in time")
	return k.failed(fmt.Errorf("the program did not start within %v", startTimeout))
}

// computerDied handles a computer that ended by itself.
func (k *keeper) computerDied(ctx context.Context) {
	var exit *control.Exit
	if c := k.client(); c != nil {
		if s, err := c.Status(ctx); err == nil {
			exit = s.Exit
		}
	}
	if err := k.programEnded(ctx, exit); err != nil {
		k.log.Warn("the computer ended", slog.Any("error", err))
	}
}

// programEnded records the end, decides about a restart, and returns an error
// if it was a failure.
func (k *keeper) programEnded(ctx context.Context, exit *control.Exit) error {
	lived, limit, oom := time.Since(k.computer.born), k.computer.spec.Limits.Memory, k.fleet.limiter.outOfMemory(k.id)
	k.clearComputer()
	text, code := "the computer ended without a word; it was killed or its kernel failed", -1
	if oom {
		text = fmt.Sprintf("it took more than its memory limit of %s (computer.memory)", manifest.Bytes(limit))
	} else if exit != nil {
		code = exit.Code
		text = fmt.Sprintf("the program ended with exit code %d", code)
		if exit.Text != "" {
			text += ": " + exit.Text
		}
	}
	if err := k.record(ctx, ambit.KindAgentStop, text); err != nil {
		k.log.Warn("recording the stop", slog.Any("error", err))
	}
	restart := k.manifest != nil && (k.manifest.Computer.Restart == manifest.RestartAlways ||
		k.manifest.Computer.Restart == manifest.RestartOnFailure && code != 0)
	if code == 126 || code == 127 {
		restart = false // it cannot start better the next time
	}
	switch {
	case restart:
		pause := k.backoff.after(lived)
		k.retry = time.After(pause)
		k.setComputer(server.ComputerBackoff, fmt.Sprintf("%s; it is started again in %v", text, pause))
	case code == 0:
		k.setComputer(server.ComputerStopped, "")
		return nil
	default:
		k.setComputer(server.ComputerFailed, text)
	}
	return errors.New(text)
}

func (k *keeper) clearComputer() {
	k.live.Store(nil)
	if k.computer != nil {
		killStrays(k.computer.spec.Dir, k.computer.owner.computer)
		k.fleet.limiter.remove(k.id)
	}
	k.computer = nil
}

// stopComputer ends the computer: its program gets SIGTERM and a moment.
func (k *keeper) stopComputer(ctx context.Context, why string) {
	c := k.computer
	if c == nil {
		return
	}
	k.live.Store(nil)
	k.fleet.signal(c, "TERM")
	select {
	case <-c.exited:
	case <-time.After(8 * time.Second):
		c.kill()
		<-c.exited
	}
	k.clearComputer()
	if err := k.record(ctx, ambit.KindAgentStop, why); err != nil {
		k.log.Warn("recording the stop", slog.Any("error", err))
	}
}

// killComputer ends it at once, because it took more than it may.
func (k *keeper) killComputer(ctx context.Context, why string) {
	if k.computer == nil {
		return
	}
	k.computer.kill()
	<-k.computer.exited
	k.clearComputer()
	if err := k.record(ctx, ambit.KindAgentStop, why); err != nil {
		k.log.Warn("recording the stop", slog.Any("error", err))
	}
	k.setComputer(server.ComputerFailed, why)
}

func (k *keeper) record(ctx context.Context, kind ambit.Kind, detail string) error {
	c := k.client()
	if c == nil {
		return errors.New("the agent's log is closed")
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := c.Record(ctx, ambit.Event{Kind: kind, Principal: ambit.PrincipalAmbit, Detail: detail}); err != nil {
		return fmt.Errorf("writing the agent's log: %w", err)
	}
	return nil
}

// shutdown ends everything of the agent in good order.
func (k *keeper) shutdown(ctx context.Context) error {
	k.retry, k.workerRetry = nil, nil
	if k.computer != nil {
		k.stopComputer(ctx, "the control plane was stopped")
	}
	k.stopWorker(ctx)
	return nil
}

// halt ends everything of the agent at once, the worker first: it is the only
// way out, and is not trusted any more. Nothing is asked of it, also not to write
// its log.
func (k *keeper) halt(ctx context.Context, why string) error {
	a, err := k.fleet.config.Store.Get(ctx, k.id)
	if err != nil {
		return err
	}
	k.retry, k.workerRetry = nil, nil
	k.adoptComputer(a)
	if k.worker != nil {
		k.worker.kill()
		<-k.worker.exited
		k.dropWorker()
	}
	if k.computer != nil {
		k.computer.kill()
		<-k.computer.exited
		k.clearComputer()
	}
	k.state.Worker = "stopped"
	k.setComputer(server.ComputerStopped, why)
	return nil
}

// remove ends everything of the agent and deletes its folder.
func (k *keeper) remove(ctx context.Context) error {
	a, err := k.fleet.config.Store.Get(ctx, k.id)
	if err != nil {
		return err
	}
	k.adoptComputer(a)
	if err := k.shutdown(ctx); err != nil {
		return err
	}
	return removeAgentDir(k.fleet.config.Home, k.id)
}
