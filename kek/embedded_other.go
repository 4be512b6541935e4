//go:build !linux

package kek

import (
	"context"
	"os/exec"
)

// embedded is for where the control plane runs, which is Linux.
func embedded(context.Context) (*exec.Cmd, func(), error) { return nil, nil, ErrNoKeeper }
