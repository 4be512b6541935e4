package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"ambit"
	"ambit/manifest"
	"ambit/sandbox"

	"golang.org/x/sys/unix"
)

// overhead is what a computer's kernel may take beside the agent's programs.
const overhead = 96 << 20

// limiter holds computers to their memory, processor and task limits with
// control groups (version 2, or 1 where that is what the machine has). Where
// they are not delegated to us the keepers' watch over memory is all there is,
// which is weaker: it looks once a second.
type limiter struct {
	roots map[string]string // controller to the folder in which groups are made; nil: none
	v2    bool
}

func newLimiter(home string, log *slog.Logger) *limiter {
	name := "ambit-" + strings.ReplaceAll(strings.Trim(home, "/"), "/", "-")
	l, err := openCgroups("/sys/fs/cgroup", name)
	if err != nil {
		log.Warn("limits are watched, not enforced by the kernel: no control group is delegated to this process", slog.Any("reason", err))
		return &limiter{}
	}
	return l
}

// enforced says whether the kernel holds the limits.
func (l *limiter) enforced() bool { return l.roots != nil }

func openCgroups(mount, name string) (*limiter, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return openCgroup2(mount, name)
	}
	l := &limiter{roots: map[string]string{}}
	for _, c := range []string{"memory", "cpu", "pids"} {
		dir := filepath.Join(mount, c, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		l.roots[c] = dir
	}
	return l, nil
}

func openCgroup2(mount, name string) (*limiter, error) {
	base := mount
	if os.Geteuid() != 0 {
		own, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return nil, err
		}
		_, path, _ := strings.Cut(strings.TrimSpace(string(own)), "::")
		base = filepath.Join(mount, path)
		// A group with processes may not hand controllers on, so step aside.
		aside := filepath.Join(base, "ambit-serve")
		if err := os.Mkdir(aside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := write(aside, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(base, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	for _, d := range []string{base, dir} {
		if err := write(d, "cgroup.subtree_control", "+memory +cpu +pids"); err != nil {
			return nil, err
		}
	}
	return &limiter{v2: true, roots: map[string]string{"memory": dir, "cpu": dir, "pids": dir}}, nil
}

func write(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
}

// add puts a process, and so all that it starts, under the limits.
func (l *limiter) add(id ambit.AgentID, pid int, s sandbox.Limits) {
	period := 100_000
	quota := max(int(s.CPUs*float64(period)), 1000)
	memory, tasks := strconv.FormatInt(s.Memory+overhead, 10), strconv.Itoa(4*s.Processes+512)
	settings := map[string][][2]string{
		"memory": {{"memory.limit_in_bytes", memory}},
		"cpu":    {{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", strconv.Itoa(quota)}},
		"pids":   {{"pids.max", tasks}},
	}
	if l.v2 {
		settings["memory"] = [][2]string{{"memory.max", memory}, {"memory.swap.max", "0"}}
		settings["cpu"] = [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, period)}}
	}
	for controller, root := range l.roots {
		dir := filepath.Join(root, string(id))
		_ = os.Mkdir(dir, 0o755)
		for _, kv := range settings[controller] {
			_ = write(dir, kv[0], kv[1])
		}
		_ = write(dir, "cgroup.procs", strconv.Itoa(pid))
	}
}

// remove deletes an agent's groups once nothing is in them.
func (l *limiter) remove(id ambit.AgentID) {
	for _, root := range l.roots {
		dir := filepath.Join(root, string(id))
		for range 20 {
			if err := os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(5 * time.Millisecond) // the last process is being buried
		}
	}
}

// close deletes the home's groups; one that an agent is still in stays.
func (l *limiter) close() {
	for _, root := range l.roots {
		_ = os.Remove(root)
	}
}

// outOfMemory says whether the kernel ended something of the agent's because
// of its memory limit.
func (l *limiter) outOfMemory(id ambit.AgentID) bool {
	if !l.enforced() {
		return false
	}
	dir := filepath.Join(l.roots["memory"], string(id))
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
				return true
			}
		}
	}
	return false
}

// diskWatch counts what /home/agent and /workspace hold. Counting walks the
// folders, so it is done when much has been written on the disk since, and at
// the latest every diskEvery.
type diskWatch struct {
	counting *atomic.Bool
	used     *atomic.Int64
	last     time.Time
	worked   string // processor time of the computer's kernel at the last look
	free     uint64 // of the file system at the last count, in bytes
}

const diskEvery = 30 * time.Second

// checkLimits looks after what the kernel does not limit.
func (k *keeper) checkLimits(ctx context.Context) {
	c := k.computer
	if c == nil || c.spec.Limits.Memory == 0 {
		return
	}
	// A computer whose kernel did nothing took nothing.
	worked := processorTime(c.pid)
	if worked == k.disk.worked && k.disk.used != nil && k.disk.used.Load() <= c.spec.Limits.Disk {
		return
	}
	k.disk.worked = worked
	memory := sandboxMemory(c.pid)
	if memory > 0 && memory != k.state.Memory {
		k.state.Memory = memory
		k.show()
	}
	if limit := c.spec.Limits.Memory + overhead; !k.fleet.limiter.enforced() && memory > limit {
		k.killComputer(ctx, fmt.Sprintf("it took more than its memory limit of %s (computer.memory)", manifest.Bytes(c.spec.Limits.Memory)))
		return
	}
	if k.disk.counting == nil {
		k.disk = diskWatch{counting: new(atomic.Bool), used: new(atomic.Int64), worked: worked}
	}
	d, limit := &k.disk, c.spec.Limits.Disk
	if used := d.used.Load(); used > limit {
		k.killComputer(ctx, fmt.Sprintf("its files take %s, more than its disk limit of %s (computer.disk); raise the limit, or delete files of the agent's folder %s",
			manifest.Bytes(used), manifest.Bytes(limit), filepath.Dir(c.spec.Home)))
		return
	}
	var st unix.Statfs_t
	if unix.Statfs(c.spec.Home, &st) != nil {
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	written := int64(d.free) - int64(free)
	if time.Since(d.last) < diskEvery && written < max((limit-d.used.Load())/2, 1<<20) || d.counting.Swap(true) {
		return
	}
	d.last, d.free = time.Now(), free
	used, counting, folders := d.used, d.counting, []string{c.spec.Home, c.spec.Workspace}
	k.fleet.wg.Go(func() {
		defer counting.Store(false)
		used.Store(diskUse(k.fleet.ctx, folders))
	})
}

// processorTime is how long a process has run so far, in the kernel's own words;
// it changes when the process has done something.
func processorTime(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(rest); len(f) > 12 {
		return f[11] + " " + f[12]
	}
	return ""
}

// diskUse is what the folders take on the disk, in bytes.
func diskUse(ctx context.Context, folders []string) (sum int64) {
	for _, dir := range folders {
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return fs.SkipAll
			}
			if err != nil {
				return nil //nolint:nilerr // it may vanish while we count
			}
			if info, err := e.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					sum += st.Blocks * 512
				}
			}
			return nil
		})
	}
	return sum
}

// sandboxMemory is what a computer's programs and kernel hold, in bytes: the
// resident pages of the kernel's process and the file that backs the programs'
// memory. 0 if it cannot be read.
func sandboxMemory(pid int) int64 {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	b, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return 0
	}
	resident, err1 := strconv.ParseInt(f[1], 10, 64)
	shared, err2 := strconv.ParseInt(f[2], 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return max(resident-shared, 0)*int64(os.Getpagesize()) + memoryFile(proc)
}

// memoryFile is the size of gVisor's memory file as far as it is filled.
func memoryFile(proc string) (sum int64) {
	list, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return 0
	}
	for _, e := range list {
		p := filepath.Join(proc, "fd", e.Name())
		if to, err := os.Readlink(p); err != nil || !strings.HasPrefix(to, "/memfd:runsc-memory") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Blocks*512 > sum {
			sum = st.Blocks * 512
		}
	}
	return sum
}
