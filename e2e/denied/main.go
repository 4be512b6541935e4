//go:build linux

// Command denied runs a program as on a kernel that lacks something, by a
// filter on system calls: they answer as if they were not there, or not
// allowed.
//
//	denied landlock PROGRAM [ARG...]
//	denied unshare PROGRAM [ARG...]   no user namespaces
//
// Trust: it is for the end-to-end tests only; it takes rights away and gives
// none.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: denied landlock|unshare PROGRAM [ARG...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "denied:", err)
		os.Exit(3)
	}
}

func run(what string, argv []string) error {
	var filter []unix.SockFilter
	switch what {
	case "landlock":
		filter = refuse(unix.SYS_LANDLOCK_CREATE_RULESET, 0, unix.ENOSYS)
	case "unshare":
		filter = refuse(unix.SYS_CLONE, unix.CLONE_NEWUSER, unix.EPERM)
		filter = append(filter, refuse(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, unix.EPERM)...)
		filter = append(filter, refuse(unix.SYS_CLONE3, 0, unix.ENOSYS)...)
	default:
		return fmt.Errorf("nothing to deny is called %q", what)
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return syscall.Exec(path, argv, os.Environ())
}

// refuse makes a system call fail; with flags, only if its first argument has
// one of them. See seccomp_data in seccomp(2) for the offsets.
func refuse(call, flags uint32, with unix.Errno) []unix.SockFilter {
	const number, argument = 0, 16
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	fail := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(with)}
	if flags == 0 {
		return []unix.SockFilter{load(number), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1}, fail}
	}
	return []unix.SockFilter{
		load(number), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 3},
		load(argument), {Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flags, Jf: 1}, fail,
	}
}
