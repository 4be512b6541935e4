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
	Vault   []VaultKey    `json:"vault"`   // what encrypts credentials; by version, the newest, which seals, last
	Token   string        `json:"token"`   // what a caller of the control socket must show
	Caller  int           `json:"caller"`  // the control plane's user id; it and root may call
	Create  bool          `json:"create"`  // there is no log yet; else a missing one is an error
	Version string        `json:"version"` // of the binary

	// Delivered is how many events of the log every sink has that may block the
	// agent; nil if there is no such sink.
	Delivered *uint64 `json:"delivered,omitempty"`

	// Never is dialled for no rule, whatever it says: where the control plane
	// itself listens.
	Never []netip.AddrPort `json:"never,omitempty"`
}

// VaultKey is one version of the key that encrypts an agent's credentials.
type VaultKey struct {
	Version int    `json:"version"` // from 1
	Key     []byte `json:"key"`     // 32 bytes
}

// CheckVaultKeys says what is wrong with the versions of a vault key: there is
// at least one, each has 32 bytes, and each version is above the one before.
func CheckVaultKeys(keys []VaultKey) error {
	if len(keys) == 0 {
		return errors.New("there is no vault key")
	}
	last := 0
	for _, k := range keys {
		if k.Version <= last || len(k.Key) != 32 {
			return errors.New("the vault keys are not in order")
		}
		last = k.Version
	}
	return nil
}

// ReadStart reads a Start from the pipe.
func ReadStart(r io.Reader) (Start, error) {
	var c Start
	dec := json.NewDecoder(io.LimitReader(r, 8<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("reading the worker's configuration: %w", err)
	}
	if len(c.Data) != 32 || len(c.Sign) != 32 || CheckVaultKeys(c.Vault) != nil || c.Token == "" || c.Agent == "" || !filepath.IsAbs(c.Dir) {
		return c, errors.New("reading the worker's configuration: it is not complete")
	}
	return c, nil
}

// Layout is where things are in an agent's folder.
type Layout string

// State is where the worker keeps the log, the alerts and its sealed authority.
func (l Layout) State() string { return filepath.Join(string(l), "state") }

// Output is where the worker keeps what the agent's program wrote.
func (l Layout) Output() string { return filepath.Join(string(l), "output") }

// Run is where the worker's control socket is.
func (l Layout) Run() string { return filepath.Join(string(l), "run") }

// Gate is where the worker's gate socket is; it is seen inside the computer.
func (l Layout) Gate() string { return filepath.Join(string(l), "gate") }

// Home becomes /home/agent inside.
func (l Layout) Home() string { return filepath.Join(string(l), "home") }

// Workspace becomes /workspace inside.
func (l Layout) Workspace() string { return filepath.Join(string(l), "workspace") }

// Computer is the launcher's: bundle, images, gVisor's state.
func (l Layout) Computer() string { return filepath.Join(string(l), "computer") }

// Control is the worker's control socket.
func (l Layout) Control() string { return filepath.Join(l.Run(), "control.sock") }

// GateSock is the one way out of the computer.
func (l Layout) GateSock() string { return filepath.Join(l.Gate(), "gate.sock") }
