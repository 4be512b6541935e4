//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme does what the README says: its manifest is deployed, its commands
// are run one by one, and what it quotes is what comes.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	h := newHome(t)
	dir := filepath.Join(filepath.Dir(h.dir), "w")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // for the ordinary user
		t.Fatal(err)
	}
	yaml := blocks(readme, "yaml")
	if len(yaml) != 1 {
		t.Fatalf("the README has %d manifests, want 1", len(yaml))
	}
	if err := os.WriteFile(filepath.Join(dir, "support.yaml"), []byte(yaml[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	const token = "ghp_REALrealREALrealREALrealREAL00aaaa"
	if err := os.WriteFile(filepath.Join(dir, "token.txt"), []byte(token+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sh := blocks(readme, "sh")
	if len(sh) != 2 {
		t.Fatalf("the README has %d blocks of commands, want 2: to start, and an agent of your own", len(sh))
	}
	out := ""
	for line := range strings.Lines(sh[1]) {
		line = strings.TrimSpace(line)
		cmd := h.command()
		cmd.Path, cmd.Args, cmd.Dir = "/bin/sh", []string{"sh", "-c", line}, dir
		cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(h.bin)+":"+os.Getenv("PATH"))
		said, err := cmd.CombinedOutput()
		if refused := strings.HasSuffix(line, "# refused"); (err != nil) != refused {
			t.Errorf("%s: %v\n%s", line, err, said)
		}
		out += string(said)
	}
	quote := strings.Join(blocks(readme, "json"), "")
	for _, m := range regexp.MustCompile(`(?m)^ +("(?:type|title|detail|rule|remedy)"): (".*?"),?$`).FindAllStringSubmatch(quote, -1) {
		if field := m[1] + ":" + m[2]; !strings.Contains(out, field) {
			t.Errorf("the README quotes %s, which did not come:\n%s", field, out)
		}
	}
	if strings.Contains(out, token) {
		t.Errorf("a command shows the token:\n%s", out)
	}
	for _, want := range []string{"no rule allows paste.example", "is whole", "github of support is connected", "\nghp_"} {
		if !strings.Contains(out, want) {
			t.Errorf("the commands do not say %q:\n%s", want, out)
		}
	}
}

// TestReadmeStart: the two commands to start with are there.
func TestReadmeStart(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for line := range strings.Lines(blocks(string(text), "sh")[0]) {
		command, _, _ := strings.Cut(line, "#")
		words := strings.Fields(command)
		if len(words) != 2 || words[0] != "make" {
			t.Fatalf("%q is not a make target", line)
		}
		targets = append(targets, words[1])
		out, err := exec.Command("make", "-C", "..", "-n", words[1]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), map[string]string{"demo": "ambit demo", "test": "scripts/test"}[words[1]]) {
			t.Errorf("make -n %s: %v\n%s", words[1], err, out)
		}
	}
	if strings.Join(targets, " ") != "demo test" {
		t.Errorf("the README starts with make %q", targets)
	}
}

// TestReadmeLinks: what the README links to within the repository is there.
func TestReadmeLinks(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		page, err := os.ReadFile(filepath.Join("..", m[1]))
		if info, statErr := os.Stat(filepath.Join("..", m[1])); statErr == nil && info.IsDir() {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", m[0], err)
			continue
		}
		if m[2] != "" && !anchors(string(page))[m[2]] {
			t.Errorf("%s: there is no such heading", m[0])
		}
	}
}

// blocks are the fenced blocks of a language.
func blocks(markdown, language string) (found []string) {
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		found = append(found, m[1])
	}
	return found
}

// anchors are the links to a page's headings, as GitHub makes them.
func anchors(markdown string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(markdown, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found["#"+strings.ReplaceAll(name, " ", "-")] = true
	}
	return found
}
