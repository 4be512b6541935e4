-- +goose Up
-- The control plane's own: its log's keys and its witness key.
CREATE TABLE control_keys (
    purpose TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL, -- AES-256-GCM with the root key: nonce, ciphertext, tag
    created INTEGER NOT NULL
) STRICT;

-- One row: the newest cosigned checkpoint of the control plane's log; NULL until
-- there is a log, and from then on a missing log is a loss.
CREATE TABLE control_log (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    head BLOB
) STRICT;
INSERT INTO control_log (id) VALUES (1);

-- Why the witness refuses the log of an agent; NULL if it does not.
ALTER TABLE agents ADD COLUMN refused TEXT;
