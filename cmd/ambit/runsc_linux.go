//go:build linux && !nogvisor

package main

import "gvisor.dev/gvisor/runsc/cli/maincli"

// runscMain runs the embedded gVisor with this process's arguments and exits.
func runscMain() { maincli.Main() }
