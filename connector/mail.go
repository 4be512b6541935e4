package connector

import (
	"bytes"
	"encoding/base64"
	"mime"
	"strings"
)

// mailTemplate is a message of one text part (RFC 5322, RFC 2045).
type mailTemplate struct {
	to, cc, bcc Template // whole placeholders of an address, or of a list of them
	subject     Template
	text        Template
	inReplyTo   Template // the Message-ID of what is answered
}

// mailKeys are the keys of a mail in a body.
func mailKeys() []string { return []string{"to", "cc", "bcc", "subject", "text", "inReplyTo"} }

// fill writes the message. Addresses have been checked as such, and no text has
// a line break but the message's own, so that nothing adds a header field.
func (m *mailTemplate) fill(f *filler) (string, error) {
	var b bytes.Buffer
	field := func(name, v string) {
		if v != "" {
			b.WriteString(name + ": " + v + "\r\n")
		}
	}
	for _, l := range []struct {
		name string
		t    Template
	}{{"To", m.to}, {"Cc", m.cc}, {"Bcc", m.bcc}} {
		all, err := f.texts(l.t)
		if err != nil {
			return "", err
		}
		for _, a := range all {
			if !emailForm.MatchString(a) {
				return "", &ArgumentError{"", "one of them is no address for a mail"}
			}
		}
		field(l.name, strings.Join(all, ",\r\n "))
	}
	subject, _, err := f.text(m.subject)
	if err != nil {
		return "", err
	}
	reply, _, err := f.text(m.inReplyTo)
	if err != nil {
		return "", err
	}
	text, _, err := f.text(m.text)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(subject+reply, "\r\n\x00") {
		return "", &ArgumentError{"", "a line break is in a field of the mail"}
	}
	field("Subject", foldEncoded(mime.QEncoding.Encode("utf-8", subject)))
	field("In-Reply-To", reply)
	field("References", reply)
	field("MIME-Version", "1.0")
	field("Content-Type", `text/plain; charset="utf-8"`)
	field("Content-Transfer-Encoding", "base64")
	b.WriteString("\r\n")
	body := base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	for len(body) > 76 {
		b.WriteString(body[:76] + "\r\n")
		body = body[76:]
	}
	b.WriteString(body + "\r\n")
	return base64.URLEncoding.EncodeToString(b.Bytes()), nil
}

// foldEncoded puts each encoded word (RFC 2047) on a line of its own.
func foldEncoded(s string) string { return strings.ReplaceAll(s, "?= =?", "?=\r\n =?") }
