-- +goose Up
CREATE TABLE identity_locks (
    scope_key  TEXT COLLATE "C" NOT NULL, -- the scope in lower case
    name_key   TEXT COLLATE "C" NOT NULL, -- the name in lower case
    scope      TEXT NOT NULL,
    name       TEXT NOT NULL,
    level      TEXT NOT NULL, -- CanNotDelete or ReadOnly
    notes      TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (scope_key, name_key)
);
