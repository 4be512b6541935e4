// Package outputs reads the YAML file in which an operator says what leaves the
// logs: sinks that events are streamed to, witnesses that cosign heads, where heads
// are published, and who is notified of what. [Parse] returns a complete [Config]
// with every default filled in, or every problem of the file at once, each with
// line, column and what would be right. [Schema] is the same language as a JSON
// Schema, for editors. docs/outputs.md is the manual.
//
// The file has no secrets: it names files that do, and [ReadSecret] reads those.
//
// Trust: the author of the file is trusted to decide who sees what the logs say.
// Whoever could change it could send everything elsewhere, or silence a
// notification. The bytes are not trusted: they are read by package strictyaml.
package outputs

import (
	"bytes"
	_ "embed"
	"time"

	"ambit"
	"ambit/internal/strictyaml"
)

// MaxSize is the largest file in bytes: 1 MiB.
const MaxSize = 1 << 20

// Version is the only value of the key "ambit" that this release reads.
const Version = "v1"

// Config is what one file says.
type Config struct {
	Sinks     []Sink
	Witnesses []Witness
	Heads     *Heads // nil if heads are not published
	Notify    []Notify
}

// Kind is the kind of a sink.
type Kind string

// The kinds of sinks.
const (
	Syslog  Kind = "syslog"
	Splunk  Kind = "splunk"
	OTLP    Kind = "otlp"
	Webhook Kind = "webhook"
	S3      Kind = "s3"
	File    Kind = "file"
)

// Sink is one place that events are streamed to. Which fields belong to which
// kind is in docs/outputs.md; the others are zero.
type Sink struct {
	Line     int    // in the file, from 1
	Name     string // unique among the sinks: 1 to 40 of a-z, 0-9 and -, the first a letter
	Kind     Kind
	OCSF     bool            // format: ocsf; else json
	Block    bool            // when-down: block; else buffer
	Agents   []ambit.AgentID // nil for all
	Control  bool            // also the control plane's log; default true
	Insecure bool            // without TLS to another machine

	Transport  string // of syslog: "tls", "tcp"
	Address    string // of syslog: host:port
	URL        string // of splunk, otlp, webhook, s3: absolute, without credentials and query
	TLS        TLS
	SecretFile string // absolute; "" where none is needed

	Facility    int    // of syslog, default 13 (log audit)
	Hostname    string // of syslog; "" for the machine's
	MessageSize int    // of syslog, in bytes: longer events are shortened; default 8192

	Acknowledge bool   // of splunk: wait for indexer acknowledgement
	Index       string // of splunk; "" for the token's own

	Header string // of otlp: the field that the secret is sent in; default Authorization

	Bucket      string        // of s3
	Prefix      string        // of s3: before the keys, without slashes at its ends; may be ""
	Region      string        // of s3, default us-east-1
	AccessKeyID string        // of s3
	Every       time.Duration // of s3: how long events are collected for one object; default 1 minute

	Path    string        // of file: absolute
	MaxSize int64         // of file, in bytes, default 100 MiB
	MaxAge  time.Duration // of file, default 24 hours
	Keep    int           // of file: rotated files that are kept; 0 keeps all, the default
}

// TLS is how a connection is secured beyond the defaults: TLS 1.2 or newer, the
// system's certificates, the name of the address.
type TLS struct {
	CA         string // file of PEM certificates that are trusted instead of the system's; absolute
	Cert, Key  string // files of PEM, to show who we are; both or none
	ServerName string // that the certificate must be for; "" for the host of the address
}

// Witness cosigns heads of logs.
type Witness struct {
	Line int
	Name string
	Key  string // a note verifier key, of Ed25519 or of a cosignature: "name+hash+key"
	URL  string // where heads are sent (https://c2sp.org/tlog-witness)
}

// Heads says how often heads are published, and where.
type Heads struct {
	Every  time.Duration // default 1 hour
	Folder string        // absolute
}

// Notify is somebody who is told of alerts.
type Notify struct {
	Line     int
	Name     string
	Email    bool           // kind: email; else webhook
	Severity ambit.Severity // the least severity of alerts, default high
	Codes    []string       // of alerts; nil for any

	URL        string // of a webhook
	SecretFile string // of a webhook (whsec_ secrets), or the password of email; absolute
	Insecure   bool   // http: without TLS to another machine

	Address string // of email: the server, host:port
	From    string // of email
	To      []string
	SMTP    string // tls: "starttls" (default), "tls", "none"
	User    string // of email; "" for no login
	TLS     TLS
}

//go:embed schema/outputs.v1.json
var schemaV1 []byte

// Schema returns the JSON Schema (draft 2020-12) of the file, for editors. It
// accepts whatever [Parse] accepts, and refuses what a schema can refuse.
func Schema() []byte { return bytes.Clone(schemaV1) }

// Parse reads the file. name is its name in messages. An error is always of type
// [Errors].
func Parse(name string, src []byte) (*Config, error) {
	r, root := strictyaml.Decode(language(), name, src)
	d := &decoder{r}
	var c *Config
	if root.Given() {
		c = d.config(root)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Error is one problem of the file.
type Error = strictyaml.Error

// Errors is every problem of the file, in its order.
type Errors = strictyaml.Errors
