package egress

import (
	"context"
	"slices"
	"sync"

	"ambit"
	"ambit/policy"
)

// flights are the calls that were granted and have not ended.
type flights struct {
	mu  sync.Mutex // held for a few instructions, longer when the policy changes
	all map[*admitted]context.CancelFunc
}

func (f *flights) add(a *admitted, cancel context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[*admitted]context.CancelFunc)
	}
	f.all[a] = cancel
}

func (f *flights) remove(a *admitted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, a)
}

// cut ends what is on its way to a host that is now reached in another way than
// it was, or not at all.
func (f *flights) cut(old, now Endpoints) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, cancel := range f.all {
		r := a.grant.Request()
		was, _ := old.Endpoint(r.Host, r.Port)
		is, v := now.Endpoint(r.Host, r.Port)
		if v.Decision != ambit.Allow || !sameWay(was, is) {
			cancel()
		}
	}
}

// sameWay compares how a host is reached.
func sameWay(a, b policy.Endpoint) bool {
	return a.TLS == b.TLS && a.Private == b.Private && slices.Equal(a.Resolve, b.Resolve) &&
		(a.Roots == b.Roots || a.Roots != nil && b.Roots != nil && a.Roots.Equal(b.Roots))
}

// Refresh makes a change of the policy felt at once: what is under way to a host
// that is now reached in another way, or not at all, is cut. Without it that
// happens with the next request. Requests are always judged by the policy in
// force.
func (p *Proxy) Refresh() {
	p.agent.upstream()
	if p.own.gate != nil {
		p.own.upstream()
	}
}
