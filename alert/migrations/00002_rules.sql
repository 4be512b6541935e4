-- +goose Up
ALTER TABLE alert ADD COLUMN acked_by    TEXT    NOT NULL DEFAULT '';
ALTER TABLE alert ADD COLUMN muted_until INTEGER NOT NULL DEFAULT 0; -- microseconds since 1970, UTC; 0 was never
ALTER TABLE alert ADD COLUMN muted_by    TEXT    NOT NULL DEFAULT '';
ALTER TABLE alert ADD COLUMN news        INTEGER NOT NULL DEFAULT 0; -- position among what was news, from 1

-- What rules saw before: keyed hashes, so that the file does not tell values.
CREATE TABLE alert_seen (
    rule TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (rule, hash)
) STRICT, WITHOUT ROWID;

-- One row: tells this book from another one of an agent of the same name.
CREATE TABLE alert_book (id TEXT NOT NULL) STRICT;
INSERT INTO alert_book (id) VALUES (lower(hex(randomblob(16))));

-- +goose Down
DROP TABLE alert_book;
DROP TABLE alert_seen;
ALTER TABLE alert DROP COLUMN news;
ALTER TABLE alert DROP COLUMN muted_by;
ALTER TABLE alert DROP COLUMN muted_until;
ALTER TABLE alert DROP COLUMN acked_by;
