//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

func TestDirect(t *testing.T) {
	s := newServices(t)
	dir := t.TempDir()
	b, err := sdkProgram()
	if err != nil {
		t.Fatal(err)
	}
	os.MkdirAll("/workspace/npm", 0o755)
	os.WriteFile("/workspace/sdk", b, 0o755)
	os.WriteFile("/workspace/ca.pem", []byte(s.ca), 0o644)
	hosts := ""
	for _, srv := range s.servers {
		for _, h := range srv.Hosts {
			hosts += s.addr.String() + " " + h + "\n"
		}
	}
	os.WriteFile(dir+"/hosts", []byte(hosts), 0o644)
	for _, p := range errands() {
		t.Run(p.name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "mount --bind "+dir+"/hosts /etc/hosts && "+p.run(s.port))
			v := s.values
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SSL_CERT_FILE=/workspace/ca.pem", "NODE_EXTRA_CA_CERTS=/workspace/ca.pem",
				"ANTHROPIC_API_KEY=" + v["anthropic"]["key"], "GITHUB_TOKEN=" + v["github"]["token"], "OPENAI_API_KEY=" + v["openai"]["key"],
				"AWS_ACCESS_KEY_ID=" + v["s3"]["access_key_id"], "AWS_SECRET_ACCESS_KEY=" + v["s3"]["secret_access_key"], "AWS_REGION=eu-central-1",
				"SLACK_BOT_TOKEN=" + v["slack"]["token"], "STRIPE_API_KEY=" + v["stripe"]["key"], "STRIPE_SECRET_KEY=" + v["stripe"]["key"]}
			out, err := cmd.Output()
			if d := cmp.Diff(p.want, string(out)); d != "" || err != nil {
				t.Errorf("%v\n%s\n%s", err, d, out)
			}
		})
	}
	t.Log(s.objects.framed, s.objects.signed, s.objects.urls)
}
