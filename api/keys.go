package api

import (
	"time"

	"ambit"
)

// Keys says how the keys of a home are.
type Keys struct {
	Root   RootKey    `json:"root"`
	Agents []AgentKey `json:"agents" doc:"by name"`
}

// RootKey says how the key that wraps all others is protected.
type RootKey struct {
	Protection string    `json:"protection" enum:"file,passphrase,kms"`
	URL        string    `json:"url,omitempty" doc:"of the KMS key"`
	KDF        string    `json:"kdf,omitempty" doc:"how a passphrase becomes a key, with its parameters"`
	Created    time.Time `json:"created,omitzero" required:"false" doc:"missing is unknown"`
}

// AgentKey says how the key that encrypts an agent's credentials is.
type AgentKey struct {
	Agent   ambit.AgentID `json:"agent"`
	Version int           `json:"version" doc:"with which credentials are sealed"`
	Created time.Time     `json:"created,omitzero" required:"false" doc:"of that version; missing is unknown"`
	Old     []int         `json:"old" doc:"versions that a rotation has not destroyed yet; none is the usual"`
}

// ChangeRoot asks for a new root key.
type ChangeRoot struct {
	Protection string `json:"protection,omitempty" enum:"file,passphrase,kms" doc:"how the new key is protected; missing is as the old one"`
	URL        string `json:"url,omitempty" doc:"of the KMS key, for kms"`
	Passphrase []byte `json:"passphrase,omitempty" doc:"base64: the new one for passphrase; the one in use where a passphrase is kept"`
}

// KeyRotated is what the rotation of an agent's key did.
type KeyRotated struct {
	Agent       ambit.AgentID `json:"agent"`
	Version     int           `json:"version" doc:"with which every credential is sealed now"`
	Credentials int           `json:"credentials" doc:"how many were sealed again"`
}
