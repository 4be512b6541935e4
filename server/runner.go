package server

import (
	"context"
	"io"
	"time"

	"ambit"
	"ambit/control"
)

// Runner makes agents run. It is safe for concurrent use; calls for one agent
// that change something are serialised by the server.
type Runner interface {
	// Apply makes what runs of an agent agree with the store. It returns when
	// the computer runs, is stopped, or failed; the error says why in words for
	// people. A call that finds everything in agreement changes nothing.
	Apply(ctx context.Context, id ambit.AgentID) error
	// Remove stops everything of an agent and deletes its folder. The agent is
	// still in the store.
	Remove(ctx context.Context, id ambit.AgentID) error
	// Status is cheap: it asks nobody.
	Status(id ambit.AgentID) AgentStatus
	// Exec runs a program in the agent's computer and returns its exit code. The
	// error is for what kept it from running or from being followed. The end of
	// ctx ends the program.
	Exec(ctx context.Context, id ambit.AgentID, s ExecSpec, io ExecIO) (exit int, err error)
}

// Workers reaches the workers.
type Workers interface {
	// Worker returns a client for the agent's worker; it starts the worker if it
	// does not run, which it also does for an agent that is stopped: the log of
	// a stopped agent can be read and written. The caller does not close it.
	Worker(ctx context.Context, id ambit.AgentID) (*control.Client, error)
	// Running is the same without starting anything: nil if the worker does not
	// run.
	Running(id ambit.AgentID) *control.Client
	// Halt ends the agent's worker and its computer at once, without asking
	// them. The store has it as stopped. A worker that is needed later to read
	// its log is a new process. why is shown as the agent's last failure.
	Halt(ctx context.Context, id ambit.AgentID, why string) error
}

// The states of a computer.
const (
	ComputerStarting = "starting"
	ComputerRunning  = "running"
	ComputerPaused   = "paused"  // asleep; it wakes by itself
	ComputerStopped  = "stopped" // it is meant to be, or its program ended and is not restarted
	ComputerFailed   = "failed"  // Error says why
	ComputerBackoff  = "backoff" // failed, and is tried again
)

// AgentStatus is how an agent's processes are.
type AgentStatus struct {
	Worker   string    // "running", "starting", "stopped", "backoff"; "" is unknown
	Computer string    // one of the states above; "" is unknown
	Since    time.Time // of the computer's state
	Restarts int       // of the computer, since it was last started by a person
	Error    string    // the last failure in words for people; "" if there is none
	Memory   int64     // of worker and computer together, bytes; 0 is unknown
}

// ExecSpec is one program to run in a computer.
type ExecSpec struct {
	Argv   []string // at least the program's name
	Env    []string // "NAME=value", added to the agent's
	Dir    string   // "" is the agent's own
	TTY    bool     // give it a terminal
	Rows   uint16   // of the terminal, at the start
	Cols   uint16   //
	Intent string   // recorded with every call it makes
	By     ambit.Principal
}

// ExecIO is what a program reads and writes. With a terminal everything goes
// to Stdout.
type ExecIO struct {
	Stdin          io.Reader // EOF closes the program's standard input
	Stdout, Stderr io.Writer
	Resize         <-chan Size // closed when no more will come; nil without a terminal
}

// Size is a terminal's, in characters.
type Size struct{ Rows, Cols uint16 }
