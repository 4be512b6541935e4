package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/audit"
	"ambit/control"
	"ambit/internal/inert"
	"ambit/manifest"
	"ambit/sandbox"
	"ambit/sandbox/gvisor"
	"ambit/server"
	"ambit/vault"

	"golang.org/x/sys/unix"
)

// workerTimeout bounds a worker's start; it may have to recover a database.
const workerTimeout = 30 * time.Second

// ensureWorker makes a worker run that enforces the agent's current manifest:
// the one that runs, one that an earlier control plane left, or a new one.
func (k *keeper) ensureWorker(ctx context.Context, a agent.Agent, policy control.Policy) error {
	if k.worker == nil {
		k.adoptWorker(ctx, a)
	}
	if k.worker != nil {
		s, err := k.client().Status(ctx)
		if err == nil && s.Version == k.fleet.config.Version && slices.Equal(s.Never, k.fleet.config.Never) {
			if s.Manifest == a.Version {
				return nil
			}
			if err := k.client().Apply(ctx, policy); err != nil {
				return fmt.Errorf("giving the worker its manifest: %w", err)
			}
			return nil
		}
		k.stopWorker(ctx) // it does not answer, or serves another version or port of ambit
	}
	k.state.Worker = "starting"
	k.show()
	if err := k.spawnWorker(ctx, a, policy); err != nil {
		k.state.Worker = "failed"
		k.setComputer(k.state.Computer, "the worker does not start: "+err.Error())
		return fmt.Errorf("starting the worker: %w", err)
	}
	k.state.Worker = "running"
	k.show()
	return nil
}

func (k *keeper) needWorker(ctx context.Context) error {
	a, m, policy, err := k.load(ctx)
	if err != nil {
		return err
	}
	k.manifest = m
	return k.ensureWorker(ctx, a, policy)
}

// adoptWorker takes up a worker that outlived the control plane.
func (k *keeper) adoptWorker(ctx context.Context, a agent.Agent) {
	l := control.Layout(agentDir(k.fleet.config.Home, k.id))
	pid := listenerPID(l.Control(), ownerOf(a).worker)
	if pid <= 0 {
		return
	}
	token, err := k.fleet.config.Store.WorkerToken(ctx, k.id)
	if err != nil {
		k.log.Error("taking up a worker", slog.Any("error", err))
		return
	}
	c := control.NewClient(l.Control(), token)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	p, err := watchProcess(pid)
	if err != nil {
		return
	}
	if s, err := c.Status(ctx); err != nil || s.Agent != k.id {
		k.log.Warn("a worker was left behind that does not answer; it is ended", slog.Int("pid", pid), slog.Any("error", err))
		p.kill()
		<-p.exited
		return
	}
	k.worker, k.workerBorn = p, time.Now()
	k.dialed.Store(c)
	k.finishRotation(ctx)
	k.state.Worker = "running"
	k.show()
}

// finishRotation does what a rotation of the vault key that was cut short left
// to do. If it fails, the agent's old keys are kept and the next start of its
// worker tries again.
func (k *keeper) finishRotation(ctx context.Context) {
	store := k.fleet.config.Store
	status, err := store.KeyStatus(ctx, k.id)
	if err == nil && len(status[0].Old) > 0 {
		_, err = server.FinishRotation(ctx, store, k.client(), k.id)
	}
	if err != nil {
		k.log.Warn("a rotation of the vault key is not finished", slog.Any("error", err))
	}
}

// listenerPID asks the kernel which process listens on a Unix socket; 0 if none
// does, or if it is not one of uid.
func listenerPID(path string, uid int) int {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && int(cred.Uid) == uid {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func (k *keeper) spawnWorker(ctx context.Context, a agent.Agent, policy control.Policy) error {
	store, own := k.fleet.config.Store, ownerOf(a)
	l, err := makeFolders(k.fleet.config.Home, k.id, own)
	if err != nil {
		return err
	}
	keys, err := store.Keys(ctx, k.id)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	token, err := store.WorkerToken(ctx, k.id)
	if err != nil {
		return err
	}
	head, err := store.Head(ctx, k.id)
	if err != nil {
		return err
	}
	start := control.Start{
		Agent: k.id, Dir: string(l), Policy: policy, Data: keys.Data.Reveal(), Sign: keys.Sign.Reveal(),
		Vault: server.VaultKeys(keys), Token: token, Caller: os.Geteuid(), Version: k.fleet.config.Version, Create: len(head) == 0,
		Never: k.fleet.config.Never,
	}
	if k.fleet.config.Delivered != nil {
		vkey, err := audit.VerifierKey(k.id, keys.Sign)
		if err != nil {
			return err
		}
		origin, _, _ := strings.Cut(vkey, "+")
		start.Delivered = k.fleet.config.Delivered(k.id, origin)
	}
	p, err := k.fleet.runWorker(start, own, k.id)
	if err != nil {
		return err
	}
	c := control.NewClient(l.Control(), start.Token)
	if start.Create {
		// From now on a missing log is a loss, not a beginning.
		h, err := c.Head(ctx)
		if err == nil {
			err = firstHead(k.id, keys, h)
		}
		if err == nil {
			_, err = store.SetHead(ctx, k.id, nil, h.Note)
		}
		if err != nil {
			p.kill()
			<-p.exited
			return fmt.Errorf("keeping the first head of the log: %w", err)
		}
	}
	k.worker, k.workerBorn = p, time.Now()
	k.dialed.Store(c)
	k.finishRotation(ctx)
	return nil
}

// firstHead checks whose the head of a new log is. The witness cosigns it when
// it next looks.
func firstHead(id ambit.AgentID, keys agent.Keys, h audit.Head) error {
	key, err := audit.VerifierKey(id, keys.Sign)
	if err == nil {
		_, err = audit.ParseHead(h.Note, key)
	}
	return err
}

// runWorker starts a worker, hands it what it needs over a pipe, and waits
// until it says that it decides.
func (f *Fleet) runWorker(start control.Start, o owner, id ambit.AgentID) (*process, error) {
	startR, startW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, startR.Close(), startW.Close())
	}
	defer func() { _ = readyR.Close() }()
	cmd := f.command(o.worker, o.group, "ambit", "worker")
	cmd.ExtraFiles = []*os.File{startR, readyW}
	logFile, err := openWorkerLog(f.config.Home, string(id))
	if err == nil {
		cmd.Stdout, cmd.Stderr = logFile, logFile
		err = cmd.Start()
		_ = logFile.Close()
	}
	_, _ = startR.Close(), readyW.Close()
	if err != nil {
		_ = startW.Close()
		return nil, err
	}
	p, err := watchProcess(cmd.Process.Pid)
	f.wg.Go(func() { waitUnless(f.ctx, cmd.Wait) })
	if err == nil {
		err = json.NewEncoder(startW).Encode(start)
	}
	_ = startW.Close()
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, err
	}
	_ = readyR.SetReadDeadline(time.Now().Add(workerTimeout))
	line, err := bufio.NewReader(readyR).ReadString('\n')
	if line == "ready\n" {
		return p, nil
	}
	p.kill()
	<-p.exited
	if text := strings.TrimSpace(inert.Text(strings.TrimSuffix(line, "\n"))); text != "" {
		return nil, errors.New(text)
	}
	return nil, fmt.Errorf("it ended without a word (%w); see %s", err, workerLog(f.config.Home, string(id)))
}

// waitUnless reaps a child, but does not outstay ctx: a worker outlives us.
func waitUnless(ctx context.Context, wait func() error) {
	done := make(chan struct{})
	go func() { _ = wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func workerLog(home, id string) string { return filepath.Join(home, "log", id+".worker.log") }

// maxWorkerLog is the size at which a worker's log of troubles starts over.
const maxWorkerLog = 1 << 20

func openWorkerLog(home, id string) (*os.File, error) {
	path := workerLog(home, id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for logs: %w", err)
	}
	flags := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if st, err := os.Stat(path); err == nil && st.Size() > maxWorkerLog {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the worker's log: %w", err)
	}
	return f, nil
}

// workerDied starts the worker again after a pause. The computer goes on
// without a way out.
func (k *keeper) workerDied() {
	k.dropWorker()
	pause := k.workerPause.after(time.Since(k.workerBorn))
	k.workerRetry = time.After(pause)
	k.state.Worker = "backoff"
	k.show()
	k.log.Warn("the worker died; it is started again", slog.Duration("pause", pause))
}

func (k *keeper) restartWorker(ctx context.Context) {
	if err := k.needWorker(ctx); err != nil {
		k.log.Error("starting the worker again", slog.Any("error", err))
		k.workerRetry = time.After(k.workerPause.after(0))
	}
}

func (k *keeper) dropWorker() {
	if c := k.dialed.Swap(nil); c != nil {
		c.Close()
	}
	if k.worker != nil {
		_ = k.worker.pidfd.Close()
	}
	k.worker = nil
}

// stopWorker lets the worker close its log; one that does not is ended, and
// recovers with its next start.
func (k *keeper) stopWorker(ctx context.Context) {
	if k.worker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := k.client().Stop(ctx); err != nil {
		k.worker.signal(unix.SIGTERM)
	}
	select {
	case <-k.worker.exited:
	case <-ctx.Done():
		k.worker.kill()
		<-k.worker.exited
	}
	k.dropWorker()
	k.state.Worker = "stopped"
	k.show()
}

// adoptComputer takes up a computer that outlived the control plane.
func (k *keeper) adoptComputer(a agent.Agent) {
	if k.computer != nil {
		return
	}
	dir, own := control.Layout(agentDir(k.fleet.config.Home, k.id)).Computer(), ownerOf(a)
	pid, err := gvisor.PID(dir)
	if err != nil || !isComputer(pid, dir, own.computer) {
		return
	}
	p, err := watchProcess(pid)
	if err != nil {
		return
	}
	k.computer = &computer{process: p, hash: readHash(dir), spec: sandbox.Spec{Dir: dir}, born: time.Now(), owner: own}
	if m, err := k.currentSpec(a); err == nil && hashOf(m) == k.computer.hash {
		k.computer.spec = m
		k.live.Store(k.computer)
		k.setComputer("running", "")
	}
}

func (k *keeper) currentSpec(a agent.Agent) (sandbox.Spec, error) {
	if k.manifest == nil {
		return sandbox.Spec{}, errors.New("no manifest")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return k.spec(ctx, a, k.manifest)
}

// spec turns the manifest into what the launcher builds.
func (k *keeper) spec(ctx context.Context, a agent.Agent, m *manifest.Manifest) (sandbox.Spec, error) {
	if k.client() == nil {
		return sandbox.Spec{}, errors.New("the agent's worker does not run, and without it a computer has no way out; see `ambit status`")
	}
	s, err := k.client().Status(ctx)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("asking the worker for the agent's certificate authority: %w", err)
	}
	l, own := control.Layout(agentDir(k.fleet.config.Home, k.id)), ownerOf(a)
	env := make([]string, 0, len(m.Computer.Env))
	for _, name := range sortedKeys(m.Computer.Env) {
		env = append(env, name+"="+m.Computer.Env[name])
	}
	var files []sandbox.File
	if len(m.Connectors) > 0 {
		p, err := k.client().Placement(ctx)
		if err != nil {
			return sandbox.Spec{}, fmt.Errorf("asking the worker for the references of the agent's connections: %w", err)
		}
		if env, files, err = placed(p, env); err != nil {
			return sandbox.Spec{}, err
		}
	}
	return sandbox.Spec{
		Agent: k.id, Image: m.Computer.Image.String(), Command: m.Computer.Command, Env: env, Files: files, Workdir: m.Computer.Workdir,
		Limits: sandbox.Limits{
			Memory: int64(m.Computer.Memory), CPUs: m.Computer.CPUs, Processes: m.Computer.Processes, Disk: int64(m.Computer.Disk),
		},
		CA: s.CA, Roots: m.Computer.RegistryCA,
		Dir: l.Computer(), Home: l.Home(), Workspace: l.Workspace(), Gate: l.Gate(),
		Init: k.fleet.launcher, UID: own.computer, GID: own.group,
	}, nil
}

// placed adds what the computer gets of the agent's connections to env. A worker
// that somebody broke may say anything: it is let near no variable that Ambit or
// the manifest sets, and the launcher looks at the paths.
func placed(p vault.Placement, env []string) ([]string, []sandbox.File, error) {
	for _, name := range sortedKeys(p.Env) {
		value := p.Env[name]
		taken := sandbox.Owns(name) || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		if text, _ := manifest.CheckVariable(name); text != "" || taken || strings.ContainsRune(value, 0) {
			return nil, nil, fmt.Errorf("the variable %q of a connection cannot be set: Ambit or the manifest sets it, or it is none", name)
		}
		env = append(env, name+"="+value)
	}
	files := make([]sandbox.File, len(p.Files))
	for i, f := range p.Files {
		files[i] = sandbox.File{Path: f.Path, Text: f.Text}
	}
	return env, files, nil
}
