-- +goose Up
CREATE TABLE approval (
    n       INTEGER PRIMARY KEY AUTOINCREMENT, -- a number is never used twice
    state   TEXT    NOT NULL, -- for finding; the one that counts is sealed
    changed INTEGER NOT NULL, -- when it came into its state: microseconds since 1970, UTC
    covers  INTEGER NOT NULL, -- 1: an answer covers more than the one call
    sealed  BLOB    NOT NULL, -- nonce and encrypted question, with its answers
    result  BLOB              -- the same of what the call came to, if that is kept
) STRICT;
CREATE INDEX approval_state ON approval (state, n);
CREATE INDEX approval_changed ON approval (changed);

-- +goose Down
DROP TABLE approval;
