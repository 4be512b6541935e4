-- +goose Up
CREATE TABLE agents (
    id      TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    desired TEXT NOT NULL CHECK (desired IN ('running', 'stopped')),
    uid     INTEGER NOT NULL,
    created INTEGER NOT NULL, -- microseconds since 1970, UTC, here and below
    updated INTEGER NOT NULL,
    head    BLOB              -- the newest checkpoint of its log that was verified
) STRICT;

CREATE TABLE agent_versions (
    agent  TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    n      INTEGER NOT NULL,
    source BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    time   INTEGER NOT NULL,
    by     TEXT NOT NULL,
    note   TEXT NOT NULL,
    PRIMARY KEY (agent, n)
) STRICT;

CREATE TABLE agent_keys (
    agent   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    version INTEGER NOT NULL,
    wrapped BLOB NOT NULL, -- AES-256-GCM with the root key: nonce, ciphertext, tag
    PRIMARY KEY (agent, purpose, version)
) STRICT;

-- One row. next_uid only grows, so that a wiped agent's user id is never
-- another's; root_check knows the root key again without telling it.
CREATE TABLE agent_home (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    next_uid   INTEGER NOT NULL,
    root_check BLOB NOT NULL
) STRICT;
