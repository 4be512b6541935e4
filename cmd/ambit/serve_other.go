//go:build !linux

package main

import "github.com/spf13/cobra"

// serveCommands are none: the control plane runs on Linux.
func (a *app) serveCommands() []*cobra.Command { return nil }
