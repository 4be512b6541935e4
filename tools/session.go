package tools

import (
	"crypto/rand"
	"sync"
	"time"
)

const (
	maxSessions = 64
	sessionIdle = time.Hour
)

// session is one of the revisions that have sessions. Its task has a name of its
// own, because that goes into the log and the session's id lets in.
type session struct {
	version string
	task    string
	used    time.Time
}

// sessions holds at most maxSessions; a new one takes the place of the one that was
// not used for the longest. The zero value is ready.
type sessions struct {
	mu  sync.Mutex
	all map[string]*session
}

func (s *sessions) begin(version string) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]*session{}
	}
	s.sweep()
	if len(s.all) >= maxSessions {
		oldest, used := "", time.Now().Add(time.Hour)
		for id, one := range s.all {
			if one.used.Before(used) {
				oldest, used = id, one.used
			}
		}
		delete(s.all, oldest)
	}
	id = rand.Text()
	s.all[id] = &session{version: version, task: "session:" + rand.Text(), used: time.Now()}
	return id
}

func (s *sessions) get(id string) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	one, ok := s.all[id]
	if !ok {
		return session{}, false
	}
	one.used = time.Now()
	return *one, true
}

func (s *sessions) end(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.all[id]
	delete(s.all, id)
	return ok
}

func (s *sessions) sweep() {
	for id, one := range s.all {
		if time.Since(one.used) > sessionIdle {
			delete(s.all, id)
		}
	}
}
