// Command ambit-init is what runs inside an agent's computer, built by itself
// so that it starts fast and takes little memory. The ambit binary carries it.
//
// Trust: see package inside; nobody trusts it.
package main

import (
	"os"

	"ambit/internal/inside"
)

func main() { os.Exit(inside.Main(os.Args[1:])) }
