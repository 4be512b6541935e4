// Command ambit runs AI agents inside an operating boundary: the control plane
// (ambit serve), its command line, and the roles that serve starts.
//
// Trust: as gVisor or as one of the inner roles this program reads what others
// gave it, and the packages behind those roles say what they trust. As a
// command line it trusts the control plane, and shows nothing that came from
// an agent without making it inert first.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	// gVisor starts this binary again as itself; this comes before all else.
	if isRunsc(os.Args[0]) {
		runscMain()
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// isRunsc says whether this process is to be gVisor: started under its name, or
// by gVisor's own re-execution.
func isRunsc(argv0 string) bool {
	return argv0 == "/proc/self/exe" || strings.HasPrefix(filepath.Base(argv0), "runsc")
}
