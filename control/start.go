package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"

	"ambit"
)

// Start is what the control plane hands to a worker over an inherited pipe: what
// to enforce, and its keys. It is never written to a file, an argument or the
// environment.
type Start struct {
	Agent   ambit.AgentID `json:"agent"`
	Dir     string        `json:"dir"`     // the agent's folder, absolute; see Layout
	Policy  Policy        `json:"policy"`  // the manifest to enforce
	Data    []byte        `json:"data"`    // 32 bytes: the data-encryption key
	Sign    []byte        `json:"sign"`    // 32 bytes: the seed of the log's signing key
	Token   string        `json:"token"`   // what a caller of the control socket must show
	Caller  int           `json:"caller"`  // the control plane's user id; it and root may call
	Create  bool          `json:"create"`  // there is no log yet; else a missing one is an error
	Version string        `json:"version"` // of the binary

	// Never is dialled for no rule, whatever it says: where the control plane
	// itself listens.
	Never []netip.AddrPort `json:"never,omitempty"`
}

// ReadStart reads a Start from the pipe.
func ReadStart(r io.Reader) (Start, error) {
	var c Start
	dec := json.NewDecoder(io.LimitReader(r, 8<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("reading the worker's configuration: %w", err)
	}
	if len(c.Data) != 32 || len(c.Sign) != 32 || c.Token == "" || c.Agent == "" || !filepath.IsAbs(c.Dir) {
		return c, errors.New("reading the worker's configuration: it is not complete")
	}
	return c, nil
}

// Layout is where things are in an agent's folder.
type Layout string

// The folders, and who writes there.
func (l Layout) State() string     { return filepath.Join(string(l), "state") }     // worker: log, alerts, sealed CA
func (l Layout) Output() string    { return filepath.Join(string(l), "output") }    // worker: what the program wrote
func (l Layout) Run() string       { return filepath.Join(string(l), "run") }       // worker: its control socket
func (l Layout) Gate() string      { return filepath.Join(string(l), "gate") }      // worker: the gate socket, seen inside
func (l Layout) Home() string      { return filepath.Join(string(l), "home") }      // computer: /home/agent
func (l Layout) Workspace() string { return filepath.Join(string(l), "workspace") } // computer: /workspace
func (l Layout) Computer() string  { return filepath.Join(string(l), "computer") }  // launcher: bundle, images, state
func (l Layout) Control() string   { return filepath.Join(l.Run(), "control.sock") }
func (l Layout) GateSock() string  { return filepath.Join(l.Gate(), "gate.sock") }
