-- +goose Up
-- Each protected item has a recovery store of its own, and with it a time at which its space is given back.
ALTER TABLE protected_items ADD COLUMN store TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE protected_items ADD COLUMN collect_at BIGINT NOT NULL DEFAULT 0; -- 0 when there is nothing to give back
CREATE INDEX protected_items_collect ON protected_items (collect_at);
