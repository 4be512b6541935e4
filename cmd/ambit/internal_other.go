//go:build !linux

package main

import "github.com/spf13/cobra"

func internalCommands() []*cobra.Command { return nil }
