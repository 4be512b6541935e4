// Command sdk is what an ordinary agent program does with an account: it calls
// a service through the SDK that programs use, with the variables that they
// read, and does not know that what it holds are references. The tests build
// it and run it inside a computer. It prints a line for each step, ends at the
// first that fails, and then prints why.
//
// It is a module of its own, so that the SDKs are linked into nothing that is
// shipped and choose no version of what is.
//
// Trust: whoever starts it. It is a test program and is not shipped.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"
)

// patience is how long one run may take.
const patience = 2 * time.Minute

// account is what a run needs to know beside the variables.
type account struct {
	port   int
	bucket string
}

// base is the address of a service's host. With the port of the test's own
// service in place of 443, an SDK must be told; with 443 it is what the SDK
// would use anyway.
func (a account) base(host string) string {
	if a.port == 443 {
		return "https://" + host
	}
	return "https://" + host + ":" + strconv.Itoa(a.port)
}

// own says whether the SDK may keep to its own addresses.
func (a account) own() bool { return a.port == 443 }

func main() {
	var a account
	flag.IntVar(&a.port, "port", 443, "port of the service")
	flag.StringVar(&a.bucket, "bucket", "", "bucket for s3")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	services := map[string]func(context.Context, account) error{
		"anthropic": useAnthropic, "github": useGitHub, "s3": useS3, "slack": useSlack, "stripe": useStripe,
	}
	use, ok := services[flag.Arg(0)]
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: sdk [-port N] [-bucket NAME] anthropic|github|s3|slack|stripe")
		os.Exit(2)
	}
	if err := use(ctx, a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
