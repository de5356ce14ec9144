-- +goose Up
CREATE TABLE recovery_vaults (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    store    TEXT NOT NULL UNIQUE, -- name of its recovery store within the bucket
    document TEXT NOT NULL
);
CREATE TABLE backup_policies (
    id_key    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    vault_key TEXT COLLATE "C" NOT NULL REFERENCES recovery_vaults (id_key),
    document  TEXT NOT NULL
);
CREATE TABLE protected_items (
    id_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    vault_key  TEXT COLLATE "C" NOT NULL REFERENCES recovery_vaults (id_key),
    vm_key     TEXT COLLATE "C" NOT NULL UNIQUE,
    policy_key TEXT COLLATE "C" NOT NULL, -- empty when protection is stopped
    next_run   BIGINT NOT NULL,           -- 0 when nothing is scheduled
    document   TEXT NOT NULL
);
CREATE INDEX protected_items_due ON protected_items (next_run);
CREATE TABLE recovery_points (
    item_key TEXT COLLATE "C" NOT NULL REFERENCES protected_items (id_key),
    id       TEXT COLLATE "C" NOT NULL,
    taken    BIGINT NOT NULL,
    expiry   BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (item_key, id)
);
