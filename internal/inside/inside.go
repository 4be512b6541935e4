// Package inside is the part of Ambit that runs inside an agent's computer: PID
// 1, which starts the agent's program and carries every connection over the one
// socket to the gate, and the small commands that a program in there can use.
//
// The computer has a loopback interface and no other. Init answers DNS on
// 127.0.0.1:53: a name that the worker confirms gets an address of 127.64.0.0/10
// of its own, on which init listens at the allowed ports; every other name does
// not exist, and no question about it leaves. Programs that know no proxy work
// therefore, and so do those that use the one on 127.0.0.1:3128.
//
// Trust: everything here runs in reach of the agent and is trusted by nobody.
// An agent that takes init over gains the socket, which it could reach anyway;
// what it says over it is judged outside. Hostile DNS questions are parsed
// here, so that they never reach the worker.
package inside

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"ambit"
	"ambit/internal/forward"

	"golang.org/x/sys/unix"
)

// Places inside the computer.
const (
	Dir        = "/ambit"                // read-only, from outside
	ConfigPath = Dir + "/init.json"      // Config
	BinDir     = Dir + "/bin"            // has ambit, this program
	Socket     = Dir + "/gate/gate.sock" // the one way out
	CAPath     = Dir + "/ca.pem"         // the agent's own certificate authority
	BundlePath = Dir + "/bundle.pem"     // the image's authorities and the agent's own
	ProxyAddr  = "127.0.0.1:3128"
	dnsAddr    = "127.0.0.1:53"
	UID        = 1000 // of the agent's program
	GID        = 1000
	Home       = "/home/agent"
	Workspace  = "/workspace"
)

// Config is what the launcher tells init, in ConfigPath.
type Config struct {
	Command []string `json:"command"` // empty: no program, the computer waits for exec
	Env     []string `json:"env"`     // the program's environment, complete
	Dir     string   `json:"dir"`     // the program's working directory
}

// Main runs one of the commands of this side and returns the exit code.
func Main(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "init":
			return runInit()
		case "intent":
			return runIntent(args[1:])
		case "end":
			return runEnd(args[1:])
		case "help", "--help", "-h":
			fmt.Print(usage)
			return 0
		}
	}
	fmt.Fprint(os.Stderr, usage)
	return 2
}

const usage = `This computer belongs to an agent; Ambit decides what may leave it.

  ambit intent TEXT -- COMMAND [ARG...]   run COMMAND, and state TEXT as the intent of its calls

Example:
  ambit intent "look up order 1001" -- curl https://api.shop.example/orders/1001
`

func runInit() int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "ambit init: this is for PID 1 of an agent's computer only")
		return 2
	}
	c, err := readConfig()
	if err == nil {
		// The agent's program runs as UID; as another user, init cannot be
		// traced or signalled by it.
		err = becomeRoot()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ambit init:", err)
		return 125
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	g := gateway{socket: Socket}
	if err := g.serve(ctx, netip.MustParsePrefix("127.64.0.0/10")); err != nil {
		fmt.Fprintln(os.Stderr, "ambit init:", err)
		return 125
	}
	return runProgram(ctx, c, &g)
}

func readConfig() (Config, error) {
	var c Config
	b, err := os.ReadFile(ConfigPath)
	if err != nil {
		return c, fmt.Errorf("reading its configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("reading its configuration: %w", err)
	}
	return c, nil
}

// becomeRoot keeps the group, which is what may use the gate's socket: init has
// no capability to pass over file permissions.
func becomeRoot() error {
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("becoming the computer's root: %w", err)
	}
	// What init was started with could be inherited; no program shall have it.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("reading init's capabilities: %w", err)
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps[0])), 0) //nolint:gosec // capset(2) takes pointers
	if errno != 0 {
		return fmt.Errorf("dropping inheritable capabilities: %w", errno)
	}
	return nil
}

// runIntent replaces itself by a command whose calls through the proxy carry
// the intent.
func runIntent(args []string) int {
	if len(args) < 3 || args[1] != "--" || strings.TrimSpace(args[0]) == "" {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if len(args[0]) > ambit.MaxIntent {
		fmt.Fprintf(os.Stderr, "ambit intent: the intent has %d bytes; at most %d are kept\n", len(args[0]), ambit.MaxIntent)
		return 2
	}
	path, err := lookPath(args[2], os.Getenv("PATH"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "ambit intent: %v\n", err)
		return 127
	}
	env := WithIntent(os.Environ(), args[0])
	err = syscall.Exec(path, args[2:], env)
	fmt.Fprintf(os.Stderr, "ambit intent: starting %s: %v\n", path, err)
	return 126
}

// runEnd ends a process group; the control plane runs it, as the agent's user,
// when the person who had a program run has gone.
func runEnd(args []string) int {
	if len(args) != 1 {
		return 2
	}
	group, err := strconv.Atoi(args[0])
	if err != nil || group <= 1 || syscall.Kill(-group, syscall.SIGKILL) != nil {
		return 1
	}
	return 0
}

// header writes the first line of a connection to the gate.
func header(h forward.Header) []byte { return []byte(h.String()) }
