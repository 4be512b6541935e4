package worker

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"ambit/control"
)

// LandlockVersion is the Landlock version of the running kernel, 0 if it has
// none or does not allow it.
func LandlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// errNoLandlock is what a person reads where Landlock is missing (ATTACKS B4).
var errNoLandlock = errors.New("this kernel has no Landlock, with which every worker is confined, so nothing was started. " +
	"Use Linux 5.13 or newer built with CONFIG_SECURITY_LANDLOCK, and see that `landlock` is in the kernel's lsm= list " +
	"(cat /sys/kernel/security/lsm); in a container, allow the landlock system calls")

// Confinable says whether this kernel can confine a worker; the error says
// what is missing and how to get it.
func Confinable() error {
	if LandlockVersion() < 1 {
		return errNoLandlock
	}
	return nil
}

// confine leaves the worker its own folders, the files that name resolution
// needs, and outgoing connections: no other file, no listening TCP port, no
// signal to and no abstract socket of another process. What the kernel is too
// old for (TCP before 6.7, signals before 6.12) is left out; files never are.
func confine(l control.Layout) error {
	if err := Confinable(); err != nil {
		return err
	}
	files := []landlock.Rule{
		landlock.RWDirs(l.State(), l.Output(), l.Run(), l.Gate()),
		landlock.ROFiles("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/host.conf",
			"/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/resolvconf/resolv.conf",
			"/etc/localtime", "/proc/sys/net/core/somaxconn").IgnoreIfMissing(),
		landlock.RWFiles("/dev/null").IgnoreIfMissing(),
	}
	if err := landlock.V5.BestEffort().RestrictPaths(files...); err != nil {
		return fmt.Errorf("confining the worker: %w", err)
	}
	bind := landlock.MustConfig(landlock.AccessNetSet(unix.LANDLOCK_ACCESS_NET_BIND_TCP))
	if err := bind.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("confining the worker's network: %w", err)
	}
	if err := landlock.V6.BestEffort().RestrictScoped(); err != nil {
		return fmt.Errorf("confining the worker's signals: %w", err)
	}
	return nil
}
