-- +goose Up
ALTER TABLE agent_versions ADD COLUMN connectors BLOB; -- the operator's connector files that the manifest needs
