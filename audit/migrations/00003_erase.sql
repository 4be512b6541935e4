-- +goose Up

-- How far erasing is. One row. Nothing rests on it but what need not be looked
-- at again: both can be set back at any time.
CREATE TABLE audit_erasing (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    done     INTEGER NOT NULL, -- every audit.erase below this position was carried out
    retained INTEGER NOT NULL  -- nothing that can be erased has a body below this position
) STRICT;

INSERT INTO audit_erasing (id, done, retained) VALUES (1, 0, 0);

-- While there is a row, nothing is erased.
CREATE TABLE audit_hold (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BLOB    NOT NULL -- who, when and why, encrypted
) STRICT;

CREATE INDEX audit_event_erase ON audit_event (seq) WHERE kind = 'audit.erase';

-- +goose Down
DROP INDEX audit_event_erase;
DROP TABLE audit_hold;
DROP TABLE audit_erasing;
