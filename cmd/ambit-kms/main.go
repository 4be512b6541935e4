// Command ambit-kms wraps and unwraps one key with a key that never leaves a
// key management service. ambit carries it and runs it for each question, see
// Program in package kek, which has the language between the two.
//
// It is a program and a module of its own: the drivers of gocloud.dev/secrets
// and the SDKs behind them double the packages that initialise themselves at
// each start, and would choose the versions of ambit's other dependencies.
// docs/design/keys.md has the figures.
//
// Settings and credentials of the services are those that their drivers
// document. Beside them VAULT_TOKEN_FILE names a file with the token for
// hashivault, as the agents of OpenBao and Vault write it.
//
// Trust: whoever starts it, and the environment it gets. The service's answer
// is passed on as bytes; the one who asked proves that it is the right key.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/awskms"        // awskms://
	_ "gocloud.dev/secrets/azurekeyvault" // azurekeyvault://
	_ "gocloud.dev/secrets/gcpkms"        // gcpkms://
	_ "gocloud.dev/secrets/hashivault"    // hashivault://
	"golang.org/x/sys/unix"
)

// timeout is shorter than the asker's, so that what is wrong is said here.
const timeout = 25 * time.Second

// maxInput bounds the question, in bytes.
const maxInput = 64 << 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := answer(ctx, os.Stdin)
	if err != nil {
		fmt.Printf("error\n%v", err)
		return
	}
	defer clear(out)
	if _, err := os.Stdout.Write(append([]byte("ok\n"), out...)); err != nil {
		os.Exit(1)
	}
}

// answer reads one question and asks the service. The drivers do not all end
// with ctx, so it is not waited for longer than that.
func answer(ctx context.Context, r io.Reader) ([]byte, error) {
	if err := hide(); err != nil {
		return nil, err
	}
	in := bufio.NewReader(io.LimitReader(r, maxInput))
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, errors.New("ambit-kms is started by ambit, not by hand")
	}
	what, url, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	data, err := io.ReadAll(in)
	if err != nil || what != "wrap" && what != "unwrap" {
		return nil, errors.New("this is not a question that ambit-kms knows")
	}
	if err := tokenFile(); err != nil {
		return nil, err
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() { // ends with the program at the latest
		defer func() {
			if x := recover(); x != nil { // a driver read an answer that was not one
				done <- result{nil, fmt.Errorf("the service answered in another language: %v", x)}
			}
		}()
		out, err := ask(ctx, what, url, data)
		done <- result{out, err}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("the service did not answer within %s", timeout)
	case r := <-done:
		return r.out, r.err
	}
}

func ask(ctx context.Context, what, url string, data []byte) (_ []byte, err error) {
	keeper, err := secrets.OpenKeeper(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keeper.Close()) }()
	if what == "wrap" {
		return keeper.Encrypt(ctx, data)
	}
	return keeper.Decrypt(ctx, data)
}

// tokenFile puts the token from VAULT_TOKEN_FILE where the driver looks.
func tokenFile() error {
	path := os.Getenv("VAULT_TOKEN_FILE")
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading VAULT_TOKEN_FILE: %w", err)
	}
	return os.Setenv("VAULT_TOKEN", strings.TrimSpace(string(b)))
}

// hide makes this process unreadable for others of its user.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hiding the memory of this process: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	return nil
}
