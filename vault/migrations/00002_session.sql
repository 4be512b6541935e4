-- +goose Up
CREATE TABLE vault_session (
    connection TEXT    NOT NULL,
    ref        TEXT    NOT NULL, -- what the agent has in its place: no credential
    made       INTEGER NOT NULL, -- microseconds since 1970
    key        INTEGER NOT NULL, -- version of the key that sealed it
    sealed     BLOB    NOT NULL, -- nonce, and encrypted what it is and for whom
    PRIMARY KEY (connection, ref)
) STRICT;

-- +goose Down
DROP TABLE vault_session;
