// Package gvisor runs agents' computers with the gVisor that is embedded in
// this binary: rootless, without a network device, every system call of the
// agent answered by a kernel of its own in user space.
//
// Prepare runs in the launcher, as the agent's user id, and turns a
// [sandbox.Spec] into an OCI bundle. The launcher then becomes `runsc run
// --detach` by exec. Everything else here asks the running computer something
// or ends it.
//
// The user namespace maps one id: 1000 inside is the agent's user id outside.
// Files of /home/agent and /workspace have the same owner on both sides, and
// root of the computer is nobody outside.
//
// Trust: the embedded gVisor and the Linux kernel are trusted to hold a hostile
// program. The launcher's folder may be written by whoever broke out of a
// computer, so nothing of it is read with more rights than that agent's own.
package gvisor

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"ambit/internal/inside"
	"ambit/sandbox"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:embed initbin
var initBinary embed.FS

// id is the container's name in its own state folder.
const id = "computer"

// maxFiles is RLIMIT_NOFILE inside.
const maxFiles = 16384

// layout is where things are in Spec.Dir.
type layout string

func (l layout) bundle() string { return filepath.Join(string(l), "bundle") }
func (l layout) rootfs() string { return filepath.Join(string(l), "rootfs") }
func (l layout) etc() string    { return filepath.Join(string(l), "etc") }
func (l layout) ambit() string  { return filepath.Join(string(l), "ambit") }
func (l layout) state() string  { return filepath.Join(string(l), "runsc") }
func (l layout) pid() string    { return filepath.Join(string(l), "pid") }
func (l layout) log() string    { return filepath.Join(string(l), "gvisor.log") }

// globalFlags are the flags of every runsc command for the computer in dir.
func globalFlags(dir string) []string {
	return []string{
		"--root=" + layout(dir).state(),
		"--network=none", "--platform=systrap", "--host-uds=open", "--host-fifo=none",
		"--ignore-cgroups", "--overlay2=root:memory", "--cpu-num-from-quota", "--host-settings=ignore",
		"--log=" + layout(dir).log(),
	}
}

// RunArgs is the argument vector, argv[0] included, that turns the launcher
// into gVisor once the bundle is prepared.
func RunArgs(dir string) []string {
	l := layout(dir)
	return append(append([]string{"runsc"}, globalFlags(dir)...),
		"run", "--detach", "--bundle="+l.bundle(), "--pid-file="+l.pid(), id)
}

// ExecArgs is the argument vector that runs another process in the computer;
// process is a file or /proc/self/fd/N that has its specs.Process as JSON. Once
// it runs, pidFile has its process id inside; "" is for no file.
func ExecArgs(dir, process, pidFile string) []string {
	return append(append([]string{"runsc"}, globalFlags(dir)...),
		"exec", "--process="+process, "--internal-pid-file="+pidFile, id)
}

// KillProcessArgs sends a signal to one process inside.
func KillProcessArgs(dir string, pid int, signal string) []string {
	return append(append([]string{"runsc"}, globalFlags(dir)...), "kill", "--pid="+strconv.Itoa(pid), id, signal)
}

// KillArgs sends a signal to init, which ends the program and the computer.
func KillArgs(dir, signal string) []string {
	return append(append([]string{"runsc"}, globalFlags(dir)...), "kill", id, signal)
}

// PauseArgs and ResumeArgs stop and continue every task of the computer.
func PauseArgs(dir string) []string {
	return append(append([]string{"runsc"}, globalFlags(dir)...), "pause", id)
}

// ResumeArgs continues what PauseArgs stopped.
func ResumeArgs(dir string) []string {
	return append(append([]string{"runsc"}, globalFlags(dir)...), "resume", id)
}

// PID reads the process id of the computer in dir: the process that is its
// kernel. The file may be missing or old; the caller checks whose process it is.
func PID(dir string) (int, error) { return ReadPID(layout(dir).pid()) }

// ReadPID reads a file that holds a process id. Whoever broke out of the
// computer may have put anything in its place: a link is not followed, a pipe
// is not waited for, and what is read is neither long nor repeated.
func ReadPID(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("reading the computer's process id: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return 0, fmt.Errorf("reading the computer's process id: %s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, fmt.Errorf("reading the computer's process id: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("reading the computer's process id: %s does not hold one", path)
	}
	return pid, nil
}

// StateDir is a path that every process of the computer has in its arguments.
func StateDir(dir string) string { return layout(dir).state() }

// Process is a process inside: as the agent's user, without capabilities and
// without a way to gain any.
func Process(s *sandbox.Spec, argv, env []string, dir string, tty bool) *specs.Process {
	if dir == "" {
		dir = s.Workdir
	}
	nproc := uint64(s.Limits.Processes)
	return &specs.Process{
		Terminal: tty,
		User:     specs.User{UID: inside.UID, GID: inside.GID},
		Args:     argv, Env: env, Cwd: dir,
		Capabilities:    &specs.LinuxCapabilities{},
		NoNewPrivileges: true,
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NPROC", Soft: nproc, Hard: nproc},
			{Type: "RLIMIT_NOFILE", Soft: maxFiles, Hard: maxFiles},
			{Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
			{Type: "RLIMIT_FSIZE", Soft: uint64(s.Limits.Disk), Hard: uint64(s.Limits.Disk)},
		},
	}
}

// Init is the program that runs inside computers and, outside, launches them,
// as it was embedded; nil in a binary that was built without it.
func Init() []byte {
	b, err := fs.ReadFile(initBinary, "initbin/ambit-init")
	if err != nil {
		return nil
	}
	return b
}

// Launch reads a sandbox.Spec as JSON, prepares its computer, and becomes the
// gVisor in the binary runsc, which starts it. It returns only with an error.
func Launch(ctx context.Context, spec io.Reader, runsc string) error {
	s, err := ReadSpec(spec)
	if err != nil {
		return err
	}
	if err := Prepare(ctx, s); err != nil {
		return err
	}
	return fmt.Errorf("becoming gVisor: %w", syscall.Exec(runsc, RunArgs(s.Dir), os.Environ()))
}

// ReadSpec reads a sandbox.Spec as JSON.
func ReadSpec(r io.Reader) (*sandbox.Spec, error) {
	var s sandbox.Spec
	dec := json.NewDecoder(io.LimitReader(r, 8<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading what computer to make: %w; a computer is started by `ambit serve`, not by hand", err)
	}
	return &s, nil
}

// Prepare writes the bundle of s. What an earlier computer left in s.Dir is
// removed first, but for images.
func Prepare(_ context.Context, s *sandbox.Spec) error {
	l := layout(s.Dir)
	for _, old := range []string{l.bundle(), l.rootfs(), l.etc(), l.ambit(), l.state(), l.pid(), l.log()} {
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("clearing the last computer: %w", err)
		}
	}
	for _, dir := range []string{l.bundle(), l.etc(), l.ambit(), l.state(), filepath.Join(l.ambit(), "bin"), filepath.Join(l.ambit(), "gate")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the computer's folders: %w", err)
		}
	}
	mounts, root, err := prepareImage(s)
	if err != nil {
		return err
	}
	if err := writeAmbit(s); err != nil {
		return err
	}
	for _, problem := range place(s) {
		fmt.Fprintln(os.Stderr, "ambit:", problem)
	}
	spec := ociSpec(s, root, mounts)
	b, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.bundle(), "config.json"), b, 0o644); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	return nil
}

func ociSpec(s *sandbox.Spec, root string, imageMounts []specs.Mount) *specs.Spec {
	l := layout(s.Dir)
	init := Process(s, []string{inside.BinDir + "/ambit", "init"}, []string{"PATH=" + inside.DefaultPath, "GOMAXPROCS=2", "GOGC=50"}, "/", false)
	caps := []string{"CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
	init.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
	tmp := []string{"nosuid", "nodev", "mode=1777", "size=" + strconv.FormatInt(s.Limits.Memory/2, 10)}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: tmp},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: tmp},
	}
	mounts = append(mounts, imageMounts...)
	ro, rw := []string{"ro", "rbind", "nosuid", "nodev"}, []string{"rw", "rbind", "nosuid", "nodev"}
	mounts = append(mounts,
		specs.Mount{Destination: inside.Home, Type: "bind", Source: s.Home, Options: rw},
		specs.Mount{Destination: inside.Workspace, Type: "bind", Source: s.Workspace, Options: rw},
		specs.Mount{Destination: inside.Dir, Type: "bind", Source: l.ambit(), Options: ro},
		specs.Mount{Destination: inside.Dir + "/gate", Type: "bind", Source: s.Gate, Options: ro},
	)
	if s.Init != "" {
		mounts = append(mounts, specs.Mount{Destination: inside.BinDir + "/ambit", Type: "bind", Source: s.Init, Options: ro})
	}
	period := uint64(100_000)
	quota := int64(s.Limits.CPUs * float64(period))
	memory := s.Limits.Memory
	one := []specs.LinuxIDMapping{{ContainerID: inside.UID, HostID: uint32(s.UID), Size: 1}}
	group := []specs.LinuxIDMapping{{ContainerID: inside.GID, HostID: uint32(s.GID), Size: 1}}
	return &specs.Spec{
		Version:  "1.1.0",
		Process:  init,
		Root:     &specs.Root{Path: root},
		Hostname: string(s.Agent),
		Mounts:   mounts,
		Linux: &specs.Linux{
			UIDMappings: one, GIDMappings: group,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UserNamespace},
			},
			Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &memory},
				CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
			},
		},
	}
}

// writeAmbit fills what is mounted at inside.Dir.
func writeAmbit(s *sandbox.Spec) error {
	dir := layout(s.Dir).ambit()
	if err := installInit(filepath.Join(dir, "bin", "ambit"), s.Init != ""); err != nil {
		return err
	}
	config, err := json.Marshal(inside.Config{Command: s.Command, Env: s.Environ(), Dir: s.Workdir})
	if err != nil {
		return fmt.Errorf("encoding init's configuration: %w", err)
	}
	for name, content := range map[string]string{"init.json": string(config), "ca.pem": s.CA, "bundle.pem": trustStore(s) + "\n" + s.CA} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing %s for the computer: %w", name, err)
		}
	}
	return nil
}

// trustStore is the image's own list of certificate authorities, or the host's
// if it brings none.
func trustStore(s *sandbox.Spec) string {
	switch {
	case s.Image == "host":
		return sandbox.Roots("/")
	case strings.HasPrefix(s.Image, "dir:"):
		if roots := sandbox.Roots(strings.TrimPrefix(s.Image, "dir:")); roots != "" {
			return roots
		}
	default:
		if b, err := os.ReadFile(s.RootsFile()); err == nil && len(b) > 0 {
			return string(b)
		}
	}
	return sandbox.Roots("/")
}

// installInit makes room for the program that is PID 1 inside, or copies the
// running one there.
func installInit(path string, mounted bool) error {
	if mounted { // on this
		return os.WriteFile(path, nil, 0o755)
	}
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("installing init: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("installing init: %w", err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		return fmt.Errorf("installing init: %w", err)
	}
	return dst.Close()
}

// Supported says whether this machine can run a computer, and if not, what is
// missing and how to get it (ATTACKS B4). It tries the one thing that fails in
// practice: making a user namespace.
func Supported(ctx context.Context) error {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return fmt.Errorf("computers need an amd64 or arm64 machine; this is %s", runtime.GOARCH)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "launch", "--probe-child")
	cmd.Args[0] = "ambit" // any other name for /proc/self/exe would be gVisor
	cmd.SysProcAttr = probeAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("this machine does not let an ordinary user make a user namespace (%w%s), which every computer needs.\n%s", err, trimmed(out), userNamespaceRemedy())
	}
	return nil
}
