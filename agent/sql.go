package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"ambit"
	"ambit/internal/sqldb"
)

const selectAgent = "SELECT id, version, desired, uid, created, updated FROM agents"

// queryRow is the same method of a database and of a transaction.
type queryRow func(ctx context.Context, query string, args []any, dest ...any) error

type scan func(dest ...any) error

func scanAgent(scan scan) (Agent, error) {
	var a Agent
	var created, updated int64
	err := scan(&a.ID, &a.Version, &a.Desired, &a.UID, &created, &updated)
	a.Created, a.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return a, err
}

func scanVersion(scan scan) (Version, error) {
	var v Version
	var at int64
	err := scan(&v.N, &v.Source, &v.Connectors, &v.SHA256, &at, &v.By, &v.Note)
	v.Time = time.UnixMicro(at).UTC()
	return v, err
}

func getAgent(ctx context.Context, query queryRow, id ambit.AgentID) (Agent, error) {
	a, err := scanAgent(func(dest ...any) error {
		return query(ctx, selectAgent+" WHERE id = ?", []any{string(id)}, dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Agent{}, ErrNotFound
	}
	return a, err
}

func getVersion(ctx context.Context, query queryRow, id ambit.AgentID, n int) (Version, error) {
	v, err := scanVersion(func(dest ...any) error {
		return query(ctx, "SELECT n, source, connectors, sha256, time, by, note FROM agent_versions WHERE agent = ? AND n = ?", []any{string(id), n}, dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Version{}, ErrVersion
	}
	return v, err
}

// addVersion stores v as the newest version and puts it in force.
func addVersion(ctx context.Context, tx *sqldb.Tx, a *Agent, v *Version) error {
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(n), 0) + 1 FROM agent_versions WHERE agent = ?", []any{string(a.ID)}, &v.N); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO agent_versions (agent, n, source, connectors, sha256, time, by, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		string(a.ID), v.N, v.Source, v.Connectors, v.SHA256, v.Time.UnixMicro(), string(v.By), v.Note)
	if err != nil {
		return err
	}
	a.Version, a.Updated = v.N, v.Time
	return oneRow(tx.Exec(ctx, "UPDATE agents SET version = ?, updated = ? WHERE id = ?", v.N, v.Time.UnixMicro(), string(a.ID)))
}

// oneRow is ErrNotFound if a statement found no row to change.
func oneRow(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	if n == 0 {
		return ErrNotFound
	}
	return nil
}
