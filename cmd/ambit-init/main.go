// Command ambit-init is what runs inside an agent's computer and what launches
// it, built by itself so that it starts fast and takes little memory. The ambit
// binary carries it.
//
// Trust: inside, see package inside: nobody trusts it. As the launcher it trusts
// the control plane that starts it, and has the rights of the agent's own user.
package main

import (
	"os"

	"ambit/internal/inside"
)

func main() {
	if args := os.Args[1:]; len(args) == 2 && args[0] == "launch" {
		os.Exit(launch(args[1]))
	}
	os.Exit(inside.Main(os.Args[1:]))
}
