-- +goose Up

-- How far each sink of events is in each log.
CREATE TABLE sink_cursor (
    sink TEXT    NOT NULL,
    log  TEXT    NOT NULL, -- the log's origin
    next INTEGER NOT NULL, -- the first event that is not acknowledged
    PRIMARY KEY (sink, log)
) STRICT;

-- +goose Down
DROP TABLE sink_cursor;
