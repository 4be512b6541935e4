// Package tool decides what tools an agent may call, and with what. It is pure:
// a [Set] is compiled once from the role, tools, limits and approvals of a
// manifest and from the operator's own Cedar, all to one set of Cedar policies
// (https://docs.cedarpolicy.com), and never changes; the same call with the same
// [Facts] always gets the same verdict.
//
// A tool is allowed by its exact name, or by "source.*". Everything else takes
// away: a denied name, a scope, a limit, the role, a gate that asks a person,
// the operator's forbid. What denies wins over what asks, and both over what
// allows.
//
// Cedar leaves a policy out that errors, so that a forbid could vanish: here any
// error of any policy denies the call and names the policy. What an argument
// means is read exactly or not at all: an amount that is missing, negative, of
// two currencies or not exact is never under a limit.
//
// Policies are found by tool, source and effect, so that a decision costs the
// same with ten tools as with a thousand. Cedar of the operator's own that names
// no tool in its scope is evaluated at every call.
//
// Trust: the rules and the declarations of tools ([ambit.Tool]) are the
// operator's: whoever controls either controls what the agent may do. The
// arguments are hostile. Facts are the caller's; a total that is missing there
// denies. The zero Set and a nil one deny everything.
package tool

import (
	"time"

	"ambit"
	"ambit/internal/money"
)

// Config is what a manifest says about tools. Labels are how the operator finds
// an entry: "tools[2] (line 14)".
type Config struct {
	Agent     ambit.AgentID
	Role      string // one of Roles, or "" for none
	Tools     []Entry
	Limits    []Limit
	Approvals []Approval
	// AskAbove is up to where a spend passes the gates and the role support
	// without a person, by currency. Without an entry every spend is above.
	AskAbove map[string]money.Amount
	// Inside are domains of the operator's people: "acme.example", or
	// "*.acme.example" for all below it.
	Inside []string
	// Cedar is the operator's own; "" for none.
	Cedar string
	// CedarFile and CedarLine say where it is: the line before its first one, and
	// the file if that is not the manifest.
	CedarFile string
	CedarLine int
}

// Entry allows a tool, or denies it.
type Entry struct {
	Label string
	Tool  string // exact, or "source.*"
	Deny  bool
	// Scope has arguments that must be one of the values, as JSON texts of a
	// string, number or truth value. The key is a JSON pointer, with "*" for every
	// element of a list; all that it finds must match, and it must find something.
	Scope map[string][]string
	// Widen are effects that the role does not judge for this tool, which must be
	// exact. Gates and limits stay.
	Widen []ambit.Effect
}

// Limit is one bound of one tool, source ("source.*") or effect. Either Price
// or Calls is set.
type Limit struct {
	Label  string
	Tool   string       // exact, or "source.*"
	Effect ambit.Effect // instead of Tool
	// Window is the time over which calls are added up, in flight ones included;
	// 0 is a single call (with Price only). At most 24 hours.
	Window time.Duration
	Price  *money.Price
	Calls  int // at most; -1 if Price is set
}

// Approval says when people are asked. One for an exact tool replaces the
// default gates on it; all others add to them.
type Approval struct {
	Label  string
	Tool   string       // exact, or "source.*"
	Effect ambit.Effect // instead of Tool
	// Above asks if the amount is more, is not known, or is of another currency.
	Above *money.Price
	// Count asks if there are more things, or it is not known how many; 0 is no
	// condition. Without both conditions every call asks.
	Count int
	// Nobody is asked: the gates are removed. Only for an exact tool, and without
	// anything below.
	Nobody  bool
	From    []string // who may answer; empty is whoever may deploy the agent
	People  int      // how many different people; 0 is 1
	Expires time.Duration
}

// Series is what is added up: calls, or money of one currency, of a tool, a
// source or an effect.
type Series struct {
	Of       string // "tool shop.refunds.create", "source shop", "effect spend"
	Currency string // "" counts calls
}

// Meter is a series over a window that ends now.
type Meter struct {
	Series
	Window time.Duration
}

// Draw is what a call adds to a series.
type Draw struct {
	Series
	Amount money.Amount // of money, or the number of calls in units of money.Unit
}

// Facts is what a decision needs to know beside the call.
type Facts struct {
	// Totals has the running total of each of [Set.Meters], without this call and
	// with all calls that are in flight. One that is missing denies.
	Totals map[Meter]money.Amount
}
