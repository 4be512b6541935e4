//go:build linux

// Command attacker is what the end-to-end tests run inside an agent's computer
// in place of an agent that has turned hostile. It makes raw attempts, as a
// program that knows no proxy and no manners would, and prints one JSON line for
// each: what was tried, whether it worked, and how it ended.
//
//	attacker out -host ADDR -abstract NAME   every way out but the gate
//	attacker ask [flags]                     one HTTPS request whose names do not agree
//	attacker each                            ask, for each JSON array of arguments on standard input
//	attacker raw ADDR                        standard input to ADDR, its answer to standard output
//	attacker files PATH...                   what can be read
//	attacker flood KIND                      take all there is of processes, memory, disk, descriptors, connections or output
//	attacker get N URL [VARIABLE]            N requests, one after the other, through the proxy; 0 is without end
//	attacker dial ADDR                       one connection
//
// Trust: it is hostile by design and trusted by nobody. The tests look at what
// arrived outside, and at the log, and not at its word alone.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// attempt is one line of output.
type attempt struct {
	Try    string `json:"try"`
	Worked bool   `json:"worked"`
	Detail string `json:"detail"`
}

func say(try string, worked bool, detail string) {
	_ = json.NewEncoder(os.Stdout).Encode(attempt{try, worked, detail})
}

// report is for attempts whose success is the absence of an error.
func report(try string, err error) {
	if err != nil {
		say(try, false, err.Error())
		return
	}
	say(try, true, "")
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: attacker out|ask|raw|files|flood|get ...")
		os.Exit(2)
	}
	args := os.Args[2:]
	var err error
	switch os.Args[1] {
	case "out":
		err = wayOut(args)
	case "ask":
		err = ask(args)
	case "each":
		err = each()
	case "raw":
		err = raw(args)
	case "files":
		files(args)
	case "flood":
		err = flood(args)
	case "dial":
		err = dial(args)
	case "get":
		err = get(args)
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}
