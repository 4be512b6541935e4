package gvisor

import (
	"os"
	"strings"
	"syscall"
)

// probeAttr starts a process in a user namespace as an ordinary user would.
func probeAttr() *syscall.SysProcAttr {
	uid, gid := os.Getuid(), os.Getgid()
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
}

func trimmed(out []byte) string {
	s := strings.TrimSpace(string(out))
	if len(s) > 300 {
		s = s[:300]
	}
	if s != "" {
		s = ": " + s
	}
	return s
}

// userNamespaceRemedy says what to do on this machine, from the switches that
// distributions have.
func userNamespaceRemedy() string {
	read := func(p string) string {
		b, err := os.ReadFile(p)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return remedy(read)
}

// remedy chooses the words; read gives a sysctl file's content, "" if it is
// not there.
func remedy(read func(path string) string) string {
	switch {
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "Ubuntu's AppArmor restricts them. Allow them for ambit alone, as root:\n" +
			"  printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile ambit /**/ambit* flags=(unconfined) {\\n  userns,\\n}\\n' > /etc/apparmor.d/ambit && apparmor_parser -r /etc/apparmor.d/ambit\n" +
			"or for every program:\n  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "Allow them, as root:\n  sysctl -w kernel.unprivileged_userns_clone=1"
	case read("/proc/sys/user/max_user_namespaces") == "0":
		return "Allow them, as root:\n  sysctl -w user.max_user_namespaces=15000"
	}
	return "In a container, run it with user namespaces and mounts allowed (for Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined); otherwise use a kernel with CONFIG_USER_NS."
}
