package vault

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"ambit/internal/reference"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// MaxSessions is how many of the credentials that hosts handed back are kept of
// one connection. Those that were used the longest ago give way.
const MaxSessions = 64

// maxSealed is how many bytes they may have together, as they are sealed: a quarter
// of it is for that. All forms of each are looked for in answers, and for a value
// that needs escaping they are a hundred times its length.
const maxSealed = 32 << 10

// handed is a credential that a host handed back when the agent logged in: a
// cookie, or a token in an answer.
type handed struct {
	Life   string `json:"life"`             // of the connection
	Host   string `json:"host"`             // that handed it back
	Domain string `json:"domain,omitempty"` // of a cookie that is for this name and all below it; "" is for Host alone
	Cookie string `json:"cookie,omitempty"` // its name; "" is a token
	Value  []byte `json:"value,omitempty"`  // not in memory but while it is used
}

// goesTo says whether it may be sent to a host of its connection: a cookie where
// RFC 6265 section 5.1.3 lets it go, a token to each.
func (h *handed) goesTo(host string) bool {
	if h.Cookie == "" || host == h.Host {
		return true
	}
	return h.Domain != "" && (host == h.Domain || strings.HasSuffix(host, "."+h.Domain))
}

// session is a handed as it is kept: sealed. It does not change but for used.
type session struct {
	handed // without its Value
	ref    string
	made   int64 // microseconds since 1970
	row    sealed
	used   atomic.Int64 // the same
}

// The reference to what is handed back begins with letters of its connection,
// by which it is known wherever it turns up, and goes on with ones of its own.
// It is nothing but letters and digits, so that no program encodes it.
const (
	sessionsShape = "{base62:20}"
	sessionShape  = "{base62:22}"
)

// sessionsPrefix is how references to what a connection's hosts hand back begin.
func sessionsPrefix(key secretbytes.Bytes, connection string) (string, error) {
	shape, err := reference.Parse(sessionsShape)
	if err != nil {
		return "", err
	}
	return shape.Derive(key, "sessions", connection), nil
}

// refOf derives the reference to h: the same again for the same value, so that
// what a site sets anew with each answer does not look changed.
func (v *Vault) refOf(b *bound, h *handed) (string, error) {
	shape, err := reference.Parse(sessionShape)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(h.Value)
	return b.sessions + shape.Derive(v.config.Ref, "session", b.Name, h.Life, h.Host, h.Domain, h.Cookie, hex.EncodeToString(sum[:])), nil
}

// errSession is a session whose connection ended.
var errSession = errors.New("the connection that it belongs to ended")

// session returns what a reference stands for; nil if it is nothing. When a
// cookie ends is for the browser and the site to know.
func (s *store) session(connection, ref string, now time.Time) *session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := s.sessions[connection][ref]
	if found != nil {
		found.used.Store(now.UnixMicro())
	}
	return found
}

// changesOf returns a number that changes with the sessions of a connection.
func (s *store) changesOf(connection string) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changes[connection]
}

// sessionsOf returns the sessions of a connection, and the number of changesOf.
func (s *store) sessionsOf(connection string) ([]*session, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.sessions[connection])), s.changes[connection]
}

// openSession returns a copy of the value, which the caller wipes.
func (s *store) openSession(connection string, of *session) (secretbytes.Bytes, error) {
	plain, err := of.row.open(s.sessionPlace(connection, of.Life, of.ref))
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	defer plain.Wipe()
	var h handed
	if err := json.Unmarshal(plain.Reveal(), &h); err != nil {
		return secretbytes.Bytes{}, err
	}
	return s.memory.take(h.Value), nil
}

func (s *store) sessionPlace(connection, life, ref string) place {
	return place{agent: s.agent, connection: connection, life: life, field: "!session " + ref, version: 1}
}

// closeSession seals h, whose Value it wipes.
func (s *store) closeSession(with *seal, connection, ref string, h handed, now time.Time) (*session, error) {
	text, err := json.Marshal(h)
	clear(h.Value)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	h.Value = nil
	made := &session{handed: h, ref: ref, made: now.UnixMicro(), row: with.close(s.sessionPlace(connection, h.Life, ref), text)}
	made.used.Store(made.made)
	return made, nil
}

// keepSessions stores, by reference, what was handed back, durably when it
// returns nil, and forgets what was kept in excess of MaxSessions. Those that
// are stored already stay as they are. It returns those that are new. It owns
// and wipes the values.
func (s *store) keepSessions(ctx context.Context, c *connection, all map[string]handed, now time.Time) ([]*session, error) {
	defer func() {
		for _, h := range all {
			clear(h.Value)
		}
	}()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	seal, have, current := s.seal, s.sessions[c.name], s.rows[c.name]
	next := maps.Clone(have)
	s.mu.RUnlock()
	if seal == nil || current == nil || current.Life != c.Life {
		return nil, errSession
	}
	if next == nil {
		next = make(map[string]*session)
	}
	var fresh []*session
	for ref, h := range all {
		if next[ref] != nil {
			continue
		}
		made, err := s.closeSession(seal, c.name, ref, h, now)
		if err != nil {
			return nil, err
		}
		next[ref], fresh = made, append(fresh, made)
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	gone := excess(next)
	fresh = slices.DeleteFunc(fresh, func(made *session) bool { return next[made.ref] == nil }) // too many at once
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, ref := range gone {
			if err := dropSession(ctx, tx, c.name, ref); err != nil {
				return err
			}
		}
		for _, made := range fresh {
			if err := putSession(ctx, tx, c.name, made); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fresh, s.setSessions(c, next)
}

// setSessions puts them in force, unless the connection ended meanwhile.
func (s *store) setSessions(c *connection, next map[string]*session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.rows[c.name]; now == nil || now.Life != c.Life {
		return errSession // the rows go with the connection's, which waits for writing
	}
	s.sessions[c.name] = next
	s.changes[c.name]++
	return nil
}

// excess takes out of all what is more than MaxSessions or maxSealed.
func excess(all map[string]*session) (gone []string) {
	byUse := slices.SortedFunc(maps.Values(all), func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.used.Load(), b.used.Load()), cmp.Compare(a.made, b.made), cmp.Compare(a.ref, b.ref))
	})
	size := 0
	for _, of := range byUse {
		size += len(of.row.text)
	}
	for _, of := range byUse {
		if len(all) <= MaxSessions && size <= maxSealed {
			break
		}
		size -= len(of.row.text)
		gone = append(gone, of.ref)
		delete(all, of.ref)
	}
	return gone
}

// forgetSessions deletes those that are over.
func (s *store) forgetSessions(ctx context.Context, c *connection, isOver func(*handed) bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	next := maps.Clone(s.sessions[c.name])
	s.mu.RUnlock()
	var gone []string
	for ref, of := range next {
		if isOver(&of.handed) {
			gone = append(gone, ref)
			delete(next, ref)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, ref := range gone {
			if err := dropSession(ctx, tx, c.name, ref); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.setSessions(c, next)
}

func putSession(ctx context.Context, tx *sqldb.Tx, connection string, of *session) error {
	_, err := tx.Exec(ctx, "INSERT INTO vault_session (connection, ref, made, key, sealed) VALUES (?, ?, ?, ?, ?)",
		connection, of.ref, of.made, of.row.seal.version, of.row.text)
	return err
}

func dropSession(ctx context.Context, tx *sqldb.Tx, connection, ref string) error {
	_, err := tx.Exec(ctx, "DELETE FROM vault_session WHERE connection = ? AND ref = ?", connection, ref)
	return err
}

func dropSessions(ctx context.Context, tx *sqldb.Tx, connection string) error {
	_, err := tx.Exec(ctx, "DELETE FROM vault_session WHERE connection = ?", connection)
	return err
}

// loadSessions reads what was kept, of connections that are there. A row that
// does not open is not used: the agent logs in again.
func (s *store) loadSessions(ctx context.Context, seals map[int]*seal) error {
	rows, err := s.db.Query(ctx, "SELECT connection, ref, made, key, sealed FROM vault_session")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var connection, ref string
		var made int64
		var key int
		var text []byte
		if err := rows.Scan(&connection, &ref, &made, &key, &text); err != nil {
			return err
		}
		c := s.rows[connection]
		if c == nil || c.damage != nil {
			continue
		}
		of, err := s.readSession(c, ref, sealed{seals[key], text})
		if err != nil {
			continue
		}
		of.made = made
		of.used.Store(made)
		if s.sessions[connection] == nil {
			s.sessions[connection] = make(map[string]*session)
		}
		s.sessions[connection][ref] = of
	}
	return rows.Err()
}

func (s *store) readSession(c *connection, ref string, row sealed) (*session, error) {
	plain, err := row.open(s.sessionPlace(c.name, c.Life, ref))
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	of := &session{ref: ref, row: row}
	if err := json.Unmarshal(plain.Reveal(), &of.handed); err != nil {
		return nil, err
	}
	clear(of.Value)
	of.Value = nil
	return of, nil
}

// resealed are the sessions of a connection with another seal.
func (s *store) resealed(connection string, all map[string]*session, with *seal) (map[string]*session, error) {
	next := make(map[string]*session, len(all))
	for ref, of := range all {
		at := s.sessionPlace(connection, of.Life, ref)
		plain, err := of.row.open(at)
		if err != nil {
			return nil, err
		}
		again := &session{handed: of.handed, ref: ref, made: of.made, row: with.close(at, plain.Reveal())}
		again.used.Store(of.used.Load())
		plain.Wipe()
		next[ref] = again
	}
	return next, nil
}
