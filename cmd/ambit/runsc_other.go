//go:build !linux || nogvisor

package main

// runscMain does nothing: this build has no gVisor in it.
func runscMain() {}
