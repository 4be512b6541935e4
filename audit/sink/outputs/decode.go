package outputs

import (
	"fmt"
	"slices"
	"time"

	"ambit"
	"ambit/internal/strictyaml"
)

// The keys of each mapping, in the order in which messages list them.
var (
	rootKeys    = []string{"ambit", "sinks", "witnesses", "heads", "notify"}
	commonKeys  = []string{"name", "kind", "format", "when-down", "agents", "control"}
	tlsKeys     = []string{"ca", "cert", "key", "server-name"}
	witnessKeys = []string{"name", "key", "url"}
	headsKeys   = []string{"every", "folder"}
)

// ownKeys are those of each kind of sink beside the common ones.
func ownKeys(k Kind) []string {
	switch k {
	case Syslog:
		return []string{"address", "tls", "insecure", "facility", "hostname", "message-size"}
	case Splunk:
		return []string{"url", "tls", "insecure", "secret-file", "acknowledge", "index"}
	case OTLP:
		return []string{"url", "tls", "insecure", "secret-file", "header"}
	case Webhook:
		return []string{"url", "tls", "insecure", "secret-file"}
	case S3:
		return []string{"url", "tls", "insecure", "secret-file", "bucket", "prefix", "region", "access-key-id", "every"}
	case File:
		return []string{"path", "max-size", "max-age", "keep"}
	}
	return nil
}

func kinds() []string {
	return []string{string(Syslog), string(Splunk), string(OTLP), string(Webhook), string(S3), string(File)}
}

// notifyKeys are those of each kind of notification.
func notifyKeys(email bool) []string {
	common := []string{"name", "kind", "severity", "codes", "secret-file", "tls"}
	if email {
		return append(common, "address", "from", "to", "smtp", "user")
	}
	return append(common, "url", "insecure")
}

const firstHint = `such a file starts with "ambit: v1"`

func language() *strictyaml.Language {
	return &strictyaml.Language{Noun: "file of outputs", Start: firstHint, MaxSize: MaxSize, TooLarge: "nobody has that many outputs", Second: "put everything into one document"}
}

type decoder struct{ *strictyaml.Decoder }

type node = strictyaml.Node

func quote(s string) string { return strictyaml.Quote(s) }

func (d *decoder) config(root node) *Config {
	if !root.IsMapping() {
		d.WrongKind(root, "keys and values", firstHint)
		return nil
	}
	f := d.Fields(root, rootKeys)
	if v := f["ambit"]; !v.Given() {
		d.Missing(root, "ambit", firstHint)
	} else if s, ok := v.Scalar(); !ok || s != Version {
		d.WrongKind(v, quote(Version)+", the only version that this Ambit reads", `write "ambit: v1"`)
	}
	c := &Config{}
	names := d.unique()
	d.List(f["sinks"], func(_ int, n node) {
		if s := d.sink(n); s != nil {
			names("sinks", n, s.Name)
			c.Sinks = append(c.Sinks, *s)
		}
	})
	names = d.unique()
	d.List(f["witnesses"], func(_ int, n node) {
		w := d.witness(n)
		names("witnesses", n, w.Name)
		c.Witnesses = append(c.Witnesses, w)
	})
	names = d.unique()
	d.List(f["notify"], func(_ int, n node) {
		if s := d.notify(n); s != nil {
			names("notify", n, s.Name)
			c.Notify = append(c.Notify, *s)
		}
	})
	for _, key := range []string{"sinks", "witnesses", "notify"} {
		d.NotEmpty(f[key])
	}
	if f["heads"].Given() {
		c.Heads = d.heads(f["heads"])
	}
	return c
}

// unique returns what refuses a second entry of a name.
func (d *decoder) unique() func(list string, n node, name string) {
	lines := map[string]int{}
	return func(list string, n node, name string) {
		line, _ := n.Place()
		if first, twice := lines[name]; twice && name != "" {
			d.Refuse(n, fmt.Sprintf("is called %s, as is the one on line %d of %s", quote(name), first, list), "give one of them another name")
		}
		lines[name] = line
	}
}

// kindOf reads the kind before anything else: it decides which keys there are.
func (d *decoder) kindOf(n node, allowed []string) (string, bool) {
	kind := ""
	if !n.IsMapping() {
		d.WrongKind(n, "keys and values", "write for example: name: siem")
		return "", false
	}
	var given node
	d.probe(n, func(key string, v node) {
		if key == "kind" {
			given = v
		}
	})
	if !given.Given() {
		d.Missing(n, "kind", "write one of: "+list(allowed))
		return "", false
	}
	kind, _ = given.Scalar()
	if !slices.Contains(allowed, kind) {
		hint := "write one of: " + list(allowed)
		if near, ok := strictyaml.Nearest(kind, allowed); ok {
			hint = "did you mean " + quote(near) + "?"
		}
		d.Refuse(given, "is no kind that there is: "+given.Kind(), hint)
		return "", false
	}
	return kind, true
}

// probe visits a mapping without judging it.
func (d *decoder) probe(n node, visit func(string, node)) {
	silent := &strictyaml.Decoder{}
	silent.Pairs(n, func(key string, _, v node) { visit(key, v) })
}

func list(words []string) string {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += ", "
		}
		text += w
	}
	return text
}

func (d *decoder) sink(n node) *Sink {
	kind, ok := d.kindOf(n, kinds())
	if !ok {
		return nil
	}
	f := d.Fields(n, append(slices.Clone(commonKeys), ownKeys(Kind(kind))...))
	line, _ := n.Place()
	s := &Sink{
		Line: line, Kind: Kind(kind), Name: d.name(n, f["name"]),
		OCSF:     d.Choice(f["format"], "json", "ocsf") == "ocsf",
		Block:    d.Choice(f["when-down"], "buffer", "block") == "block",
		Control:  !f["control"].Given() || d.Boolean(f["control"]),
		Insecure: d.Boolean(f["insecure"]),
		TLS:      d.tls(f["tls"]),
	}
	d.NotEmpty(f["agents"])
	for _, a := range d.Texts(f["agents"], checkName) {
		s.Agents = append(s.Agents, ambit.AgentID(a))
	}
	if slices.Contains(ownKeys(s.Kind), "secret-file") {
		s.SecretFile = d.Checked(f["secret-file"], "", checkPath)
		if !f["secret-file"].Given() && s.Kind != OTLP {
			d.Missing(n, "secret-file", "write the path of a file of mode 0600 that has "+secretOf(s.Kind))
		}
	}
	if slices.Contains(ownKeys(s.Kind), "url") {
		s.URL = d.url(n, f["url"], s.Insecure, f["tls"])
	}
	switch s.Kind {
	case Syslog:
		d.syslog(n, f, s)
	case Splunk:
		s.Acknowledge = d.Boolean(f["acknowledge"])
		s.Index = d.Checked(f["index"], "", checkIndex)
	case OTLP:
		s.Header = d.Checked(f["header"], "Authorization", checkField)
		if f["header"].Given() && s.SecretFile == "" {
			d.Refuse(f["header"], "has no use without secret-file", "add secret-file, or remove it")
		}
	case S3:
		d.s3(n, f, s)
	case File:
		d.file(n, f, s)
	}
	return s
}

func secretOf(k Kind) string {
	switch k {
	case Splunk:
		return "the token of the HTTP Event Collector"
	case S3:
		return "the secret access key"
	}
	return "the secret that begins with whsec_"
}

func (d *decoder) syslog(n node, f map[string]node, s *Sink) {
	if !f["address"].Given() {
		d.Missing(n, "address", "write for example address: tls://siem.example.com:6514")
	} else {
		s.Transport, s.Address = d.address(f["address"], s.Insecure)
		if s.Transport == "tcp" && f["tls"].Given() {
			d.Refuse(f["tls"], "has no use: the address is without TLS", "write tls:// in the address, or remove it")
		}
	}
	s.Facility = d.Integer(f["facility"], 0, 23, 13)
	s.Hostname = d.Checked(f["hostname"], "", checkHostname)
	s.MessageSize = d.Integer(f["message-size"], 4096, 1<<20, 8192)
}

func (d *decoder) s3(n node, f map[string]node, s *Sink) {
	for _, key := range []string{"bucket", "access-key-id"} {
		if !f[key].Given() {
			d.Missing(n, key, "")
		}
	}
	s.Bucket = d.Checked(f["bucket"], "", checkBucket)
	s.Prefix = d.Checked(f["prefix"], "", checkPrefix)
	s.Region = d.Checked(f["region"], "us-east-1", checkRegion)
	s.AccessKeyID = d.Checked(f["access-key-id"], "", checkKeyID)
	s.Every = d.duration(f["every"], time.Second, time.Hour, time.Minute)
}

func (d *decoder) file(n node, f map[string]node, s *Sink) {
	if !f["path"].Given() {
		d.Missing(n, "path", "write for example path: /var/log/ambit/events.jsonl")
	}
	s.Path = d.Checked(f["path"], "", checkPath)
	s.MaxSize = d.size(f["max-size"], 100<<20)
	s.MaxAge = d.duration(f["max-age"], time.Minute, 366*24*time.Hour, 24*time.Hour)
	s.Keep = d.Integer(f["keep"], 0, 100000, 0)
}

func (d *decoder) tls(n node) TLS {
	f := d.Fields(n, tlsKeys)
	d.NotEmpty(n)
	t := TLS{CA: d.Checked(f["ca"], "", checkPath), Cert: d.Checked(f["cert"], "", checkPath), Key: d.Checked(f["key"], "", checkPath), ServerName: d.Checked(f["server-name"], "", checkHostname)}
	if f["cert"].Given() != f["key"].Given() {
		d.Refuse(n, "needs cert and key, or neither", "add the other one")
	}
	return t
}

func (d *decoder) witness(n node) Witness {
	if !n.IsMapping() {
		d.WrongKind(n, "keys and values", "write for example: name: auditor")
		return Witness{}
	}
	f := d.Fields(n, witnessKeys)
	line, _ := n.Place()
	w := Witness{Line: line, Name: d.name(n, f["name"]), Key: d.Checked(f["key"], "", checkVerifierKey)}
	if !f["key"].Given() {
		d.Missing(n, "key", `write the verifier key that the witness publishes: "name+hash+key"`)
	}
	w.URL = d.url(n, f["url"], false, node{})
	return w
}

func (d *decoder) heads(n node) *Heads {
	f := d.Fields(n, headsKeys)
	h := &Heads{Every: d.duration(f["every"], time.Minute, 7*24*time.Hour, time.Hour), Folder: d.Checked(f["folder"], "", checkPath)}
	if !f["folder"].Given() {
		d.Refuse(n, "says nowhere to publish heads", "add folder")
	}
	return h
}

func (d *decoder) notify(n node) *Notify {
	kind, ok := d.kindOf(n, []string{"webhook", "email"})
	if !ok {
		return nil
	}
	email := kind == "email"
	f := d.Fields(n, notifyKeys(email))
	line, _ := n.Place()
	s := &Notify{Line: line, Email: email, Name: d.name(n, f["name"]), SecretFile: d.Checked(f["secret-file"], "", checkPath), TLS: d.tls(f["tls"])}
	severity := d.Choice(f["severity"], "high", "info", "low", "medium", "critical")
	_ = s.Severity.UnmarshalText([]byte(severity)) // "" after a refusal
	s.Codes = d.Texts(f["codes"], checkCode)
	d.NotEmpty(f["codes"])
	if email {
		d.email(n, f, s)
		return s
	}
	s.Insecure = d.Boolean(f["insecure"])
	s.URL = d.url(n, f["url"], s.Insecure, f["tls"])
	if !f["secret-file"].Given() {
		d.Missing(n, "secret-file", "write the path of a file of mode 0600 that has "+secretOf(Webhook))
	}
	return s
}

func (d *decoder) email(n node, f map[string]node, s *Notify) {
	for _, key := range []string{"address", "from", "to"} {
		if !f[key].Given() {
			d.Missing(n, key, "")
		}
	}
	s.Address = d.Checked(f["address"], "", checkHostPort)
	s.From = d.Checked(f["from"], "", checkMail)
	s.To = d.Texts(f["to"], checkMail)
	d.NotEmpty(f["to"])
	s.SMTP = d.Choice(f["smtp"], "starttls", "tls", "none")
	s.User = d.Checked(f["user"], "", checkUser)
	switch {
	case s.SMTP == "none" && s.Address != "" && !loopback(s.Address):
		d.Refuse(f["smtp"], "would send mail to another machine in the clear", "write starttls or tls")
	case f["user"].Given() != f["secret-file"].Given():
		d.Refuse(n, "needs user and secret-file, or neither", "add the other one")
	}
}

func (d *decoder) name(parent, n node) string {
	if !n.Given() {
		d.Missing(parent, "name", "write for example name: siem")
		return ""
	}
	return d.Checked(n, "", checkName)
}
