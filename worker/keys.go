package worker

import (
	"context"

	"ambit/control"
)

// rekey takes every version of the agent's vault key. Whatever the agent has
// that is sealed with an older version is sealed with the newest when it
// returns; so far that is nothing.
func (w *Worker) rekey(_ context.Context, keys []control.VaultKey) (control.Rekeyed, error) {
	defer func() {
		for _, k := range keys {
			clear(k.Key)
		}
	}()
	if err := control.CheckVaultKeys(keys); err != nil {
		return control.Rekeyed{}, err
	}
	return control.Rekeyed{Version: keys[len(keys)-1].Version}, nil
}
