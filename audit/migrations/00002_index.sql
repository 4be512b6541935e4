-- +goose Up

-- The index that searches use: segments, each over a run of positions. It is
-- made of the events and can be made again; nothing that is verified rests on
-- it. A row without a directory is being written, or is being removed.
CREATE TABLE audit_index_segment (
    id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
    level     INTEGER NOT NULL, -- 0 as it was built, 1 merged of those
    first     INTEGER NOT NULL, -- the first position
    last      INTEGER NOT NULL, -- the position after the last
    directory BLOB              -- encrypted: the first term of each page
) STRICT;

CREATE INDEX audit_index_segment_first ON audit_index_segment (first);

CREATE TABLE audit_index_page (
    id     INTEGER PRIMARY KEY, -- the segment's id * 2^20 + the page's number
    sealed BLOB NOT NULL        -- encrypted: terms and where they are
) STRICT;

-- +goose Down
DROP TABLE audit_index_page;
DROP TABLE audit_index_segment;
