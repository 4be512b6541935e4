-- +goose Up
ALTER TABLE agent_keys ADD COLUMN created INTEGER NOT NULL DEFAULT 0; -- microseconds since 1970, UTC; 0 is unknown
ALTER TABLE agent_home ADD COLUMN root_created INTEGER NOT NULL DEFAULT 0;
