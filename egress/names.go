package egress

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"ambit/internal/dialguard"
)

const (
	answerLife  = 30 * time.Second
	failureLife = 2 * time.Second
)

// names resolves names and keeps vetted answers for a short time, so that the
// address that was vetted for a request is the one that is dialled for it.
type names struct {
	ctx      context.Context // the proxy's: a look-up may outlive the request that asked first
	resolver Resolver
	limit    int
	time     time.Duration
	flight   singleflight.Group

	mu    sync.RWMutex // held for a few instructions
	known map[nameKey]answer
}

type nameKey struct {
	host    string
	private bool
}

type answer struct {
	addrs []netip.Addr
	err   error
	until time.Time
}

func newNames(ctx context.Context, r Resolver, l Limits) *names {
	return &names{ctx: ctx, resolver: r, limit: l.Names, time: l.DialTime, known: make(map[nameKey]answer)}
}

// get returns the vetted addresses of a name. Names asked for at the same
// time are asked for once.
func (n *names) get(ctx context.Context, host string, private bool) ([]netip.Addr, error) {
	key := nameKey{host, private}
	now := time.Now()
	n.mu.RLock()
	a, ok := n.known[key]
	n.mu.RUnlock()
	if ok && now.Before(a.until) {
		return a.addrs, a.err
	}
	name := host
	if private {
		name += " private"
	}
	found := n.flight.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(n.ctx, n.time)
		defer cancel()
		a := n.resolve(ctx, host, private)
		n.keep(key, a)
		return a, nil
	})
	select {
	case r := <-found:
		a := r.Val.(answer)
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *names) resolve(ctx context.Context, host string, private bool) answer {
	// The trailing dot keeps the search list of the host out of it.
	addrs, err := n.resolver.LookupNetIP(ctx, "ip", host+".")
	if err != nil {
		return answer{err: err, until: time.Now().Add(failureLife)}
	}
	vetted, err := dialguard.Vet(addrs, private)
	return answer{addrs: vetted, err: err, until: time.Now().Add(answerLife)}
}

func (n *names) keep(key nameKey, a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= n.limit {
		now := time.Now()
		for k, old := range n.known {
			if now.After(old.until) {
				delete(n.known, k)
			}
		}
		for k := range n.known {
			if len(n.known) < n.limit {
				break
			}
			delete(n.known, k)
		}
	}
	n.known[key] = a
}
