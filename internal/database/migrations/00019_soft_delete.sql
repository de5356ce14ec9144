-- +goose Up
-- Backup data that was deleted is kept for some days in which it can be undeleted, and erased then.
ALTER TABLE protected_items ADD COLUMN purge_at BIGINT NOT NULL DEFAULT 0; -- 0 when it is not to be erased
CREATE INDEX protected_items_purge ON protected_items (purge_at);
