package main

import "github.com/spf13/cobra"

// internalCommands are the roles of this binary that no person starts: they
// are hidden from help.
func internalCommands() []*cobra.Command { return nil }
