-- +goose Up
-- What was added up in each minute. in-flight calls are in it from the moment
-- that they were let through.
CREATE TABLE ledger_minute (
    of       TEXT    NOT NULL, -- "tool shop.refunds.create", "effect spend"
    currency TEXT    NOT NULL, -- '' counts calls
    minute   INTEGER NOT NULL, -- since 1970, UTC
    amount   INTEGER NOT NULL, -- ten-thousandths
    PRIMARY KEY (of, currency, minute)
) STRICT, WITHOUT ROWID;

-- What is in flight, so that it can be given back once.
CREATE TABLE ledger_reserved (
    id       INTEGER NOT NULL,
    of       TEXT    NOT NULL,
    currency TEXT    NOT NULL,
    minute   INTEGER NOT NULL,
    amount   INTEGER NOT NULL,
    PRIMARY KEY (id, of, currency)
) STRICT, WITHOUT ROWID;

-- The last number that was given out.
CREATE TABLE ledger_next (id INTEGER NOT NULL) STRICT;
INSERT INTO ledger_next (id) VALUES (0);

-- +goose Down
DROP TABLE ledger_next;
DROP TABLE ledger_reserved;
DROP TABLE ledger_minute;
