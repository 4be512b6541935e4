package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
)

// store is a durable row and the provider behind it. The provider rotates its
// refresh token each time, and takes each of them once.
type store struct {
	mu        sync.Mutex
	access    string
	refresh   string
	expires   time.Time
	life      time.Duration
	fetches   int
	notified  []oauth.Health
	fetchErr  error
	storeErr  error
	fetchTime time.Duration
	issued    string // the refresh token that the provider takes
}

func (s *store) config() oauth.RefresherConfig {
	return oauth.RefresherConfig{
		Load: func(context.Context) (*oauth.Token, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &oauth.Token{Access: secret(s.access), Refresh: secret(s.refresh), Expires: s.expires}, nil
		},
		Fetch: func(ctx context.Context, refresh secretbytes.Bytes) (*oauth.Token, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(s.fetchTime):
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.fetches++
			if s.fetchErr != nil {
				return nil, s.fetchErr
			}
			if string(refresh.Reveal()) != s.issued {
				return nil, &oauth.Error{Permanent: true, Code: "invalid_grant", Reason: "used before"}
			}
			s.issued = fmt.Sprintf("r%d", s.fetches)
			return &oauth.Token{Access: secret(fmt.Sprintf("a%d", s.fetches)), Refresh: secret(s.issued), Expires: time.Now().Add(s.life)}, nil
		},
		Store: func(_ context.Context, t *oauth.Token) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.storeErr != nil {
				return s.storeErr
			}
			s.access, s.refresh, s.expires = string(t.Access.Reveal()), string(t.Refresh.Reveal()), t.Expires
			return nil
		},
		Notify: func(st oauth.State) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.notified = append(s.notified, st.Health)
		},
	}
}

func (s *store) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// count is how often the provider was asked.
func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

func newStore(left time.Duration) *store {
	return &store{access: "a0", refresh: "r0", issued: "r0", expires: time.Now().Add(left), life: time.Hour, fetchTime: time.Second}
}

func refresher(t *testing.T, c oauth.RefresherConfig) *oauth.Refresher {
	t.Helper()
	r, err := oauth.NewRefresher(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func access(t *testing.T, r *oauth.Refresher) string {
	t.Helper()
	a, err := r.Access(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Wipe()
	return string(a.Reveal())
}

func TestOneRefreshAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(-time.Second)
		r := refresher(t, s.config())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := access(t, r); got != "a1" {
					t.Errorf("access token %s", got)
				}
			})
		}
		synctest.Wait()
		if h := r.State().Health; h != oauth.Refreshing {
			t.Errorf("health %s", h)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Access(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that went: %v", err)
		}
		wg.Wait()
		if s.count() != 1 || fmt.Sprint(s.notified) != "[refreshing ok]" || s.refresh != "r1" {
			t.Errorf("%d fetches, %v, %s", s.count(), s.notified, s.refresh)
		}
	})
}

func TestAheadOfItsEndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(8 * time.Minute)
		r := refresher(t, s.config())
		if access(t, r) != "a0" {
			t.Error("another token")
		}
		synctest.Wait()
		if s.count() != 0 {
			t.Error("refreshed more than 7.5 minutes ahead")
		}
		time.Sleep(4 * time.Minute) // four before its end
		before := time.Now()
		if access(t, r) != "a0" || !time.Now().Equal(before) {
			t.Error("waited for a refresh that was not needed yet")
		}
		time.Sleep(2 * time.Second)
		if access(t, r) != "a1" || s.count() != 1 {
			t.Errorf("%d fetches", s.count())
		}
	})
}

// TestCrashBetweenFetchAndStore has the disk fail after the provider rotated.
func TestCrashBetweenFetchAndStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(-time.Second)
		s.storeErr = errors.New("disk full")
		r := refresher(t, s.config())
		if a, err := r.Access(t.Context()); !errors.Is(err, s.storeErr) || a.Len() != 0 {
			t.Errorf("a token that is not stored was used: %v", err)
		}
		if s.refresh != "r0" || s.issued != "r1" {
			t.Errorf("stored %s, issued %s", s.refresh, s.issued)
		}
		if st := r.State(); st.Health != oauth.Failing || st.Failures != 1 || !st.Next.After(time.Now()) {
			t.Errorf("state %+v", st)
		}
		// The disk is back: what was fetched is stored, nobody is asked again.
		s.set(func() { s.storeErr = nil })
		time.Sleep(time.Minute)
		if access(t, r) != "a1" || s.count() != 1 || s.refresh != "r1" {
			t.Errorf("%d fetches, stored %s", s.count(), s.refresh)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the same, but the process ends
		s := newStore(-time.Second)
		s.storeErr = errors.New("disk full")
		r := refresher(t, s.config())
		if _, err := r.Access(t.Context()); err == nil {
			t.Fatal("no error")
		}
		r.Close()
		s.set(func() { s.storeErr = nil })
		again := refresher(t, s.config())
		var e *oauth.Error
		if _, err := again.Access(t.Context()); !errors.As(err, &e) || !e.Permanent || again.State().Health != oauth.ReconnectNeeded {
			t.Errorf("%v, %+v", err, again.State())
		}
		if s.refresh != "r0" {
			t.Errorf("stored %s", s.refresh)
		}
	})
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(-time.Second)
		s.fetchErr = &oauth.Error{Status: 503, Reason: "it has a fault"}
		r := refresher(t, s.config())
		start := time.Now()
		for i := range 12 {
			if _, err := r.Access(t.Context()); !errors.Is(err, s.fetchErr) {
				t.Fatal(err)
			}
			fetched := s.count()
			if _, err := r.Access(t.Context()); !errors.Is(err, s.fetchErr) || s.count() != fetched {
				t.Fatalf("asked again at once: %v", err)
			}
			st := r.State()
			pause := min(time.Second<<i, 5*time.Minute)
			if d := time.Until(st.Next); d < pause/2 || d > pause || st.Failures != i+1 || st.Health != oauth.Failing || st.Since.Sub(start) != time.Second {
				t.Fatalf("try %d: %+v, in %s", i, st, d)
			}
			time.Sleep(time.Until(st.Next))
		}
		s.set(func() { s.fetchErr = &oauth.Error{Status: 429, RetryAfter: 40 * time.Minute, Reason: "too often"} })
		if _, err := r.Access(t.Context()); err == nil {
			t.Fatal("no error")
		}
		if d := time.Until(r.State().Next); d != 40*time.Minute {
			t.Errorf("Retry-After of 40m became %s", d)
		}
		s.set(func() { s.fetchErr = nil })
		time.Sleep(40 * time.Minute)
		if access(t, r) != "a14" || r.State().Health != oauth.OK || r.State().Err != nil {
			t.Errorf("state %+v after %d fetches", r.State(), s.count())
		}
	})
}

func TestFailingBeforeItsEndStillWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(2 * time.Minute)
		s.fetchErr = &oauth.Error{Reason: "away"}
		r := refresher(t, s.config())
		for range 100 {
			if access(t, r) != "a0" {
				t.Error("another token")
			}
			time.Sleep(time.Second)
		}
		if s.count() < 3 || s.count() > 10 {
			t.Errorf("%d fetches in 100 seconds", s.count())
		}
	})
}

func TestReconnectNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Minute)
		s.issued = "revoked by the person at the provider"
		r := refresher(t, s.config())
		if err := r.Run(t.Context()); err == nil {
			t.Error("Run ended without a reason")
		}
		var e *oauth.Error
		if _, err := r.Access(t.Context()); !errors.As(err, &e) || e.Code != "invalid_grant" {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := r.Access(t.Context()); err == nil || s.count() != 1 {
			t.Errorf("%v after %d fetches", err, s.count())
		}
		if fmt.Sprint(s.notified) != "[refreshing reconnect-needed]" {
			t.Errorf("notified %v", s.notified)
		}
	})
	if h := (oauth.State{}).Health; h != oauth.ReconnectNeeded {
		t.Errorf("the zero state is %s", h)
	}
}

func TestRunKeepsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Hour)
		r := refresher(t, s.config())
		done := make(chan error)
		go func() { done <- r.Run(t.Context()) }()
		for range 24 * 60 {
			time.Sleep(time.Minute)
			s.set(func() {
				if time.Until(s.expires) < 4*time.Minute {
					t.Errorf("only %s left", time.Until(s.expires))
				}
			})
		}
		if s.count() < 25 || s.count() > 28 {
			t.Errorf("%d fetches in a day of tokens for an hour", s.count())
		}
		r.Close()
		if err := <-done; !errors.Is(err, oauth.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		if _, err := r.Access(t.Context()); !errors.Is(err, oauth.ErrClosed) {
			t.Errorf("Access: %v", err)
		}
	})
}

func TestShortLivedTokensAreNotRefreshedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(-time.Second)
		s.life = 4 * time.Minute
		r := refresher(t, s.config())
		for range 60 {
			access(t, r)
			time.Sleep(time.Minute)
		}
		if s.count() < 15 || s.count() > 31 {
			t.Errorf("%d fetches in an hour of tokens for four minutes", s.count())
		}
	})
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Hour)
		r := refresher(t, s.config())
		if !r.Expire() || access(t, r) != "a1" {
			t.Error("a token that an upstream refused was used again")
		}
		if r.Expire() || access(t, r) != "a1" {
			t.Error("refreshed twice in a minute")
		}
		time.Sleep(time.Minute)
		if !r.Expire() || access(t, r) != "a2" {
			t.Error("not refreshed after a minute")
		}
	})
}

func TestTokenWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(0)
		s.expires = time.Time{}
		r := refresher(t, s.config())
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		if err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || access(t, r) != "a0" || s.count() != 0 {
			t.Errorf("%v, %d fetches", err, s.count())
		}
	})
}

func TestCloseEndsARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(-time.Second)
		s.fetchTime = time.Hour
		r := refresher(t, s.config())
		errs := make(chan error)
		go func() { _, err := r.Access(t.Context()); errs <- err }()
		synctest.Wait()
		start := time.Now()
		r.Close()
		if err := <-errs; err == nil || !time.Now().Equal(start) {
			t.Errorf("Access after Close: %v, %s later", err, time.Since(start))
		}
		if fmt.Sprint(s.notified) != "[refreshing]" {
			t.Errorf("notified %v", s.notified)
		}
	})
}

func TestLoadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(time.Hour)
		c := s.config()
		broken := errors.New("the row does not open")
		c.Load = func(context.Context) (*oauth.Token, error) { return nil, broken }
		r := refresher(t, c)
		if _, err := r.Access(t.Context()); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	})
	if _, err := oauth.NewRefresher(oauth.RefresherConfig{}); err == nil {
		t.Error("a Refresher without anything")
	}
}
