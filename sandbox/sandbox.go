// Package sandbox says what an agent's computer is made of. Its drivers, in
// folders below, build and run one: sandbox/gvisor with the embedded gVisor on
// this machine. sandbox/registry fetches images, and internal/inside is
// the part that runs in the computer.
//
// Trust: a Spec comes from the control plane and from the operator's manifest.
// An image is hostile: its files are unpacked with the rights of the agent's
// own user id and are never executed outside the computer.
package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ambit"
	"ambit/internal/inside"
)

// Limits of a computer.
type Limits struct {
	Memory    int64   `json:"memory"`    // bytes, all processes and the files of its throw-away root together
	CPUs      float64 `json:"cpus"`      // cores
	Processes int     `json:"processes"` // processes and threads of the agent's user
	Disk      int64   `json:"disk"`      // bytes in /home/agent and /workspace together
}

// File is a file of the computer that is placed before it starts.
type File struct {
	Path string `json:"path"` // below /home/agent, clean
	Text string `json:"text"`
}

// Owns says whether Ambit sets the variable in every computer.
func Owns(variable string) bool {
	if strings.HasPrefix(variable, "AMBIT_") {
		return true
	}
	return slices.ContainsFunc(inside.Environ(""), func(kv string) bool { return strings.HasPrefix(kv, variable+"=") })
}

// Spec is one agent's computer.
type Spec struct {
	Agent   ambit.AgentID `json:"agent"`
	Image   string        `json:"image"`   // "host", "dir:/path" or an OCI reference by digest
	Command []string      `json:"command"` // the agent's program; empty for none
	Env     []string      `json:"env"`     // added to inside.Environ
	Workdir string        `json:"workdir"`
	Files   []File        `json:"files,omitempty"` // mode 0600, the agent's; one that the agent made or changed stays as it is
	Limits  Limits        `json:"limits"`
	CA      string        `json:"ca"`              // PEM of the agent's own certificate authority
	Roots   string        `json:"roots,omitempty"` // PEM of a private registry's authority, for the pull only

	// Folders of the host, all owned by UID.
	Dir       string `json:"dir"`       // the driver's own: bundle, image, state; wiped at will
	Home      string `json:"home"`      // becomes /home/agent
	Workspace string `json:"workspace"` // becomes /workspace
	Gate      string `json:"gate"`      // has gate.sock; mounted read-only

	// Init is the program that is PID 1 inside, mounted from where the control
	// plane keeps it; "" to copy the running program. It is not part of what
	// makes two specs differ.
	Init string `json:"init,omitempty"`

	UID int `json:"uid"` // host user that owns the computer's files and runs gVisor
	GID int `json:"gid"`
}

// Pulled says whether the image is one of a registry, and if so, whether it is
// here already.
func (s *Spec) Pulled() (remote, here bool) {
	if s.Image == "host" || strings.HasPrefix(s.Image, "dir:") {
		return false, true
	}
	st, err := os.Stat(s.ImageDir())
	return true, err == nil && st.IsDir()
}

// ImageDir is where a registry's image is unpacked.
func (s *Spec) ImageDir() string {
	_, digest, _ := strings.Cut(s.Image, "@")
	return filepath.Join(s.Dir, "images", strings.NewReplacer(":", "-", "/", "-").Replace(digest))
}

// RootsFile keeps the certificate authorities that a registry's image came with.
func (s *Spec) RootsFile() string { return s.ImageDir() + ".roots" }

// TrustStores are where distributions keep their list of authorities, in /etc.
func TrustStores() []string {
	return []string{"ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt", "ssl/cert.pem"}
}

// maxRoots bounds a list of certificate authorities, in bytes.
const maxRoots = 4 << 20

// Roots is the list of certificate authorities of a root folder, PEM; "" if it
// has none. No link is followed out of the folder.
func Roots(root string) string {
	r, err := os.OpenRoot(root)
	if err != nil {
		return ""
	}
	defer func() { _ = r.Close() }()
	for _, p := range TrustStores() {
		if b, err := r.ReadFile("etc/" + p); err == nil && len(b) > 0 && len(b) < maxRoots {
			return string(b)
		}
	}
	return ""
}

// Environ is the complete environment of programs in the computer.
func (s *Spec) Environ() []string {
	return inside.Merge(inside.Environ(string(s.Agent)), s.Env...)
}
