package egress

import (
	"context"
	"sync/atomic"

	"ambit"
	"ambit/gate"
	"ambit/policy"
)

// side is whom requests are made for. Each has a policy of its own, and with
// it upstream connections and answers about names of its own: nothing that one
// may reach helps the other.
type side struct {
	*Proxy
	gate      *gate.Gate
	endpoints func() Endpoints
	most      int64 // requests in flight at a time

	requests atomic.Int64 // in flight
	up       atomic.Pointer[upstream]
	flying   flights
}

// noEndpoints is what a side without a policy has.
type noEndpoints struct{}

func (noEndpoints) Endpoint(string, uint16) (policy.Endpoint, ambit.Verdict) {
	return policy.Endpoint{}, ambit.Verdict{}
}

// upstream returns the one for the policy in force.
func (s *side) upstream() *upstream {
	ends := s.endpoints()
	if ends == nil {
		ends = noEndpoints{}
	}
	up := s.up.Load()
	if up != nil && up.ends == ends {
		return up
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.up.Load()
	if old != nil && old.ends == ends {
		return old
	}
	up = s.newUpstream(ends)
	s.up.Store(up)
	if old != nil {
		old.close()
		s.flying.cut(old.ends, ends)
	}
	return up
}

// close closes what is idle, when nothing is under way any more.
func (s *side) close() {
	if up := s.up.Load(); up != nil {
		up.close()
	}
}

// check asks the gate. It does so to the end even if the agent hangs up, for an
// attempt that is withdrawn was still made and belongs into the log.
func (s *side) check(ctx context.Context, r *ambit.Request, door *ambit.Verdict) (*gate.Grant, error) {
	return s.gate.CheckWith(context.WithoutCancel(ctx), r, door)
}
