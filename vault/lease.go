package vault

import "sync"

// leases knows what is under way with which connection. The zero leases is
// ready. It is safe for concurrent use.
type leases struct {
	mu sync.Mutex
	of map[string]map[*running]struct{} // by connection
}

// running is one request that uses a credential.
type running struct {
	cut func()
}

// add registers what ends when the connection does. cut is called at most once,
// and not after remove returned. It must not block, nor call remove or add.
func (l *leases) add(name string, cut func()) (remove func()) {
	r := &running{cut}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[string]map[*running]struct{})
	}
	set := l.of[name]
	if set == nil {
		set = make(map[*running]struct{})
		l.of[name] = set
	}
	set[r] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if delete(set, r); len(set) == 0 && len(l.of[name]) == 0 {
			delete(l.of, name)
		}
	}
}

// cut ends everything that runs on the connection, before it returns.
func (l *leases) cut(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutSet(name)
}

// cutAll ends everything.
func (l *leases) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.of {
		l.cutSet(name)
	}
}

func (l *leases) cutSet(name string) {
	set := l.of[name]
	delete(l.of, name)
	for r := range set {
		delete(set, r)
		r.cut()
	}
}
