//go:build linux

package gvisor

import (
	"strings"
	"testing"

	"ambit/sandbox"
)

// TestB4Remedies: each switch that takes user namespaces away gets its own
// remedy.
func TestB4Remedies(t *testing.T) {
	for path, c := range map[string]struct{ value, want string }{
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": {"1", "apparmor_parser -r"},
		"/proc/sys/kernel/unprivileged_userns_clone":             {"0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		"/proc/sys/user/max_user_namespaces":                     {"0", "sysctl -w user.max_user_namespaces="},
		"none of them":                                           {"", "CONFIG_USER_NS"},
	} {
		got := remedy(func(p string) string {
			if p == path {
				return c.value
			}
			return ""
		})
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// TestComputerHasNothingOfTheHost holds the bundle to what the design says: no
// network, one mapped id, nothing of the host but what is listed.
func TestComputerHasNothingOfTheHost(t *testing.T) {
	s := &sandbox.Spec{
		Agent: "support", Image: "host", Workdir: "/workspace", UID: 12345, GID: 12346,
		Limits: sandbox.Limits{Memory: 1 << 30, CPUs: 1, Processes: 10, Disk: 1 << 20},
		Dir:    "/h/agents/support/computer", Home: "/h/agents/support/home", Workspace: "/h/agents/support/workspace", Gate: "/h/agents/support/gate",
	}
	spec := ociSpec(s, "/h/agents/support/computer/rootfs", nil)
	for _, m := range spec.Mounts {
		if m.Type == "bind" && !strings.HasPrefix(m.Source, "/h/agents/support/") {
			t.Errorf("%s of the host is mounted at %s", m.Source, m.Destination)
		}
		writable := m.Destination == "/home/agent" || m.Destination == "/workspace"
		if m.Type == "bind" && writable == (m.Options[0] == "ro") {
			t.Errorf("%s is mounted %v", m.Destination, m.Options)
		}
	}
	if n := len(spec.Linux.UIDMappings); n != 1 || spec.Linux.UIDMappings[0].Size != 1 || spec.Linux.UIDMappings[0].HostID != 12345 {
		t.Errorf("user ids are mapped %v", spec.Linux.UIDMappings)
	}
	if !strings.Contains(strings.Join(RunArgs("/d"), " "), "--network=none") {
		t.Error("the computer is given a network")
	}
	p := Process(s, []string{"x"}, nil, "", false)
	if !p.NoNewPrivileges || p.User.UID != 1000 || len(p.Capabilities.Bounding)+len(p.Capabilities.Effective)+len(p.Capabilities.Permitted) != 0 {
		t.Errorf("programs run as %+v", p)
	}
}
