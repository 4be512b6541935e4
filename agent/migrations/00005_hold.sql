-- +goose Up

-- Who set a legal hold on the log of an agent, and when; NULL if there is none.
-- The log has the reason. A copy, so that a wipe need not ask a worker.
ALTER TABLE agents ADD COLUMN held TEXT;

-- +goose Down
ALTER TABLE agents DROP COLUMN held;
