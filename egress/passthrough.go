package egress

import (
	"time"

	"ambit"
	"ambit/internal/clienthello"
)

// passthrough connects a TLS connection to its host without opening it. All
// there is to judge is the name, so there must be one, and it must be the only
// one: an encrypted hello may carry another.
func (l *link) passthrough(hello clienthello.Hello, agent *wire) {
	l.to.scheme = "tls"
	if hello.ServerName == "" || hello.ECH {
		l.refuseTLS(alertAccessDenied, ambit.Reason{
			Code:   "name-mismatch",
			Text:   "a connection that is passed through must show the one name it is for (SNI, and no encrypted ClientHello)",
			Remedy: "turn Encrypted Client Hello off in the program, or let the gate open the connection (tls: terminate)",
		})
		return
	}
	a, f := l.p.admit(l.ctx, l.cancel, l.to.request(ambit.ActionPassthrough), nil)
	if f != nil {
		l.writeBy(l.p.limits.HeadTime)
		_, _ = l.conn.Write(fatal(alertAccessDenied)) // best effort: it is closed either way
		return
	}
	defer l.p.flying.remove(a)
	start := time.Now()
	o := ambit.Outcome{Unseen: true}
	defer func() {
		o.Duration = time.Since(start)
		a.grant.Finish(o)
	}()
	ep, v := a.up.ends.Endpoint(l.to.host, l.to.port)
	if v.Decision != ambit.Allow {
		o.Error = "the policy no longer knows this host"
		return
	}
	up, err := a.up.dial(l.ctx, l.to.host, l.to.port, ep)
	if err != nil {
		o.Error = oneLine(err)
		l.writeBy(l.p.limits.HeadTime)
		_, _ = l.conn.Write(fatal(alertInternalError))
		return
	}
	defer up.Close()
	if o.BytesOut, o.BytesIn, err = l.tunnel(agent, up); err != nil {
		o.Error = oneLine(err)
	}
}
