//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of processor times in /proc (USER_HZ).
const tick = 10 * time.Millisecond

// stat has the fields of /proc/PID/stat from the third on; nil if the process
// is gone.
func stat(pid int) []string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 15 {
		return nil
	}
	return f
}

func allPIDs() []int {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range list {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool {
	f := stat(pid)
	return f != nil && f[0] != "Z" && f[0] != "X"
}

// cpuTime is the processor time of one process; 0 if it is gone.
func cpuTime(pid int) time.Duration {
	f := stat(pid)
	if f == nil {
		return 0
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * tick
}

// cpuTimes is that of each of pids.
func cpuTimes(pids []int) map[int]time.Duration {
	m := make(map[int]time.Duration, len(pids))
	for _, pid := range pids {
		m[pid] = cpuTime(pid)
	}
	return m
}

// spent is the processor time between two readings.
func spent(before, after map[int]time.Duration) (sum time.Duration) {
	for pid, t := range after {
		sum += max(t-before[pid], 0)
	}
	return sum
}

// families are pids with their descendants.
func families(roots ...int) []int {
	children := map[int][]int{}
	for _, pid := range allPIDs() {
		if f := stat(pid); f != nil {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	seen := map[int]bool{}
	var all []int
	for len(roots) > 0 {
		pid := roots[0]
		roots = roots[1:]
		if !seen[pid] {
			seen[pid] = true
			all = append(all, pid)
			roots = append(roots, children[pid]...)
		}
	}
	return all
}

// withArgument finds the processes that have arg among their arguments.
func withArgument(arg string) []int {
	var found []int
	for _, pid := range allPIDs() {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && bytes.Contains(append([]byte{0}, b...), []byte("\x00"+arg+"\x00")) {
			found = append(found, pid)
		}
	}
	return found
}

// pss is the proportional set size of the processes together, in bytes: what
// they alone hold, and their share of what they hold with others.
func pss(pids []int) (sum int64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		switch {
		case errors.Is(err, os.ErrPermission):
			return 0, errors.New("the memory of the agents' processes can be read by root only: run it as root")
		case err != nil: // it has ended, or has no memory of its own
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "Pss:" {
				kib, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
				}
				sum += kib << 10
			}
		}
	}
	return sum, nil
}

// endBelow kills every process whose program is in dir, or that is a gVisor
// with its state in dir, and waits for them.
func endBelow(dir string) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		left := 0
		for _, pid := range allPIDs() {
			if pid == os.Getpid() || !alive(pid) || !isBelow(pid, dir) {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if isBelow(pid, dir) { // still the same one
				left++
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			_ = unix.Close(fd)
		}
		if left == 0 {
			return
		}
	}
}

func isBelow(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if exe, err := os.Readlink(filepath.Join(proc, "exe")); err == nil && strings.HasPrefix(exe, dir+"/") {
		return true
	}
	args, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	return err == nil && bytes.Contains(args, []byte("\x00--root="+dir+"/"))
}
