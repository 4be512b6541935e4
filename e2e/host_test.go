//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secret is planted all over the host; it must not turn up inside.
const secret = "canary-7f3a9c51"

// TestB1TheHostIsNotThere (row B1, inside): no file, variable, process, socket
// or other agent's file of the host can be seen.
func TestB1TheHostIsNotThere(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		h.stop()
		h.env = []string{"AMBIT_CANARY=" + secret, "AWS_SECRET_ACCESS_KEY=" + secret, "SSH_AUTH_SOCK=/tmp/" + secret}
		h.serve()
		shared, err := os.MkdirTemp("", "ambit-e2e-shared-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(shared) })
		if err := errors.Join(os.Chmod(shared, 0o777), os.WriteFile(filepath.Join(shared, secret), []byte(secret), 0o644)); err != nil {
			t.Fatal(err)
		}
		h.deploy(manifest("a", ""))
		h.deploy(manifest("b", ""))
		h.plant("a")
		if r := h.sh("b", "echo "+secret+" >/home/agent/.bash_history && echo "+secret+" >/workspace/cookies"); r.code != 0 {
			t.Fatalf("b's own files: %+v", r)
		}
		env := h.sh("a", "tr '\\0' '\\n' </proc/self/environ; cat /proc/*/environ 2>/dev/null").stdout
		if !strings.Contains(env, "AMBIT_AGENT=a") || strings.Contains(env, secret) || strings.Contains(env, "AMBIT_HOME") {
			t.Errorf("environment: %s", env)
		}
		for _, a := range h.attack("a", "files", shared, h.dir, "/root", "/home/agent/..//../root", "/var/log", "/var/lib", "/var/run", "/srv", "/mnt", "/media", "/boot", "/opt",
			"/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/machine-id", "/etc/fstab", "/etc/netplan",
			"/proc/1/root", "/proc/1/cwd", "/proc/1/environ", "/proc/1/mem", "/proc/kcore", "/proc/kmsg", "/proc/sched_debug", "/proc/keys", "/proc/iomem",
			"/sys/class/dmi", "/sys/firmware", "/sys/kernel/debug", "/sys/fs/cgroup/memory/tasks", "/run", "/dev/disk", "/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/fuse",
			"/proc/self/root/root", "/proc/self/cwd/../../../../root", "/ambit/gate/../../../state", "/ambit/gate/..//../state/agent.db") {
			if a.Worked {
				t.Errorf("%s can be read: %s", a.Try, a.Detail)
			}
		}
		// Search every file that is not a program or library of the image.
		found := h.sh("a", "grep -rlsa --exclude=attacker "+secret+" /ambit /etc /home /root /var /tmp /run /srv /mnt /opt /workspace /dev/shm /proc/[0-9]*/cmdline /proc/[0-9]*/environ /proc/[0-9]*/maps | grep -v /self/ || true").stdout
		for line := range strings.Lines(found) {
			// The searching shell and grep have the word in their own arguments.
			if !strings.HasSuffix(strings.TrimSpace(line), "/cmdline") {
				t.Errorf("the host's secret is in %s", line)
			}
		}
		for what, c := range map[string]struct{ line, want string }{
			"home folders":          {"ls -A /home", "agent\n"},
			"people":                {"cut -d: -f1 /etc/passwd", "root\nnobody\nagent\n"},
			"name of the computer":  {"hostname", "a\n"},
			"what Ambit shows":      {"ls -A /ambit /ambit/gate /ambit/bin", "/ambit:\nbin\nbundle.pem\nca.pem\ngate\ninit.json\n\n/ambit/bin:\nambit\n\n/ambit/gate:\ngate.sock\n"},
			"set-user-id programs":  {"sudo -n id -u 2>&1 || su -c id 2>/dev/null || id -u | sed 's/^/still /'", "still 1000\n"},
			"writing to the system": {"touch /usr/x /etc/x /ambit/x /ambit/gate/x /ambit/bin/ambit 2>/dev/null; ls /usr/x /etc/x /ambit/x /ambit/gate/x 2>/dev/null; echo done", "done\n"},
		} {
			if r := h.sh("a", c.line); what != "set-user-id programs" && r.stdout != c.want || what == "set-user-id programs" && !strings.HasSuffix(r.stdout, c.want) {
				t.Errorf("%s: %+v", what, r)
			}
		}
		// Only init and what this exec started.
		list := h.sh("a", "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done").stdout
		for line := range strings.Lines(list) {
			f := strings.Fields(line)
			if len(f) > 0 && f[0] != "/ambit/bin/ambit" && f[0] != "sh" && f[0] != "tr" {
				t.Errorf("a process that is not the agent's: %s", line)
			}
		}
		if mounts := h.sh("a", "cat /proc/self/mountinfo /proc/mounts").stdout; mounts == "" || strings.Contains(mounts, h.dir) {
			t.Errorf("mounts show the host's folders: %s", mounts)
		}
	})
}

// TestS1AddressesFromInside (row S1, inside): however an address is written that
// no rule may open, the gate does not dial it.
func TestS1AddressesFromInside(t *testing.T) {
	here := newCanaryAt(t, netip.MustParseAddr("127.0.0.1"))
	port := fmt.Sprint(here.addr.Port())
	h := newHome(t)
	h.deploy(manifest("b", "    - {host: 127.0.0.1, ports: ["+port+"], private: true}\n"))
	h.plant("b")
	if got := h.attack("b", "ask", "-connect", "127.0.0.1:"+port, "-header", "127.0.0.1:"+port); len(here.arrived(t)) == 0 {
		t.Fatalf("a rule with private: true does not reach the host's loopback, so this test could not fail: %+v", got)
	}
	here.forget()
	h.deploy(manifest("a", "    - {host: '*.shop.example', ports: ["+port+"]}\n"))
	h.plant("a")
	questions := map[string][]string{}
	for _, host := range []string{
		"169.254.169.254", "169.254.170.2", "100.100.100.200", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.43518",
		"[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fe80::1%25eth0]", "[fe80::1]",
		"0.0.0.0", "0", "[::]", "127.0.0.1", "127.1", "127.0.0.01", "0177.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
		"localhost", "localhost.", "LOCALHOST", "a.localhost", "localhost.shop.example", "metadata.google.internal", "10.0.0.1", "192.168.0.1", "100.64.0.1",
		"224.0.0.1", "255.255.255.255", "127.0.0.1.shop.example",
	} {
		to := host + ":" + port
		questions["CONNECT "+host] = []string{"-connect", to, "-sni", "localhost", "-header", to}
		questions["plain "+host] = []string{"-plain", "-path", "http://" + to + "/", "-header", to}
		questions["gate "+host] = []string{"-gate", strings.Trim(host, "[]") + " " + port, "-sni", "localhost", "-header", to}
	}
	for _, got := range h.attackEach("a", questions) {
		if got.Worked {
			t.Errorf("%s: %s", got.Try, got.Detail)
		}
	}
	if got := here.arrived(t); len(got) > 0 {
		t.Errorf("the gate dialled the host's loopback: %v", got)
	}
	codes := map[string]int{}
	for _, c := range h.calls("a", "--denied") {
		codes[c.Reason.Code]++
	}
	if codes["host-not-allowed"] == 0 || codes["bad-request"] == 0 {
		t.Errorf("refusals in the log: %v", codes)
	}
}
