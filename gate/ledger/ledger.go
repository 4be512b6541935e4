// Package ledger keeps what an agent has spent and how often it has called, so
// that limits over an hour or a day hold, also across restarts and for calls at
// the same time.
//
// A decision and the reservation of what the call would take are one
// transaction: of two calls that want the last 50 EUR, the second one sees what
// the first one has taken. What is reserved counts as spent from then on. It is
// given back only by [Reservation.Release], for a call that certainly did
// nothing.
//
// Crash points: before the commit nothing was let through and nothing counts.
// After it the call counts, whether or not it ran: what was in flight when the
// process died stays spent.
//
// Time is counted in whole minutes, and a minute that began within the window
// counts as a whole, so that a window is up to a minute longer than it says and
// never shorter. There are at most 1,442 rows for each thing that is added up.
//
// Trust: the database of the agent, in which amounts and names of tools are not
// encrypted. Whoever can write to it can make limits forget. Whoever sets the
// clock of the host ahead ends the windows; set back, it makes them longer.
package ledger

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"ambit"
	"ambit/internal/money"
	"ambit/internal/sqldb"
	"ambit/policy/tool"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// horizon is how long minutes are kept: the longest window, and the minute that
// it begins in.
const horizon = 24*time.Hour + time.Minute

// Policy decides calls by running totals. [*tool.Set] is one.
type Policy interface {
	Meters(*ambit.ToolCall) []tool.Meter
	Draws(*ambit.ToolCall) []tool.Draw
	Decide(*ambit.ToolCall, tool.Facts) ambit.ToolVerdict
}

// Config is what a ledger needs.
type Config struct {
	DB  *sqldb.DB        // the agent's; required
	Now func() time.Time // default time.Now
}

// Ledger keeps the totals of one agent. It is safe for concurrent use.
type Ledger struct {
	db  *sqldb.DB
	now func() time.Time
	// Stranded is how many calls were in flight when the process before died.
	// They count as spent.
	Stranded int
}

// Open opens the ledger in the agent's database.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if err := c.DB.Migrate(ctx, "ledger_version", migrations); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	l := &Ledger{db: c.DB, now: c.Now}
	if l.now == nil {
		l.now = time.Now
	}
	err = l.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT count(DISTINCT id) FROM ledger_reserved", nil, &l.Stranded); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM ledger_reserved")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return l, nil
}

// Reservation is what one call has taken. It ends with Settle or Release, once.
type Reservation struct {
	ledger *Ledger
	id     int64 // 0: nothing was taken
}

// Decide lets the policy decide with the totals of now, and reserves what the
// call takes if it is allowed. agreed says of a verdict with Asks whether people
// have agreed to it; nil is that nobody has. The verdict is then Allow, and keeps
// its Asks. The Reservation is not nil exactly if the verdict is Allow.
//
// If the totals cannot be read or written, the verdict denies and the error says
// why.
func (l *Ledger) Decide(ctx context.Context, p Policy, c *ambit.ToolCall, agreed func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, *Reservation, error) {
	var v ambit.ToolVerdict
	r := &Reservation{ledger: l}
	meters := p.Meters(c)
	if len(meters) == 0 {
		v = decide(p, c, tool.Facts{}, agreed)
	} else if err := l.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		facts := tool.Facts{Totals: make(map[tool.Meter]money.Amount, len(meters))}
		now := l.now()
		for _, m := range meters {
			if facts.Totals[m], err = total(ctx, tx, m, now); err != nil {
				return err
			}
		}
		if v = decide(p, c, facts, agreed); v.Decision != ambit.Allow {
			return errUndone
		}
		r.id, err = reserve(ctx, tx, p.Draws(c), now)
		return err
	}); err != nil && !errors.Is(err, errUndone) {
		return unavailable(err), nil, fmt.Errorf("reserving in the ledger: %w", err)
	}
	if v.Decision != ambit.Allow {
		return v, nil, nil
	}
	return v, r, nil
}

// errUndone ends a transaction that is to do nothing.
var errUndone = errors.New("nothing to write")

func decide(p Policy, c *ambit.ToolCall, f tool.Facts, agreed func(ambit.ToolVerdict) bool) ambit.ToolVerdict {
	v := p.Decide(c, f)
	if v.Decision != ambit.Allow && len(v.Asks) > 0 && agreed != nil && agreed(v) {
		v.Decision, v.Reason = ambit.Allow, ambit.Reason{}
	}
	return v
}

func unavailable(err error) ambit.ToolVerdict {
	return ambit.ToolVerdict{Verdict: ambit.Verdict{Rule: "ledger", Reason: ambit.Reason{
		Code:   "ledger-unavailable",
		Text:   "what was spent so far cannot be read or written, so nothing that has a limit may run: " + err.Error(),
		Remedy: "see that the disk has room and is writable, then try again",
	}}}
}

func minute(t time.Time) int64 { return t.Unix() / 60 }

// total adds up the minutes since the window began, that one included, and any
// that lie in the future because the clock was set back.
func total(ctx context.Context, tx *sqldb.Tx, m tool.Meter, now time.Time) (money.Amount, error) {
	rows, err := tx.Query(ctx, "SELECT amount FROM ledger_minute WHERE of = ? AND currency = ? AND minute >= ?", m.Of, m.Currency, minute(now.Add(-m.Window)))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	sum := money.Amount(0)
	for rows.Next() {
		var a money.Amount
		if err := rows.Scan(&a); err != nil {
			return 0, err
		}
		sum = sum.Add(max(a, 0))
	}
	return sum, rows.Err()
}

// reserve notes what a call takes; 0 if that is nothing.
func reserve(ctx context.Context, tx *sqldb.Tx, draws []tool.Draw, now time.Time) (int64, error) {
	if len(draws) == 0 {
		return 0, nil
	}
	if _, err := tx.Exec(ctx, "DELETE FROM ledger_minute WHERE minute < ?", minute(now.Add(-horizon))); err != nil {
		return 0, err
	}
	var id int64
	if err := tx.QueryRow(ctx, "UPDATE ledger_next SET id = id + 1 RETURNING id", nil, &id); err != nil {
		return 0, err
	}
	for _, d := range draws {
		before := money.Amount(0)
		rows, err := tx.Query(ctx, "SELECT amount FROM ledger_minute WHERE of = ? AND currency = ? AND minute = ?", d.Of, d.Currency, minute(now))
		if err != nil {
			return 0, err
		}
		if rows.Next() {
			err = rows.Scan(&before)
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, "INSERT OR REPLACE INTO ledger_minute (of, currency, minute, amount) VALUES (?, ?, ?, ?)",
			d.Of, d.Currency, minute(now), int64(before.Add(d.Amount))); err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO ledger_reserved (id, of, currency, minute, amount) VALUES (?, ?, ?, ?, ?)",
			id, d.Of, d.Currency, minute(now), int64(d.Amount)); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// Settle keeps what the call has taken: it ran, or nobody knows. Without it the
// amount is kept too; only the note that it is in flight stays until the next
// start.
func (r *Reservation) Settle(ctx context.Context) error {
	return r.end(ctx, "settling in the ledger", func(*sqldb.Tx) error { return nil })
}

// Release gives back what the call has taken: it certainly did not run. After
// Settle, or a second time, it does nothing.
func (r *Reservation) Release(ctx context.Context) error {
	return r.end(ctx, "giving back in the ledger", func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE ledger_minute SET amount = max(0, ledger_minute.amount - r.amount) FROM ledger_reserved AS r
			WHERE r.id = ? AND r.of = ledger_minute.of AND r.currency = ledger_minute.currency AND r.minute = ledger_minute.minute`, r.id)
		return err
	})
}

func (r *Reservation) end(ctx context.Context, doing string, before func(*sqldb.Tx) error) error {
	if r == nil || r.id == 0 {
		return nil
	}
	err := r.ledger.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := before(tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM ledger_reserved WHERE id = ?", r.id)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Totals are the running totals of now, for people.
func (l *Ledger) Totals(ctx context.Context, meters []tool.Meter) (map[tool.Meter]money.Amount, error) {
	all := make(map[tool.Meter]money.Amount, len(meters))
	err := l.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		for _, m := range meters {
			if all[m], err = total(ctx, tx, m, l.now()); err != nil {
				return err
			}
		}
		return errUndone
	})
	if err != nil && !errors.Is(err, errUndone) {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return all, nil
}
