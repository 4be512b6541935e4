//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sdkProgram builds the program of folder sdk, once.
var sdkProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "ambit-e2e-sdk-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "sdk")
	cmd := exec.Command("go", "build", "-C", "sdk", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the program with the SDKs: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// errand is what an agent runs, and what it prints when its account works.
type errand struct {
	connector, name string
	run             func(port int) string // shell line
	want            string
}

func errands() []errand {
	sdk := func(service string) func(int) string {
		return func(port int) string {
			return "/workspace/sdk -port " + strconv.Itoa(port) + " -bucket acme-data " + service
		}
	}
	node := func(service string) func(int) string {
		return func(port int) string {
			return "cd /workspace/npm && PORT=" + strconv.Itoa(port) + " $(command -v node || command -v nodejs) use.js " + service
		}
	}
	const customers = "customer cus_new ann@customer.example 42&43\nlisted cus_1\nlisted cus_2\nrefused 404 resource_missing\n"
	const model = "answer very well\nstreamed very well\n"
	return []errand{
		{"anthropic", "anthropic-sdk-go", sdk("anthropic"), model},
		{"github", "go-github", sdk("github"), "repository acme/shop\nissue 42 broken \"checkout\"\nasset notes.txt 12\n"},
		{"s3", "aws-sdk-go-v2", sdk("s3"), "signed 10000 c3d5cea5e36f1053\ntrailer 200000 ff41b7e9cc397e9d\nstream 1048576 e76e4c02227083fd\nparts 9437184 52134b81abb51a92\npresigned 5000 08026c57be31084b\nlisted 5\nlisted 4\n"},
		{"slack", "slack-go", sdk("slack"), "bot ambit Acme\nposted C0123456789 1700000000.000100\nmessage done & dusted: 100 %\n"},
		{"stripe", "stripe-go", sdk("stripe"), customers},
		{"stripe", "stripe-node", node("stripe"), customers},
		{"openai", "openai-node", node("openai"), model},
	}
}

// TestSDKs: ordinary programs do their work through the packages of the services,
// with the variables that the vault places in the computer and nothing else.
// The services see the accounts' own credentials, and the computer never does.
func TestSDKs(t *testing.T) {
	inUsr(t, "node", "nodejs")
	h := newHome(t)
	s := newServices(t)
	h.deploy(manifest("a", "", "connectors:\n", s.connection("anthropic", ""), s.connection("github", "    pin: {owner: acme, repo: shop}\n"), s.connection("openai", ""),
		s.connection("s3", "    pin: {region: eu-central-1, bucket: acme-data}\n"), s.connection("slack", "    pin: {channel: C0123456789}\n"), s.connection("stripe", "")))
	plantSDKs(h, "a")
	if r := h.sh("a", "/workspace/sdk -port "+strconv.Itoa(s.port)+" anthropic"); r.code == 0 || !strings.Contains(r.stderr, "ambit connect a anthropic") {
		t.Errorf("before the account is connected: %+v", r)
	}
	for _, name := range []string{"anthropic", "github", "openai", "s3", "slack", "stripe"} {
		s.connect(h, "a", name)
	}
	for _, e := range errands() {
		t.Run(e.name, func(t *testing.T) {
			before := s.servers[e.connector].Accepted()
			r := h.sh("a", e.run(s.port))
			if d := cmp.Diff(e.want, r.stdout); d != "" || r.code != 0 {
				t.Errorf("exit code %d\n%s\n%s", r.code, d, r.stderr)
			}
			if s.servers[e.connector].Accepted() == before {
				t.Error("the service accepted nothing")
			}
		})
	}
	if o := s.objects; o.signed == 0 || o.framed == 0 || o.urls == 0 {
		t.Errorf("bodies with a signed hash: %d, in chunks: %d, signed URLs: %d; each is to be tried", o.signed, o.framed, o.urls)
	}
	inside := h.sh("a", "env; cat /proc/[0-9]*/environ; cat /home/agent/.netrc; tar cf - /home/agent /workspace /tmp /run /etc /ambit 2>/dev/null").stdout
	for _, variable := range []string{"ANTHROPIC_API_KEY=sk-ant-", "GITHUB_TOKEN=", "OPENAI_API_KEY=sk-", "AWS_SECRET_ACCESS_KEY=", "SLACK_BOT_TOKEN=xoxb-", "STRIPE_API_KEY=", "machine github.com"} {
		if !strings.Contains(inside, variable) {
			t.Errorf("there is no %q in the computer", variable)
		}
	}
	for _, form := range s.secrets() {
		if strings.Contains(inside, form) {
			t.Errorf("%q is in the computer", form)
		}
	}
}

// plantSDKs puts the programs of folder sdk into an agent's workspace.
func plantSDKs(h *home, agent string) {
	h.t.Helper()
	program, err := sdkProgram()
	if err != nil {
		h.t.Fatal(err)
	}
	put := func(content []byte, line string) {
		h.t.Helper()
		if r, err := h.tryWith(content, "exec", agent, "--", "sh", "-ec", line); err != nil {
			h.t.Fatalf("%s: %v\n%s%s", line, err, r.stdout, r.stderr)
		}
	}
	put(program, "cat >/workspace/sdk && chmod +x /workspace/sdk")
	archives, err := filepath.Glob("sdk/npm/*.tgz")
	if err != nil || len(archives) == 0 {
		h.t.Fatalf("the packages for Node.js: %v %v", archives, err)
	}
	for _, path := range append(archives, "sdk/npm/use.js") {
		b, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		name, _, isPackage := strings.Cut(filepath.Base(path), "-")
		if !isPackage {
			put(b, "cat >/workspace/npm/"+name)
			continue
		}
		put(b, "mkdir -p /workspace/npm/node_modules/"+name+" && tar xz --strip-components=1 -C /workspace/npm/node_modules/"+name)
	}
}
