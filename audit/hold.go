package audit

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"ambit"
	"ambit/internal/sqldb"
)

// ErrHeld says that a legal hold forbids erasing. The error around it is a
// [*HeldError].
var ErrHeld = errors.New("a legal hold forbids erasing")

// Hold is a legal hold: while it lasts nothing of the log is erased.
type Hold struct {
	By   ambit.Principal `json:"by"`
	Time time.Time       `json:"time"`
	Why  string          `json:"why"`
}

// HeldError says who set the hold that is in the way, and when. It is
// [ErrHeld].
type HeldError struct{ Hold }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%v: %s set it on %s (%s); release it first", ErrHeld, e.By, e.Time.Format("2006-01-02 15:04 MST"), e.Why)
}

// Is makes it [ErrHeld].
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// Hold sets a legal hold, or releases it, and says so in the log. A hold that
// is set again has the new reason. An erasure that is running stops at its next
// transaction, with ErrHeld, and goes on when the hold is released.
//
// Setting writes the row first and the event then, releasing the other way
// around: whatever happens in between, the hold lasts. After an error the call
// is to be made again.
func (l *Log) Hold(ctx context.Context, on bool, by ambit.Principal, why string) error {
	why = strings.ToValidUTF8(why, "\uFFFD")
	clip(&why)
	e := ambit.Event{Kind: ambit.KindAuditHold, Principal: by, Decision: ambit.Allow}
	if !on {
		held, err := l.Held(ctx)
		if err != nil {
			return err
		}
		if held == nil {
			return nil
		}
		e.Detail = "released: " + why
		if _, err := l.Append(ctx, e); err != nil {
			return fmt.Errorf("releasing the hold: %w", err)
		}
		if err := l.db.Write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(ctx, "DELETE FROM audit_hold")
			return err
		}); err != nil {
			return fmt.Errorf("releasing the hold, which lasts: %w", err)
		}
		return nil
	}
	sealed, err := l.keys.sealHold(Hold{By: by, Time: l.clock().UTC().Truncate(time.Microsecond), Why: why})
	if err != nil {
		return fmt.Errorf("setting the hold: %w", err)
	}
	if err := l.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO audit_hold (id, sealed) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed", sealed)
		return err
	}); err != nil {
		return fmt.Errorf("setting the hold: %w", err)
	}
	e.Detail = "set: " + why
	if _, err := l.Append(ctx, e); err != nil {
		return fmt.Errorf("the hold is set, but the log does not say so yet: %w", err)
	}
	return nil
}

// Held is the legal hold that lasts, or nil.
func (l *Log) Held(ctx context.Context) (*Hold, error) { return l.held(ctx, l.db) }

func (l *Log) held(ctx context.Context, q querier) (*Hold, error) {
	var sealed []byte
	err := q.QueryRow(ctx, "SELECT sealed FROM audit_hold", nil, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the hold: %w", err)
	}
	h := l.keys.openHold(sealed)
	return &h, nil
}

// refuseHeld is an error while a hold lasts.
func (l *Log) refuseHeld(ctx context.Context, q querier) error {
	h, err := l.held(ctx, q)
	if err == nil && h != nil {
		err = &HeldError{*h}
	}
	return err
}

// sealHold encrypts why there is a hold: it may name people.
func (r *keyring) sealHold(h Hold) ([]byte, error) {
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails
	return r.aead.Seal(nonce, nonce, plain, r.holdData()), nil
}

// openHold reverses sealHold. A row that somebody changed is a hold too.
func (r *keyring) openHold(sealed []byte) Hold {
	unknown := Hold{By: "unknown", Time: time.Unix(0, 0).UTC(), Why: "its row was changed behind the log's back"}
	if len(sealed) < nonceSize {
		return unknown
	}
	plain, err := r.aead.Open(nil, sealed[:nonceSize], sealed[nonceSize:], r.holdData())
	var h Hold
	if err != nil || json.Unmarshal(plain, &h) != nil {
		return unknown
	}
	return h
}

// holdData is what ties it to this log; no event's position is encoded so.
func (r *keyring) holdData() []byte { return []byte(r.origin + "\nhold") }
