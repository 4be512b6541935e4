package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"ambit"
	"ambit/agent"
	"ambit/api"
	"ambit/control"
	"ambit/internal/secretbytes"
	"ambit/kek"
)

// VaultKeys are the versions of an agent's vault key as its worker is given
// them. They share the bytes of keys.
func VaultKeys(keys agent.Keys) []control.VaultKey {
	out := make([]control.VaultKey, len(keys.Vault))
	for i, k := range keys.Vault {
		out[i] = control.VaultKey{Version: k.Version, Key: k.Key.Reveal()}
	}
	return out
}

// FinishRotation does what is left of the rotation of an agent's vault key: its
// worker seals every credential with the newest version, and then the older
// ones are destroyed. It may be called at any time and again.
func FinishRotation(ctx context.Context, store *agent.Store, w *control.Client, id ambit.AgentID) (control.Rekeyed, error) {
	keys, err := store.Keys(ctx, id)
	if err != nil {
		return control.Rekeyed{}, err
	}
	defer keys.Wipe()
	newest := keys.Vault[len(keys.Vault)-1].Version
	done, err := w.Rekey(ctx, VaultKeys(keys))
	if err != nil {
		return control.Rekeyed{}, err
	}
	if done.Version != newest {
		return control.Rekeyed{}, fmt.Errorf("the worker of %s sealed with version %d of its key and was to seal with %d", id, done.Version, newest)
	}
	return done, store.RetireVaultKeys(ctx, id, newest)
}

type keysInput struct {
	Agent ambit.AgentID `query:"agent" doc:"only of this agent"`
}

func (s *Server) keys(ctx context.Context, in *keysInput) (*body[api.Keys], error) {
	root, err := s.rootKey(ctx)
	if err != nil {
		return nil, err
	}
	status, err := s.cfg.Store.KeyStatus(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	out := api.Keys{Root: root, Agents: make([]api.AgentKey, len(status))}
	for i, k := range status {
		out.Agents[i] = api.AgentKey{Agent: k.Agent, Version: k.Version, Created: k.Created, Old: append([]int{}, k.Old...)}
	}
	return &body[api.Keys]{out}, nil
}

func (s *Server) rootKey(ctx context.Context) (api.RootKey, error) {
	r, err := s.cfg.Store.Root(ctx)
	if err != nil {
		return api.RootKey{}, err
	}
	return api.RootKey{Protection: string(r.Kind), URL: r.URL, KDF: r.KDF, Created: r.Created}, nil
}

type rootInput struct{ Body api.ChangeRoot }

func (s *Server) changeRoot(ctx context.Context, in *rootInput) (*body[api.RootKey], error) {
	passphrase := secretbytes.New(in.Body.Passphrase)
	defer passphrase.Wipe()
	p := kek.Protection{Kind: kek.Kind(in.Body.Protection), URL: in.Body.URL, Passphrase: passphrase}
	var err error
	switch p.Kind {
	case kek.Passphrase:
		err = kek.CheckPassphrase(passphrase)
	case kek.KMS:
		err = kek.CheckURL(p.URL)
	}
	if err != nil {
		return nil, problem(http.StatusUnprocessableEntity, err.Error())
	}
	by := principal(ctx)
	ctx, cancel := s.detach(ctx)
	defer cancel()
	what := "a new root key, protected as the one before"
	if p.Kind != "" {
		what = "a new root key, protected in this way: " + string(p.Kind)
		if p.URL != "" {
			what += " " + p.URL
		}
	}
	if err := s.note(ctx, ambit.Event{Kind: ambit.KindControlKey, Decision: ambit.Allow, Detail: what}); err != nil {
		return nil, err
	}
	if p.Kind == "" {
		err = s.cfg.Store.RotateRoot(ctx, passphrase)
	} else {
		err = s.cfg.Store.ProtectRoot(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	root, err := s.rootKey(ctx)
	if err != nil {
		return nil, err
	}
	s.log.Info("a new root key is in force", slog.String("protection", root.Protection), slog.Any("by", by))
	return &body[api.RootKey]{root}, nil
}

// rotateKey follows the steps of agent.Store.AddVaultKey. What it does not come
// to is done when the worker starts next, or by the next rotation.
func (s *Server) rotateKey(ctx context.Context, in *AgentPath) (*body[api.KeyRotated], error) {
	id := in.Agent
	if _, err := s.cfg.Store.Get(ctx, id); err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	done, err := s.turns.take(ctx, id, "rotation of the key")
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := s.record(ctx, ambit.Event{Kind: ambit.KindAgentKey, Agent: id, Detail: "asked for by a person"}); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.AddVaultKey(ctx, id); err != nil {
		return nil, err
	}
	w, err := s.cfg.Workers.Worker(ctx, id)
	if err != nil {
		return nil, notFinished(err)
	}
	r, err := FinishRotation(ctx, s.cfg.Store, w, id)
	if err != nil {
		return nil, notFinished(err)
	}
	s.log.Info("rotated the vault key", slog.Any("agent", id), slog.Int("version", r.Version), slog.Any("by", principal(ctx)))
	return &body[api.KeyRotated]{api.KeyRotated{Agent: id, Version: r.Version, Credentials: r.Credentials}}, nil
}

func notFinished(err error) error {
	return fmt.Errorf("the rotation is not finished, and nothing is lost: the old key is kept until it is. Run the command again: %w", err)
}
