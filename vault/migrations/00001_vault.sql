-- +goose Up
CREATE TABLE vault_connection (
    name    TEXT    PRIMARY KEY,
    version INTEGER NOT NULL, -- goes up with each change; it is sealed, too
    key     INTEGER NOT NULL, -- version of the key that sealed it
    sealed  BLOB    NOT NULL  -- nonce and encrypted description: no credential
) STRICT;

CREATE TABLE vault_secret (
    connection TEXT    NOT NULL,
    field      TEXT    NOT NULL,
    key        INTEGER NOT NULL,
    sealed     BLOB    NOT NULL, -- nonce and encrypted value
    PRIMARY KEY (connection, field)
) STRICT;

-- +goose Down
DROP TABLE vault_secret;
DROP TABLE vault_connection;
