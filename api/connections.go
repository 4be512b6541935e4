package api

import (
	"time"

	"ambit"
)

// MaxConnect bounds what is sent to connect an account, in bytes.
const MaxConnect = 512 << 10

// Connection is an account that an agent works with, and how it is. No part of
// a credential is in it.
type Connection struct {
	Name      string          `json:"name" doc:"unique within the agent"`
	Connector string          `json:"connector"`
	Title     string          `json:"title" doc:"of the service"`
	Account   string          `json:"account,omitempty"`
	Status    string          `json:"status" enum:"not-connected,connected,failing,reconnect-needed"`
	Reason    string          `json:"reason,omitempty" doc:"why it is not just connected"`
	Way       string          `json:"way,omitempty" doc:"how it was connected"`
	Since     time.Time       `json:"since,omitzero" required:"false"`
	By        ambit.Principal `json:"by,omitempty" doc:"who connected it"`
	Expires   time.Time       `json:"expires,omitzero" required:"false" doc:"of the token, which is refreshed before"`
	Hosts     []string        `json:"hosts" doc:"where the credential is used, with the port if it is not 443"`
	Missing   []string        `json:"missing,omitempty" doc:"scopes that the service did not grant"`
	Notes     []string        `json:"notes,omitempty" doc:"what was changed about what was just given"`
}

// ConnectionDetail is a connection with what a person is asked for to connect it.
type ConnectionDetail struct {
	Connection
	Ways  []Way  `json:"ways" doc:"to connect it; the first is the default"`
	Login *Login `json:"login,omitempty" doc:"the last one at the service, since the worker started"`
}

// Way is one way to connect an account.
type Way struct {
	Name         string   `json:"name"`
	Title        string   `json:"title"`
	Kind         string   `json:"kind" enum:"given,oauth,google-sa,github-app" doc:"oauth with the flow code or device needs a login: see …/oauth/start; every other is connected with PUT"`
	Flows        []string `json:"flows,omitempty" doc:"of oauth: code, device or client-credentials; the first is the default"`
	Fields       []Field  `json:"fields"`
	RedirectPort int      `json:"redirectPort,omitempty" doc:"of 127.0.0.1, to which the browser must come back; missing is any"`
}

// Field is one thing to ask a person for.
type Field struct {
	Name      string `json:"name"`
	Title     string `json:"title"`
	Hint      string `json:"hint,omitempty"`
	Secret    bool   `json:"secret" doc:"not to be shown while it is entered"`
	Multiline bool   `json:"multiline,omitempty"`
	Optional  bool   `json:"optional,omitempty"`
	Check     string `json:"check,omitempty" doc:"a regular expression (RE2) that it matches"`
}

// Login is a login of a person at a service.
type Login struct {
	State  string `json:"state" enum:"waiting,connected,failed"`
	Reason string `json:"reason,omitempty" doc:"of failed"`
}

// Connect is what a person gives to connect an account. It is never shown
// again.
type Connect struct {
	Way    string            `json:"way,omitempty" pattern:"^[a-z][a-z0-9-]{0,39}$" doc:"missing is the first"`
	Flow   string            `json:"flow,omitempty" enum:"code,device,client-credentials" doc:"of oauth; missing is the first of the way"`
	Fields map[string][]byte `json:"fields,omitempty" maxProperties:"32" writeOnly:"true" doc:"base64, by name of the field; each at most 64 KiB"`
}

// StartOAuth starts a login.
type StartOAuth struct {
	Connect
	RedirectURL string `json:"redirectURL,omitempty" maxLength:"200" pattern:"^http://127\\.0\\.0\\.1:[0-9]{1,5}/[a-z]*$" doc:"where the browser comes back to, of the flow code: http://127.0.0.1:PORT/callback"`
}

// StartedOAuth is a login that waits for the person.
type StartedOAuth struct {
	Flow            string    `json:"flow" enum:"code,device"`
	Expires         time.Time `json:"expires"`
	URL             string    `json:"url,omitempty" doc:"of the flow code: where the person's browser goes. It is for that person alone"`
	UserCode        string    `json:"userCode,omitempty" doc:"of the flow device: what the person types at verificationURL"`
	VerificationURL string    `json:"verificationURL,omitempty"`
	CompleteURL     string    `json:"completeURL,omitempty" doc:"the same with the code in it"`
}

// FinishOAuth is how the person's browser came back.
type FinishOAuth struct {
	Query string `json:"query" maxLength:"16384" writeOnly:"true" doc:"of the address that it came back to, without the question mark"`
}

// Revoked is a connection that is over.
type Revoked struct {
	Name   string `json:"name"`
	Told   bool   `json:"told" doc:"the service confirmed that the credential is over there, too"`
	Reason string `json:"reason,omitempty" doc:"why it was not told, and what to do"`
}
