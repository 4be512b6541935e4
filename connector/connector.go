// Package connector knows how an account of a service is used: on which hosts,
// where its credential travels, what stands for it in the agent's computer, how
// a person gives it, and how what is opened can be narrowed (pins).
//
// A connector is a short YAML file; the schema is in [Schema]. Those that
// Ambit ships are compiled in ([Builtin]); an operator adds a folder of their
// own ([Catalog.With]). [Catalog.Bind] makes of a manifest's connectors what
// the vault and the policy work with: one [Binding] for each connection.
//
// Two things follow from a binding, and both must be complete. Where a
// credential may travel ([Auth.Places]) is where the vault puts the real value
// in, and the only place where a reference may be sent. And every place in which
// the host would take a credential (those, and [Binding.Foreign]) is where
// anything but a reference is refused, so that an allowed host is no way out
// for somebody else's account.
//
// A pin narrows and never widens: a host that the pins of a connection say
// nothing about is left out of the allowlist.
//
// A connector may have tools ([Binding.Tools]): what an agent can do by name. A
// tool checks the arguments of a call, builds one request from them as a
// structure and never by joining text ([BoundTool.Request]), and takes out of the
// answer what is kept ([BoundTool.Result]). Its requests pass the same rules as
// the agent's own would ([Binding.ToolRules]), so that pins hold for both. A
// connection with tools is closed to the agent's own requests, unless the
// manifest says otherwise: they would go round a tool's policy.
//
// Trust: a connector file decides where a credential goes, so whoever writes
// one, or can write into the operator's folder, can send the credential to a
// host of theirs; files are read strictly, but their hosts are believed. So are
// a tool's effects, targets, amount and records: one that says "read" of a
// request that pays, or calls a field a record that customers fill in, takes
// policy and provenance with it. Imported tools are refused until a person has
// reviewed them. Arguments of calls and answers of services are hostile: what is
// not declared is refused, an argument is never more than one value in its
// place, and what a service says of a failure is bounded, inert and marked. The
// manifest's author chooses the account, the pins and the tools, and a pin is as
// tight as the connector's patterns are. Credentials never come into this
// package, and references only into [Request.Refer].
package connector

import (
	"regexp"

	"ambit/policy"
	"ambit/scan"
)

// Connector is what one file says, before a manifest fills in the account and
// the pins. It is read-only once it is in a [Catalog].
type Connector struct {
	Name  string // 1 to 40 characters of a-z, 0-9 and -, the first a letter
	Title string // for people: "GitHub"
	Docs  string // URL of the page on which a person gets the credential
	// Account says what {account} is, for people: "the shop's name, as in
	// NAME.myshopify.com"; "" if the connector takes no account.
	Account string
	// OwnHosts says that the manifest may name the hosts: the service is one that
	// people run themselves, or a generic connector.
	OwnHosts bool
	// Generic says that the file has no hosts of its own, so that the manifest
	// must name them.
	Generic bool

	// Subjects says how what identifies people and customers looks in the
	// service's requests and answers, beside e-mail addresses and what else is
	// known everywhere. Each pattern is right by itself; a connector has at most
	// 64.
	Subjects []scan.Pattern

	File    string // name of the file, for messages: "github.yaml"
	Builtin bool   // shipped with Ambit

	*definition
}

// Binding is one connection of a manifest: a connector with its account and
// pins filled in. It holds no credential.
type Binding struct {
	// Name is the connection's name, unique in a manifest: what "as" says, or
	// else the connector's name.
	Name      string
	Connector *Connector
	Account   string // "" if the connector takes none
	Line      int    // in the manifest, from 1

	// Hosts are where the credential is used. They are disjoint from those of
	// every other binding of the manifest.
	Hosts []Host
	// Rules are what the allowlist gets from the connection for the agent's own
	// requests, pins applied, with labels as in `connectors[0] "github" (line 7)`.
	// Their roots are not filled in: CA has them. There are none if ToolsOnly.
	Rules []policy.Rule
	// ToolRules are the same for the requests of its tools and of servers of tools
	// that are used with the account, and never empty if there are some. Requests of
	// tools are judged by these and by nothing else.
	ToolRules []policy.Rule
	// ToolsOnly says that the account is used through tools alone: the manifest
	// names tools, or a server of tools, and not direct: true. The computer gets no reference, so that
	// Env and Files are empty.
	ToolsOnly bool
	// CA is PEM certificates that are trusted, beside the system's, for the
	// hosts; "" for none.
	CA string

	Secrets    []Secret    // what there is to know about the account, in the order of the file
	References []Reference // what stands for them in the computer
	Env        []Env       // variables of the computer
	Files      []File      // files of the computer
	Ways       []Way       // how a person can connect the account; never empty

	// Require says that a credential that is none of ours is refused on Hosts.
	// Only a manifest's "require: false" turns it off.
	Require bool
	// Foreign is where else on Hosts a credential could stand. Whatever is there
	// and is not in Places of the host's Auth is refused if Require is set.
	Foreign Foreign

	tools []*BoundTool
}

// Host is a host of a binding.
type Host struct {
	Name  string   // canonical; "*." and a name stands for all names below it
	Ports []uint16 // never empty
	// Auth is how a credential travels to this host. There may be none: a host
	// for downloads that needs no credential, and gets none.
	Auth []*Auth
	// Body has what the JSON or form body of a request must say because of a
	// pin. The policy does not see bodies: who sees them must refuse a request
	// that does not hold all that are for its path, or whose body cannot be read.
	Body []BodyCondition
}

// BodyCondition narrows some requests by a field of their body. The field's
// name, and the last part of the JSON pointer, may not be a parameter of the
// query at the same time: servers differ in which of the two they take.
type BodyCondition struct {
	Methods []string // nil is any
	Paths   []string // patterns as in policy.Rule; nil is any
	JSON    string   // a JSON pointer (RFC 6901) to the field, if the body is JSON; "" if such a body is refused
	Form    string   // the field's name, if the body is a form (urlencoded or multipart); "" if such a body is refused
	Values  []string // one of them must be there, exactly once
}

// Scheme is how a credential is used. The zero Scheme is none of them: a
// consumer refuses it.
type Scheme string

// The schemes. Those of the first group put the real value into [Auth.Places];
// for those of the second group the gate signs.
const (
	Bearer    Scheme = "bearer"    // Authorization: Bearer (RFC 6750)
	Basic     Scheme = "basic"     // Authorization: Basic (RFC 7617)
	Header    Scheme = "header"    // another header field, or another prefix
	Query     Scheme = "query"     // a query parameter
	Path      Scheme = "path"      // a segment of the path
	Form      Scheme = "form"      // a field of a form body, urlencoded or multipart
	JSON      Scheme = "json"      // a field of a JSON body
	WebSocket Scheme = "websocket" // a field of the first message of a WebSocket, in JSON
	Login     Scheme = "login"     // fields of a login page; what the host hands back is vaulted

	HMAC  Scheme = "hmac"  // Auth.HMAC
	SigV4 Scheme = "sigv4" // Auth.SigV4
	MTLS  Scheme = "mtls"  // Auth.MTLS
)

// Auth is one way in which a credential travels to a host.
//
// A request may use any of a host's: a program that sends Basic and one that
// sends Bearer both work. A request that uses none goes without a credential.
type Auth struct {
	Scheme Scheme
	// Paths are patterns as in policy.Rule: the entry is for requests to them
	// only, and elsewhere its places are those of a foreign credential. Nil is
	// every path.
	Paths []string
	// Places are where references stand. Of Login there is one for each field
	// that may be in the body of a request, of the others exactly one. HMAC, SigV4 and MTLS have none: where their
	// credentials are is known by the scheme.
	Places []Place

	HMAC    *HMACAuth  // of HMAC
	SigV4   *SigV4Auth // of SigV4
	MTLS    *MTLSAuth  // of MTLS
	Session *Session   // of Login: what is taken out of answers
}

// In is the part of a request that a Place is in.
type In string

// The parts. InBasic is the Authorization field with its base64 undone.
const (
	InHeader    In = "header"
	InBasic     In = "basic"
	InQuery     In = "query"
	InPath      In = "path"
	InForm      In = "form"
	InJSON      In = "json"
	InWebSocket In = "websocket"
)

// Place is where in a request a credential stands. The agent sends the template
// filled with references, and the gate sends it filled with real values; the
// text around a placeholder in a header is compared without regard to case
// ("bearer" is "Bearer", RFC 9110 section 11.1).
type Place struct {
	In In
	// Name is the header field in canonical form, the parameter, the field of a
	// form, or a JSON pointer (RFC 6901). Of InBasic it is "Authorization". Of
	// InPath it is a pattern as in policy.Rule with one placeholder in it, and no
	// "**" before it: "/bot{token}/**"; see [Place.Segment].
	Name string
	// Value is what stands there; of InBasic, the password. Of InPath it is the
	// segment.
	Value Template
	// User is the user name of InBasic. A half without a placeholder (also an
	// empty one) is written by the gate, whatever the agent sent.
	User Template
}

// HMACAuth signs with a shared secret. The agent signs with the reference; the
// gate signs again with the secret. Text in braces is as in ambit/vault/sign.
type HMACAuth struct {
	Secret    string // name of the Secret that is the key
	Algorithm string // sha256, sha512 or sha1
	Encoding  string // of the signature: hex, base64 or base64url
	// Message is what is signed: text with {method}, {host}, {path}, {query},
	// {target} (path, and "?" and query if there is one), {timestamp}, {body} and
	// {body-sha256}.
	Message string
	Header  string // the field that carries Value
	Value   string // text with {signature}, and maybe {timestamp}; "" is "{signature}"
	// TimestampHeader is the field that carries {timestamp}, if Value does not.
	TimestampHeader string
	Milliseconds    bool // {timestamp} is in milliseconds since 1970, otherwise in seconds
}

// SigV4Auth signs for AWS and what is compatible with it: Signature Version 4,
// in the Authorization field, in the query (presigned) and in chunks.
type SigV4Auth struct {
	KeyID, Secret string // names of Secrets
	// Session is the name of the Secret with a session token; "" if there is none.
	// The agent never sends one: if the connection has it, the gate adds it.
	Session string
	// Region and Service are the only ones that are signed for; a request that
	// names another is refused.
	Region, Service string
}

// MTLSAuth shows a client certificate when connecting.
type MTLSAuth struct {
	Certificate, Key string // names of Secrets, PEM
}

// Session is what a host hands back as a credential when somebody logs in. It is
// kept by the vault, and the agent gets a reference in its place.
type Session struct {
	Cookies []string // names; "*" at the end of one is any text
	JSON    []string // JSON pointers into answers
}

// SecretKind says what a Secret is made of. The zero value is Text.
type SecretKind string

// The kinds of secret.
const (
	Text           SecretKind = ""                // one line that is used as it is
	TOTP           SecretKind = "totp"            // the key of one-time codes (RFC 6238), base32 or an otpauth: URL; what is sent is the code
	Certificate    SecretKind = "certificate"     // PEM, a certificate and its chain
	PrivateKey     SecretKind = "private-key"     // PEM
	ServiceAccount SecretKind = "service-account" // the JSON file of a Google service account
)

// Secret is one thing to know about an account. Most are secret.
type Secret struct {
	Name      string         // a-z, 0-9 and _, the first a letter, at most 40; unique in a connector
	Title     string         // for people: "Personal access token"
	Hint      string         // one line about where it is found; may be ""
	Kind      SecretKind     //
	Check     *regexp.Regexp // what it looks like; nil for anything
	Optional  bool           // may be left out
	Multiline bool           // may have line breaks
	Public    bool           // is no secret (an account's e-mail, an app's number): not scrubbed, and may be shown
	Short     bool           // may be too short to be found when an answer is scrubbed
}

// Env is a variable of the agent's computer.
type Env struct {
	Name string
	// Value is filled with references, never with real values.
	Value Template
}

// File is a file of the agent's computer. Those of several connections with the
// same path are one file, in the order of the manifest.
type File struct {
	Path string   // below the agent's home folder, clean, not absolute: ".netrc"
	Text Template // filled with references, never with real values
}

// WayKind is how the credential is come by. The zero WayKind is none of them: a
// consumer refuses it.
type WayKind string

// The kinds of way.
const (
	WayGiven     WayKind = "given"      // a person types or pastes it
	WayOAuth     WayKind = "oauth"      // Way.OAuth
	WayGoogle    WayKind = "google-sa"  // Way.Google: a JWT assertion of a service account (RFC 7523)
	WayGitHubApp WayKind = "github-app" // Way.GitHub: a JWT assertion of an app, exchanged for an installation's token
)

// Way is one way to connect an account. A person chooses one.
type Way struct {
	Name   string // a-z, 0-9 and -: "token"; unique in a connector
	Title  string // for people: "Personal access token (fine-grained)"
	Kind   WayKind
	Fields []string // names of the Secrets that a person gives, in this order; may be empty with WayOAuth
	// Yields is the name of the Secret that the gate gets by itself, and keeps
	// fresh: the access token. "" with WayGiven.
	Yields string
	OAuth  *OAuth
	Google *GoogleAssertion
	GitHub *GitHubAssertion
	// Revoke is what tells the service that the credential is over; nil if the
	// service has nothing for that.
	Revoke *Revocation
}

// Flow is an OAuth 2 grant.
type Flow string

// The flows. Refresh tokens (RFC 6749 section 6) come with the first two.
const (
	FlowCode   Flow = "code"               // authorization code with PKCE, loopback redirect (RFC 8252)
	FlowDevice Flow = "device"             // device authorization (RFC 8628)
	FlowClient Flow = "client-credentials" // RFC 6749 section 4.4
)

// ClientAuth is how the client says who it is at the token endpoint.
type ClientAuth string

// The ways of client authentication (RFC 6749 section 2.3.1).
const (
	ClientBasic ClientAuth = "basic" // Authorization: Basic
	ClientBody  ClientAuth = "body"  // client_id and client_secret in the form
	ClientNone  ClientAuth = "none"  // a public client: client_id in the form, PKCE
)

// OAuth is how a token is asked for. All URLs are https and their hosts are
// names, never addresses.
type OAuth struct {
	Flows        []Flow // never empty; the first is the default
	Authorize    string // of FlowCode
	Device       string // of FlowDevice
	Token        string
	Scopes       []string
	ScopeSep     string            // between scopes; " " unless the service differs
	ScopeParam   string            // the parameter with the scopes; "scope" unless the service differs
	PKCE         bool              // S256 (RFC 7636); true unless the service does not take it
	ClientID     string            // name of the Secret with the client's id
	ClientSecret string            // name of the Secret with the client's secret; "" for a public client
	ClientAuth   ClientAuth        //
	Params       map[string]string // added to the authorization request
	JSON         bool              // the token request is JSON instead of a form
	RedirectPort uint16            // port of the loopback redirect, where the service wants it registered; 0 is any
}

// GoogleAssertion is how a service account gets an access token:
// https://developers.google.com/identity/protocols/oauth2/service-account
type GoogleAssertion struct {
	Key     string // name of the Secret of kind ServiceAccount
	Subject string // name of the Secret with the user to act for (domain-wide delegation); "" for none
	Token   string // the token endpoint. What the key file says about it is not followed.
	Scopes  []string
}

// GitHubAssertion is how a GitHub App gets an installation's token:
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
type GitHubAssertion struct {
	App, Installation, Key string // names of Secrets
	API                    string // "https://api.github.com"
}

// Revocation is a request to the service.
type Revocation struct {
	Method string   // POST, DELETE or GET
	URL    Template // https
	Header []Field  // a value may have placeholders of Secrets
	Body   string   // "form", "json" or "" for none
	Fields []Field  // of the body; in JSON, Name is a JSON pointer
	// Basic is the user and password of an Authorization: Basic, as
	// "{client_id}:{client_secret}"; "" for none.
	Basic Template
}

// Field is a name and what stands there.
type Field struct {
	Name  string
	Value Template
}

// Foreign is where a host would take a credential.
type Foreign struct {
	Headers []string // canonical names
	Query   []string // parameters
	Fields  []string // of a form, or of a JSON body at any depth
	// Strip are header fields that are taken out instead of refused, because
	// programs send them by themselves: Cookie, where nobody logs in.
	Strip []string
}
