// Package sandbox says what an agent's computer is made of. Its drivers, in
// folders below, build and run one: sandbox/gvisor with the embedded gVisor on
// this machine. internal/inside is the part that runs in the computer.
//
// Trust: a Spec comes from the control plane and from the operator's manifest.
// An image is hostile: its files are unpacked with the rights of the agent's
// own user id and are never executed outside the computer.
package sandbox

import (
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

// Spec is one agent's computer.
type Spec struct {
	Agent   ambit.AgentID `json:"agent"`
	Image   string        `json:"image"`   // "host", "dir:/path" or an OCI reference by digest
	Command []string      `json:"command"` // the agent's program; empty for none
	Env     []string      `json:"env"`     // added to inside.Environ
	Workdir string        `json:"workdir"`
	Limits  Limits        `json:"limits"`
	CA      string        `json:"ca"`              // PEM of the agent's own certificate authority
	Roots   string        `json:"roots,omitempty"` // PEM of a private registry's authority, for the pull only

	// Folders of the host, all owned by UID.
	Dir       string `json:"dir"`       // the driver's own: bundle, image, state; wiped at will
	Home      string `json:"home"`      // becomes /home/agent
	Workspace string `json:"workspace"` // becomes /workspace
	Gate      string `json:"gate"`      // has gate.sock; mounted read-only

	UID int `json:"uid"` // host user that owns the computer's files and runs gVisor
	GID int `json:"gid"`
}

// Environ is the complete environment of programs in the computer.
func (s *Spec) Environ() []string {
	return inside.Merge(inside.Environ(string(s.Agent)), s.Env...)
}
