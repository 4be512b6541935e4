-- +goose Up
CREATE TABLE alert (
    id       INTEGER PRIMARY KEY,
    severity INTEGER NOT NULL, -- 0 info to 4 critical
    first    INTEGER NOT NULL, -- microseconds since 1970, UTC
    last     INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    event    INTEGER NOT NULL, -- position in the log of the last one's cause
    acked    INTEGER NOT NULL, -- 1: a person has seen it
    sealed   BLOB    NOT NULL  -- encrypted key and title
) STRICT;

-- +goose Down
DROP TABLE alert;
