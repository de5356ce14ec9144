-- +goose Up
-- Who holds the URL of a disk or a snapshot may read its bytes until it expires.
CREATE TABLE disk_accesses (
    id_key  TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- of the disk or snapshot
    id      TEXT NOT NULL,                         -- the same as it was written
    access  TEXT COLLATE "C" NOT NULL UNIQUE,      -- its own id, a part of the URL
    sealed  BYTEA NOT NULL,                        -- the signature in the URL, sealed under the root key
    expires BIGINT NOT NULL
);

-- A snapshot is a disk's image at one moment. The file is Kluis's own.
CREATE TABLE snapshots (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL,
    path     TEXT NOT NULL UNIQUE,
    format   TEXT NOT NULL,
    size     BIGINT NOT NULL
);
