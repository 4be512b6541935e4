package egress

import (
	"sync"
	"time"
)

// watchAfter is how long a request must take before anyone looks whether the
// agent still waits for it.
const watchAfter = 500 * time.Millisecond

// watcher notices that the agent hung up while its HTTP/1 request is under way,
// and cuts the request. A link has one, used for one request after the other.
type watcher struct {
	mu    sync.Mutex
	timer *time.Timer
	x     *exchange     // nil when stopped
	done  chan struct{} // not nil while it reads; closed when it stopped reading
}

func (w *watcher) start(x *exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.x = x
	if w.timer == nil {
		w.timer = time.AfterFunc(watchAfter, w.fire)
	} else {
		w.timer.Reset(watchAfter)
	}
}

func (w *watcher) fire() {
	w.mu.Lock()
	x := w.x
	if x == nil || w.done != nil {
		w.mu.Unlock()
		return
	}
	if x.body != nil && !x.body.whole() { // whoever reads the body notices
		w.timer.Reset(watchAfter)
		w.mu.Unlock()
		return
	}
	done := make(chan struct{})
	w.done = done
	_ = x.l.conn.SetReadDeadline(time.Time{})
	w.mu.Unlock()

	_, err := x.l.br.Peek(1) // the next request may be there early: it stays buffered
	w.mu.Lock()
	gone := err != nil && w.x == x
	w.mu.Unlock()
	if gone {
		x.l.cancel()
	}
	close(done)
}

// stop returns when nothing reads the connection any more.
func (w *watcher) stop() {
	w.mu.Lock()
	x, done := w.x, w.done
	w.x = nil
	if w.timer != nil {
		w.timer.Stop()
	}
	if x == nil || done == nil {
		w.mu.Unlock()
		return
	}
	_ = x.l.conn.SetReadDeadline(time.Unix(1, 0))
	w.mu.Unlock()
	<-done
	w.mu.Lock()
	w.done = nil
	w.mu.Unlock()
}
