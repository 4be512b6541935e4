package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// Migrate brings the tables of one package up to date. fsys holds its
// migrations at the top level (00001_name.sql, in goose's format); table is
// where their versions are kept, so that each package has its own, and must be
// a constant. A database whose version is above the newest migration is
// refused with [ErrNewer] and not touched.
func (d *DB) Migrate(ctx context.Context, table string, fsys fs.FS) (err error) {
	// A connection of its own: goose wants a *sql.DB, and the one of Write is taken.
	db, err := sql.Open("sqlite", d.dsn(writePragmas))
	if err != nil {
		return d.explain("migrating", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectSQLite3, db, fsys,
		goose.WithTableName(table), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return d.explain("migrating", err)
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return d.explain("migrating", err)
	}
	if current > target {
		return d.explain("migrating", fmt.Errorf("%w (%s is at %d, this program knows %d)", ErrNewer, table, current, target))
	}
	if _, err := p.Up(ctx); err != nil {
		return d.explain("migrating", err)
	}
	return nil
}
