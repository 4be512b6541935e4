package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"

	"ambit/internal/sqldb"
)

// seen is what rules have seen before: values of hostile agents, of which a
// keyed hash is kept, so that the database file does not say where an agent
// went. It is bounded by those who remember.
type seen struct {
	key []byte // of the hashes

	mu    sync.Mutex // held for moments, never during I/O
	rules map[string]*seenBy
	fresh []seenRow // to be written
	gone  []string  // rules whose rows are to be deleted
}

// seenBy is what one rule has seen.
type seenBy struct {
	hashes map[seenHash]struct{}
	clear  map[string]struct{} // those of this process, which need no hashing
}

type (
	seenHash [16]byte
	seenRow  struct {
		rule string
		hash seenHash
	}
)

func (s *seen) hash(rule, value string) (h seenHash) {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(rule + "\x00" + value))
	copy(h[:], mac.Sum(nil))
	return h
}

// of is what a rule has seen. The caller holds mu.
func (s *seen) of(rule string) *seenBy {
	by := s.rules[rule]
	if by == nil {
		by = &seenBy{map[seenHash]struct{}{}, map[string]struct{}{}}
		s.rules[rule] = by
	}
	return by
}

// first says whether the rule has not seen the value. For one that it saw in
// this process it allocates nothing.
func (s *seen) first(rule, value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	by := s.of(rule)
	if _, known := by.clear[value]; known {
		return false
	}
	if _, known := by.hashes[s.hash(rule, value)]; known {
		by.clear[strings.Clone(value)] = struct{}{} // bounded by hashes
		return false
	}
	return true
}

// remember notes a value; it returns false, and notes nothing, when there are
// limit already. Rows are written with the next flush of the book.
func (s *seen) remember(rule, value string, limit int) bool {
	h := s.hash(rule, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	by := s.of(rule)
	if _, known := by.hashes[h]; known {
		return true // by another request, at the same time
	}
	if len(by.hashes) >= limit {
		return false
	}
	by.hashes[h], by.clear[strings.Clone(value)] = struct{}{}, struct{}{}
	s.fresh = append(s.fresh, seenRow{rule, h})
	return true
}

// keep forgets what rules have seen that are not there any more.
func (s *seen) keep(rules map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.rules {
		if !rules[name] {
			delete(s.rules, name)
			s.gone = append(s.gone, name)
		}
	}
	s.fresh = slices.DeleteFunc(s.fresh, func(row seenRow) bool { return !rules[row.rule] })
}

// load reads what was seen before.
func (s *seen) load(ctx context.Context, db *sqldb.DB) error {
	rows, err := db.Query(ctx, "SELECT rule, hash FROM alert_seen LIMIT ?", 2*maxBuiltinSeen+maxRules*maxOwnSeen)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rule string
		var hash []byte
		if err := rows.Scan(&rule, &hash); err != nil {
			return err
		}
		var h seenHash
		if copy(h[:], hash) != len(h) {
			return fmt.Errorf("what the rule %q has seen is damaged; restore the database from a backup", rule)
		}
		s.of(rule).hashes[h] = struct{}{}
	}
	return rows.Err()
}

// take hands out what is to be written; back puts it back if that failed.
func (s *seen) take() (gone []string, fresh []seenRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, fresh, s.gone, s.fresh = s.gone, s.fresh, nil, nil
	return gone, fresh
}

func (s *seen) back(gone []string, fresh []seenRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.fresh = append(gone, s.gone...), append(fresh, s.fresh...)
}

func writeSeen(ctx context.Context, tx *sqldb.Tx, gone []string, fresh []seenRow) error {
	for _, rule := range gone {
		if _, err := tx.Exec(ctx, "DELETE FROM alert_seen WHERE rule = ?", rule); err != nil {
			return err
		}
	}
	for _, row := range fresh {
		if _, err := tx.Exec(ctx, "INSERT OR IGNORE INTO alert_seen (rule, hash) VALUES (?, ?)", row.rule, row.hash[:]); err != nil {
			return err
		}
	}
	return nil
}
