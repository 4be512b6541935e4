package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit"
	"ambit/agent"
	"ambit/api"
	"ambit/control"
	"ambit/kek"
)

// rekey is the worker's part of a rotation.
func (f *fleet) rekey(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []control.VaultKey
	if err := json.NewDecoder(r.Body).Decode(&keys); err != nil || control.CheckVaultKeys(keys) != nil {
		http.Error(w, "no keys", http.StatusBadRequest)
		return
	}
	if f.sealless {
		http.Error(w, "the disk is full", http.StatusUnprocessableEntity)
		return
	}
	f.given = keys
	_ = json.NewEncoder(w).Encode(control.Rekeyed{Version: keys[len(keys)-1].Version, Credentials: 3})
}

func TestRotateAnAgentsKey(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	k, err := f.client.RotateKey(t.Context(), "support")
	if err != nil || k != (api.KeyRotated{Agent: "support", Version: 2, Credentials: 3}) {
		t.Fatalf("RotateKey: %+v, %v", k, err)
	}
	if len(f.given) != 2 || f.given[0].Version != 1 || f.given[1].Version != 2 {
		t.Errorf("the worker was given %d keys", len(f.given))
	}
	if e := f.events[len(f.events)-1]; e.Kind != ambit.KindAgentKey || e.Principal != principalOf(os.Geteuid()) {
		t.Errorf("logged %+v", e)
	}
	keys, err := f.client.Keys(t.Context(), "support")
	if err != nil || len(keys.Agents) != 1 || keys.Agents[0].Version != 2 || len(keys.Agents[0].Old) != 0 || keys.Root.Protection != "file" {
		t.Errorf("Keys: %+v, %v", keys, err)
	}
	if _, err := f.client.RotateKey(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no such agent") {
		t.Errorf("nobody: %v", err)
	}
	if _, err := f.client.Keys(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no such agent") {
		t.Errorf("nobody: %v", err)
	}
}

// A rotation that the worker cannot finish keeps the old key, and is finished
// by the next one without a third.
func TestRotationThatIsNotFinished(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.sealless = true
	if _, err := f.client.RotateKey(t.Context(), "support"); err == nil || !strings.Contains(err.Error(), "nothing is lost") || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("RotateKey: %v", err)
	}
	if keys, err := f.client.Keys(t.Context(), ""); err != nil || keys.Agents[0].Version != 2 || len(keys.Agents[0].Old) != 1 || keys.Agents[0].Old[0] != 1 {
		t.Errorf("Keys: %+v, %v", keys, err)
	}
	f.sealless = false
	if k, err := f.client.RotateKey(t.Context(), "support"); err != nil || k.Version != 2 {
		t.Errorf("RotateKey: %+v, %v", k, err)
	}
	f.broken = true
	if _, err := f.client.RotateKey(t.Context(), "support"); err == nil || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("without a log: %v", err)
	}
	if keys, err := f.client.Keys(t.Context(), ""); err != nil || keys.Agents[0].Version != 2 || len(keys.Agents[0].Old) != 0 {
		t.Errorf("Keys: %+v, %v", keys, err)
	}
}

func TestChangeRoot(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	path := filepath.Join(f.home, "root.key")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := f.client.ChangeRoot(t.Context(), api.ChangeRoot{}); err != nil || k.Protection != "file" {
		t.Fatalf("rotate: %+v, %v", k, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) == string(before) {
		t.Errorf("the same key is in force, %v", err)
	}
	const passphrase = "correct horse battery staple"
	k, err := f.client.ChangeRoot(t.Context(), api.ChangeRoot{Protection: "passphrase", Passphrase: []byte(passphrase)})
	if err != nil || k.Protection != "passphrase" || k.KDF == "" {
		t.Fatalf("protect: %+v, %v", k, err)
	}
	for name, c := range map[string]struct {
		change api.ChangeRoot
		want   string
	}{
		"no passphrase":      {api.ChangeRoot{}, "the passphrase is not the one"},
		"a wrong passphrase": {api.ChangeRoot{Passphrase: []byte("not that one at all")}, "the passphrase is not the one"},
		"a short one":        {api.ChangeRoot{Protection: "passphrase", Passphrase: []byte("short")}, "at least 12"},
		"a bad URL":          {api.ChangeRoot{Protection: "kms", URL: "https://kms"}, "hashivault://"},
		"no KMS":             {api.ChangeRoot{Protection: "kms", URL: "hashivault://ambit"}, "cannot talk to a KMS"},
		"no such protection": {api.ChangeRoot{Protection: "none"}, "protection"},
	} {
		_, err := f.client.ChangeRoot(t.Context(), c.change)
		var p *api.Problem
		if !errors.As(err, &p) || p.Status == http.StatusInternalServerError || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.end()
	if _, err := agent.Open(t.Context(), agent.Config{Home: f.home}); err == nil || !strings.Contains(err.Error(), "--passphrase-file") {
		t.Errorf("without a passphrase: %v", err)
	}
	if r, err := kek.Read(path); err != nil || r.Info().Kind != kek.Passphrase {
		t.Errorf("the file: %v", err)
	}
}
