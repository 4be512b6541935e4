// Command testgate reads the output of `go test -json` and says in few lines
// what a person needs: each package, what failed with its output, what was
// skipped and why, and how many there were of each.
//
//	go test -json ./... | go run ./internal/testgate
//
// It exits with 1 if a test or a package failed, if a package began and never
// ended, or if a line cannot be read. With AMBIT_TEST_STRICT=1, as in CI, a
// skipped test and a run without any test fail too. So what was not tested
// never looks as if it were.
//
// Trust: testgate trusts go test to report what it ran. A test can print
// whatever it likes, and so can only make its own output look odd.
package main

import (
	"os"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout, os.Getenv("AMBIT_TEST_STRICT") == "1"))
}
