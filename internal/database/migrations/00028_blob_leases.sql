-- +goose Up
-- Stored access policies: what signatures that name one say, until it is changed.
ALTER TABLE containers ADD COLUMN policies TEXT NOT NULL DEFAULT '[]';

-- Who has a lease keeps others from changing a blob, or from deleting a container.
CREATE TABLE blob_leases (
    account   TEXT COLLATE "C" NOT NULL,
    container TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL, -- empty: the lease is on the container
    lease     TEXT NOT NULL,
    seconds   BIGINT NOT NULL,           -- -1: for ever
    expires   BIGINT NOT NULL,           -- 0: never
    broken    BIGINT NOT NULL,           -- when it is broken; 0: nobody has asked for that
    PRIMARY KEY (account, container, name),
    FOREIGN KEY (account, container) REFERENCES containers (account, name) ON DELETE CASCADE
);
