package egress

import (
	"context"
	"errors"
	"net/http"

	"ambit"
	"ambit/vault"
)

// examine has the vault look for references and for credentials that are none
// of this agent's. Without a vault there is nothing to look for.
func (p *Proxy) examine(r *ambit.Request) (*vault.Plan, *ambit.Verdict) {
	if p.vault == nil {
		return nil, nil
	}
	return p.vault.Examine(r)
}

// lend puts the credential into what was granted and is about to leave. A
// refusal has been logged, and then nothing may leave. cut ends the request when
// the connection is revoked.
func (s *side) lend(ctx context.Context, cut context.CancelFunc, a *admitted, q *http.Request) (*vault.Lease, *refusal) {
	if s.vault == nil {
		return nil, nil
	}
	lease, err := s.vault.Use(ctx, a.grant, a.plan, q, cut)
	if err != nil {
		if q.Body != nil {
			_ = q.Body.Close() // nobody else will
		}
		return nil, s.withdraw(ctx, a, err)
	}
	return lease, nil
}

// withdraw logs that what was granted is refused after all, because of what the
// vault found in it, and returns the answer to it.
func (s *side) withdraw(ctx context.Context, a *admitted, err error) *refusal {
	verdict := ambit.Verdict{Reason: ambit.Reason{Code: "credential-failed", Text: "the credential could not be used", Remedy: "see `ambit connections`"}}
	var d *ambit.DenyError
	if errors.As(err, &d) {
		verdict = d.Verdict
	}
	r := *a.grant.Request()
	_, err = s.check(ctx, &r, &verdict)
	return refused(err)
}

// errWithdrawn is the outcome of a call that was granted and then refused.
var errWithdrawn = errors.New("refused after all, see the next entry; nothing of its body left that may not")
