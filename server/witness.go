package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"ambit"
)

// verifierKey is the public key of an agent's log in the form of signed notes,
// made from the agent's seed: the worker is not asked for it. The origin is the
// note's first line; it must name this agent.
func (s *Server) verifierKey(ctx context.Context, id ambit.AgentID, checkpoint []byte) (string, error) {
	line, _, _ := bytes.Cut(checkpoint, []byte("\n"))
	origin := string(line)
	if !strings.HasPrefix(origin, "ambit/agent/"+string(id)+"/") {
		return "", fmt.Errorf("the worker's head is not of the log of %s", id)
	}
	keys, err := s.cfg.Store.Keys(ctx, id)
	if err != nil {
		return "", err
	}
	defer keys.Wipe()
	private := ed25519.NewKeyFromSeed(keys.Sign.Reveal())
	defer clear(private)
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("the signing key of %s has no public key", id)
	}
	return note.NewEd25519VerifierKey(origin, public)
}
