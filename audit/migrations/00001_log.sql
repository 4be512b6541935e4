-- +goose Up

-- What log this is. One row.
CREATE TABLE audit_log (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    format     INTEGER NOT NULL, -- of the leaves and bodies; 1
    origin     TEXT    NOT NULL, -- the name in every leaf and checkpoint
    keycheck   BLOB    NOT NULL, -- derived from the body key, to tell a wrong key from damage
    checkpoint TEXT    NOT NULL  -- the last signed checkpoint that was stored (C2SP signed note)
) STRICT;

-- One row for each event. seq, time, kind and commitment make the leaf.
-- decision and of are copies from the body, there to be searched.
CREATE TABLE audit_event (
    seq        INTEGER PRIMARY KEY, -- from 0, without gaps
    time       INTEGER NOT NULL,    -- microseconds since 1970, UTC
    kind       TEXT    NOT NULL,
    decision   INTEGER NOT NULL,    -- 0 deny, 1 allow
    of         INTEGER,             -- the event this one belongs to
    commitment BLOB    NOT NULL,    -- HMAC-SHA256(salt, body)
    sealed     BLOB                 -- encrypted salt and body; NULL once erased
) STRICT;

CREATE INDEX audit_event_of ON audit_event (of) WHERE of IS NOT NULL;

-- Everything but the ordinary allowed call: the condition stands in queries
-- word for word (SQLite uses a partial index only then).
CREATE INDEX audit_event_notable ON audit_event (seq, kind, decision)
    WHERE NOT (kind = 'egress.outcome' OR (kind = 'egress.request' AND decision = 1));

-- Full hash tiles of height 8 (C2SP tlog-tiles): 256 hashes of 32 bytes. What
-- is right of them is recomputed when the log is opened.
CREATE TABLE audit_tile (
    level  INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    hashes BLOB    NOT NULL,
    PRIMARY KEY (level, n)
) STRICT;

-- +goose Down
DROP TABLE audit_tile;
DROP TABLE audit_event;
DROP TABLE audit_log;
