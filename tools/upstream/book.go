package upstream

import (
	"bytes"
	"context"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"ambit"
	"ambit/internal/inert"
	"ambit/internal/sqldb"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// State says what may be done with a tool. The zero value is quarantined.
type State string

// The states. Only an Accepted tool is shown to the agent and can be called.
const (
	Fresh    State = ""         // nobody has looked at it yet
	Changed  State = "changed"  // it is not what a person accepted
	Accepted State = "accepted" // it is what a person accepted
	Rejected State = "rejected" // a person does not want it
	Gone     State = "gone"     // the server does not offer it any more
)

// Item is a tool of an upstream, as a person looks at it.
type Item struct {
	Upstream string
	Tool     string // the server's own name for it
	Name     string // its name here; "" if it can have none
	State    State
	Hash     string // of what the server says of it now; names it when it is accepted

	// What the agent would get: cleaned and closed.
	Description   string
	Input, Output json.RawMessage
	Flags         []string // what was taken out of that, or is hidden in it
	Problem       string   // why it cannot be accepted; "" if it can
	Before        string   // what was accepted, as the server said it, if that is something else

	Facts                Facts // of the last time that it was accepted
	JudgedBy             ambit.Principal
	JudgedAt             time.Time // zero if nobody has
	First, Changed, Seen time.Time
}

// Book keeps what servers say of their tools and what people made of it. It is safe
// for concurrent use.
type Book struct{ db *sqldb.DB }

// OpenBook brings its tables in the agent's database up to date.
func OpenBook(ctx context.Context, db *sqldb.DB) (*Book, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "upstream_version", migrations); err != nil {
		return nil, err
	}
	return &Book{db}, nil
}

// row is a tool as it is stored.
type row struct {
	tool                       string
	hash, definition           []byte
	first, changed, seen       int64
	present                    bool
	pinned, accepted, rejected []byte
	facts, by                  string
	at                         int64
}

func (r *row) state() State {
	switch {
	case !r.present:
		return Gone
	case r.rejected != nil && bytes.Equal(r.rejected, r.hash):
		return Rejected
	case r.pinned == nil:
		return Fresh
	case bytes.Equal(r.pinned, r.hash):
		return Accepted
	}
	return Changed
}

const columns = "tool, hash, definition, first, changed, seen, present, pinned, accepted, rejected, facts, judged_by, judged_at"

func scan(rows *sqldb.Rows) ([]*row, error) {
	defer rows.Close()
	var all []*row
	for rows.Next() {
		r := &row{}
		if err := rows.Scan(&r.tool, &r.hash, &r.definition, &r.first, &r.changed, &r.seen, &r.present, &r.pinned, &r.accepted, &r.rejected, &r.facts, &r.by, &r.at); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// item makes of a row what a person sees. A row that does not fit its own hash is
// quarantined.
func (r *row) item(upstream string) (Item, error) {
	i := Item{
		Upstream: upstream, Tool: r.tool, State: r.state(), Hash: hex.EncodeToString(r.hash),
		JudgedBy: ambit.Principal(r.by), First: at(r.first), Changed: at(r.changed), Seen: at(r.seen), JudgedAt: at(r.at),
	}
	var d definition
	if err := json.Unmarshal(r.definition, &d); err != nil {
		return i, fmt.Errorf("reading the tool %q of %s: %w", r.tool, upstream, err)
	}
	if hashOf(r.definition) != i.Hash || d.Name != r.tool {
		return i, fmt.Errorf("the tool %q of %s is not what was stored: the database was changed; restore it from a backup", r.tool, upstream)
	}
	i.describe(&d)
	if r.facts != "" {
		if err := json.Unmarshal([]byte(r.facts), &i.Facts); err != nil {
			return i, fmt.Errorf("reading what the tool %q of %s means: %w", r.tool, upstream, err)
		}
	}
	if i.State == Changed {
		i.Before = inert.Lines(string(r.accepted))
	}
	return i, nil
}

func at(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// List returns the tools of an upstream by their own names, those that are gone only
// if they were accepted once.
func (b *Book) List(ctx context.Context, upstream string) ([]Item, error) {
	rows, err := b.db.Query(ctx, "SELECT "+columns+" FROM upstream_tool WHERE upstream = ? ORDER BY tool", upstream)
	if err != nil {
		return nil, err
	}
	all, err := scan(rows)
	if err != nil {
		return nil, err
	}
	return items(upstream, all)
}

// items makes the items of all rows of an upstream. Of tools whose names would be
// the same here, none can be accepted.
func items(upstream string, rows []*row) ([]Item, error) {
	list := make([]Item, 0, len(rows))
	here := map[string]int{}
	for _, r := range rows {
		i, err := r.item(upstream)
		if err != nil {
			return nil, err
		}
		if i.State != Gone {
			here[i.Name]++
		}
		list = append(list, i)
	}
	for n := range list {
		i := &list[n]
		if i.Name != "" && i.State != Gone && here[i.Name] > 1 {
			i.Problem = "another tool of this upstream would have the same name, " + i.Name
		}
		if i.Problem != "" && i.State == Accepted { // accepted by a release that read schemas otherwise
			i.State = Changed
		}
	}
	return list, nil
}

// record stores what a server offers now, and returns what waits for a person since.
// What nobody accepted and is not offered any more is forgotten.
func (b *Book) record(ctx context.Context, upstream string, seen []*definition) (fresh []Item, err error) {
	now := time.Now().UnixMicro()
	err = b.db.Write(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+columns+" FROM upstream_tool WHERE upstream = ? ORDER BY tool", upstream)
		if err != nil {
			return err
		}
		before, err := scan(rows)
		if err != nil {
			return err
		}
		known := map[string]*row{}
		for _, r := range before {
			known[r.tool] = r
		}
		if _, err := tx.Exec(ctx, "UPDATE upstream_tool SET present = 0 WHERE upstream = ?", upstream); err != nil {
			return err
		}
		news := map[string]bool{}
		for _, d := range seen {
			canonical, err := d.canonical()
			if err != nil {
				return err
			}
			hash, err := hex.DecodeString(hashOf(canonical))
			if err != nil {
				return err
			}
			old := known[d.Name]
			news[d.Name] = old == nil || !old.present || !bytes.Equal(old.hash, hash)
			if _, err := tx.Exec(ctx, `INSERT INTO upstream_tool (upstream, tool, hash, definition, first, changed, seen, present) VALUES (?, ?, ?, ?, ?, ?, ?, 1)
				ON CONFLICT (upstream, tool) DO UPDATE SET present = 1, seen = excluded.seen, definition = excluded.definition,
				changed = CASE WHEN hash = excluded.hash THEN changed ELSE excluded.changed END, hash = excluded.hash`,
				upstream, d.Name, hash, canonical, now, now, now); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "DELETE FROM upstream_tool WHERE upstream = ? AND present = 0 AND pinned IS NULL", upstream); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, "SELECT "+columns+" FROM upstream_tool WHERE upstream = ? ORDER BY tool", upstream); err != nil {
			return err
		}
		after, err := scan(rows)
		if err != nil {
			return err
		}
		list, err := items(upstream, after)
		if err != nil {
			return err
		}
		fresh = slices.DeleteFunc(list, func(i Item) bool { return !news[i.Tool] || i.State != Fresh && i.State != Changed })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("storing the tools of %s: %w", upstream, err)
	}
	return fresh, nil
}

// ErrMoved is returned when a person judged something else than what is there now.
var ErrMoved = errors.New("the tool has changed since you looked at it, or is not offered any more; look again")

// Accept pins what a tool is now, with what it means. hash is Item.Hash of what the
// person looked at: if the tool has changed since, it returns ErrMoved.
func (b *Book) Accept(ctx context.Context, upstream, tool, hash string, by ambit.Principal, facts Facts) error {
	if by == "" || by == ambit.PrincipalAgent {
		return errors.New("a person accepts a tool")
	}
	text, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	list, err := b.List(ctx, upstream)
	if err != nil {
		return err
	}
	n := slices.IndexFunc(list, func(i Item) bool { return i.Tool == tool && i.Hash == hash && i.State != Gone })
	if n < 0 {
		return ErrMoved
	}
	if p := list[n].Problem; p != "" {
		return fmt.Errorf("the tool %q cannot be accepted: %s", inert.Text(tool), p)
	}
	if err := facts.Check(list[n].Input); err != nil {
		return fmt.Errorf("accepting the tool %q: %w", inert.Text(tool), err)
	}
	return b.judge(ctx, `UPDATE upstream_tool SET pinned = hash, accepted = definition, rejected = NULL, facts = ?, judged_by = ?, judged_at = ?
		WHERE upstream = ? AND tool = ? AND hash = ? AND present = 1`, hash, string(text), string(by), time.Now().UnixMicro(), upstream, tool)
}

// Reject takes a tool away, accepted or not, until it changes and a person accepts
// it. hash is as for Accept.
func (b *Book) Reject(ctx context.Context, upstream, tool, hash string, by ambit.Principal) error {
	return b.judge(ctx, `UPDATE upstream_tool SET pinned = NULL, accepted = NULL, rejected = hash, judged_by = ?, judged_at = ?
		WHERE upstream = ? AND tool = ? AND hash = ?`, hash, string(by), time.Now().UnixMicro(), upstream, tool)
}

func (b *Book) judge(ctx context.Context, query, hash string, args ...any) error {
	raw, err := hex.DecodeString(hash)
	if err != nil {
		return ErrMoved
	}
	return b.db.Write(ctx, func(tx *sqldb.Tx) error {
		result, err := tx.Exec(ctx, query, append(args, raw)...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return ErrMoved
	})
}

// holds reports whether a tool is accepted with this hash and offered so.
func (b *Book) holds(ctx context.Context, upstream, tool, hash string) (bool, error) {
	raw, err := hex.DecodeString(hash)
	if err != nil {
		return false, err
	}
	var n int
	err = b.db.QueryRow(ctx, "SELECT count(*) FROM upstream_tool WHERE upstream = ? AND tool = ? AND present = 1 AND hash = ? AND pinned = ? AND (rejected IS NULL OR rejected <> hash)",
		[]any{upstream, tool, raw, raw}, &n)
	return n == 1, err
}
