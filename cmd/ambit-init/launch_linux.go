package main

import (
	"context"
	"fmt"
	"os"

	"ambit/sandbox/gvisor"
)

// launch makes the computer that standard input describes and becomes the
// gVisor in the binary runsc.
func launch(runsc string) int {
	err := gvisor.Launch(context.Background(), os.Stdin, runsc)
	fmt.Fprintln(os.Stderr, "ambit:", err)
	return 1
}
