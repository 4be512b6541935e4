-- +goose Up
-- What upstream servers say of their tools, and what a person made of it. A tool
-- whose pinned hash is not its hash is quarantined.
CREATE TABLE upstream_tool (
    upstream   TEXT    NOT NULL,
    tool       TEXT    NOT NULL, -- the upstream's own name for it
    hash       BLOB    NOT NULL, -- SHA-256 of the definition
    definition BLOB    NOT NULL, -- canonical JSON, as it was last seen
    first      INTEGER NOT NULL, -- microseconds since 1970, UTC: when it was seen first,
    changed    INTEGER NOT NULL, -- when this definition was seen first,
    seen       INTEGER NOT NULL, -- and when it was seen last
    present    INTEGER NOT NULL, -- 1 if it was in the last list
    pinned     BLOB,             -- the hash that a person accepted
    accepted   BLOB,             -- the definition of that hash
    facts      TEXT    NOT NULL DEFAULT '', -- what the tool means, as JSON, from that person
    rejected   BLOB,             -- the hash that a person rejected
    judged_by  TEXT    NOT NULL DEFAULT '',
    judged_at  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (upstream, tool)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE upstream_tool;
