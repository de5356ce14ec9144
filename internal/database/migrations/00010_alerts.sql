-- +goose Up
-- What somebody should look at. Rows are only ever added, and outlive what they tell of.
CREATE TABLE backup_alerts (
    id        TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- begins with a time, so that ids sort by it
    vault_key TEXT COLLATE "C" NOT NULL,
    item_key  TEXT COLLATE "C" NOT NULL,
    document  TEXT NOT NULL
);
CREATE INDEX backup_alerts_vault ON backup_alerts (vault_key, id);
