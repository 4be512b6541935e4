// Package manifest reads the YAML file in which an operator says what an agent
// is: its computer, the accounts it may use, the tools it may call and who is
// asked before, where it may connect to, what people are alerted to, how long its
// log is kept.
// [Parse] returns a complete [Manifest] with every default filled in, or every
// problem of the file at once, each with line, column and what would be right.
// [Schema] is the same language as a JSON Schema, for editors.
//
// The file is YAML without surprises: one document, no aliases, anchors, merge
// keys or tags, no key twice, nothing empty, and no key that this version does
// not know. A value is never converted: a number is not text and text is not a
// number.
//
// A manifest opens and never closes: an empty one allows nothing, and a mistake
// in it refuses the whole file rather than one rule.
//
// Trust: the author of a manifest is trusted to decide what the agent may
// reach; with private and resolve they can open the operator's own network,
// and with image "dir:" they show the agent a folder of the host. The bytes are
// not trusted: size, nesting, number of keys and every echoed character are
// bounded or escaped, and the YAML parser sees no construct that the language
// does not have.
package manifest

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"ambit"
	"ambit/internal/strictyaml"
)

// MaxSize is the largest manifest in bytes: 1 MiB. It is checked before
// anything is parsed.
const MaxSize = 1 << 20

// Version is the only value of the key "ambit" that this release reads.
const Version = "v1"

// Manifest is what one file says, with every default filled in.
type Manifest struct {
	Name        ambit.AgentID // names the agent within its home
	Description string        // at most 500 characters, none of them a control character; may be ""
	Computer    Computer
	Connectors  []Connection // the accounts that it may use, in the order of the file
	Upstreams   []Upstream   // servers of tools that others run
	Role        string       // one of Roles; "" is none
	Tools       []Tool       // what it may call; none is nothing
	Limits      []Limit      // of tools and effects, beside those of Tools
	Approvals   []Approval   // when people are asked, beside the default gates
	Inside      []string     // domains of the operator's own people
	Cedar       Cedar        // the operator's own policy about tools
	Egress      Egress
	Alerts      []Alert // in the order of the file
	Audit       Audit
}

// Computer is what the agent's program runs on.
type Computer struct {
	Image     Image             // default: the host's /usr
	Command   []string          // the program and its arguments; nil: the computer idles until something is executed in it
	Env       map[string]string // added to the program's environment; never one of the names that Ambit sets itself
	Workdir   string            // absolute and clean; default /workspace
	Memory    Bytes             // 64MiB to 16TiB, default 1GiB
	CPUs      float64           // cores, 0.01 to 1024, default 1
	Processes int               // processes and threads, 8 to 32768, default 256
	Disk      Bytes             // of /home/agent and /workspace together, 64MiB to 16TiB, default 2GiB
	Restart   Restart           // default on-failure
	// RegistryCA is PEM certificates that are trusted, beside the system's, for
	// pulling the image; "" for none. Only with an OCI image.
	RegistryCA string
}

// ImageKind says where the root of a computer comes from. The zero value is no
// kind: a consumer refuses it.
type ImageKind uint8

// The kinds of image.
const (
	ImageHost ImageKind = iota + 1 // the host's /usr, read-only, with an /etc made for the agent
	ImageOCI                       // an OCI image, by digest
	ImageDir                       // a folder of the host
)

// Image is the root of a computer.
type Image struct {
	Kind ImageKind
	// Ref is "" for the host, "registry/name@sha256:<64 hex>" for an OCI image,
	// and an absolute clean path for a folder.
	Ref string
}

// String returns the image as it is written in a manifest.
func (i Image) String() string {
	switch i.Kind {
	case ImageHost:
		return "host"
	case ImageOCI:
		return i.Ref
	case ImageDir:
		return "dir:" + i.Ref
	}
	return ""
}

// Restart says when a computer whose program ended is started again.
type Restart string

// The restart policies.
const (
	RestartNever     Restart = "never"
	RestartOnFailure Restart = "on-failure" // when the exit status is not 0; the default
	RestartAlways    Restart = "always"
)

// Egress is what the agent may reach. Without a rule it reaches nothing.
type Egress struct {
	Intent Intent
	Allow  []Rule // in the order of the file
}

// Intent says whether a call must state what it is for.
type Intent string

// The values of egress.intent.
const (
	IntentOptional Intent = "optional" // an unstated intent is logged as such; the default
	IntentRequired Intent = "required" // a call without a stated intent is refused
)

// Rule allows calls to one host, or to the hosts under one suffix. All of its
// conditions must hold. A nil list or map is no condition; a list is never
// empty but nil.
type Rule struct {
	Index int    // position in egress.allow, from 0
	Line  int    // line in the file, from 1
	Name  string // a label for people; "" if it has none

	// Host is a name in canonical form (lower case, A-labels, no trailing dot),
	// "*." and such a name of at least two labels, or an IP address in the form
	// netip.Addr.String writes.
	Host  string
	Ports []uint16 // never empty; default 443, or 80 if TLS is TLSNone
	// Methods are upper-case HTTP methods.
	Methods []string
	// Paths are patterns in percent-encoded form that start with "/": "*" is any
	// text within a segment, a segment "**" is any number of segments.
	Paths []string
	// Query has parameters, decoded, that must be there exactly once with one of
	// the values.
	Query map[string][]string
	// Headers has fields, by canonical name (net/http.CanonicalHeaderKey), that
	// must be there exactly once with one of the values.
	Headers map[string][]string

	TLS     TLS
	Private bool         // opens private and loopback addresses, and nothing else
	Resolve []netip.Addr // dialled instead of what DNS says
	// CA is PEM certificates that are trusted, beside the system's, for this
	// host; "" for none.
	CA        string
	WebSocket bool // allows the upgrade to WebSocket
}

// Label names the rule so that an operator finds it:
// `egress.allow[2] "name" (line 14)`, or without the name if it has none.
func (r *Rule) Label() string {
	if r.Name == "" {
		return fmt.Sprintf("egress.allow[%d] (line %d)", r.Index, r.Line)
	}
	return fmt.Sprintf("egress.allow[%d] %q (line %d)", r.Index, r.Name, r.Line)
}

// TLS says what the gate does with a connection to a host. The zero value is
// none of them: a consumer refuses it.
type TLS string

// The values of a rule's tls.
const (
	TLSTerminate   TLS = "terminate"   // opened with the agent's own CA, judged by request; the default
	TLSPassthrough TLS = "passthrough" // not opened, judged by the name in the handshake alone: weaker
	TLSNone        TLS = "none"        // plain HTTP
)

// Audit says how the agent's log is kept.
type Audit struct {
	Retention Retention // default 90 days
}

// Bytes is a size in bytes.
type Bytes int64

// The units of a size.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

// String returns the size as it is written in a manifest, in the largest unit
// that it is a whole number of: "1536MiB"; "1000B" if it is none.
func (b Bytes) String() string {
	for _, u := range sizeUnits {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Retention is how long entries are kept, in whole days, or [Forever].
type Retention time.Duration

// Forever keeps everything.
const Forever Retention = math.MaxInt64

// Day is 24 hours.
const Day Retention = Retention(24 * time.Hour)

// String returns "90d", or "forever".
func (r Retention) String() string {
	if r == Forever {
		return "forever"
	}
	return strconv.FormatInt(int64(r/Day), 10) + "d"
}

// The defaults. Those that are not here are named at the fields.
const (
	DefaultWorkdir          = "/workspace"
	DefaultMemory           = GiB
	DefaultCPUs             = 1.0
	DefaultProcesses        = 256
	DefaultDisk             = 2 * GiB
	DefaultRetention        = 90 * Day
	DefaultPort      uint16 = 443
	DefaultPlainPort uint16 = 80
)

// Parse reads a manifest. file is its name in messages. An error is always of
// type [Errors]: all problems at once, as far as the file could be read. (A
// file that is not the YAML of a manifest is not judged further.)
func Parse(file string, src []byte) (*Manifest, error) {
	r, root := strictyaml.Decode(language(), file, src)
	d := &decoder{r}
	var m *Manifest
	if root.Given() {
		m = d.manifest(root)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return m, nil
}

// Error is one problem of a manifest: where it is, what is wrong and what
// would be right.
type Error = strictyaml.Error

// Errors is what Parse returns when a manifest is refused: every problem, in
// the order of the file, at most 20.
type Errors = strictyaml.Errors
