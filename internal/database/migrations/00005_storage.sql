-- +goose Up
CREATE TABLE storage_accounts (
    name     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);
CREATE TABLE containers (
    account TEXT COLLATE "C" NOT NULL REFERENCES storage_accounts (name),
    name    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account, name)
);
CREATE TABLE blobs (
    account      TEXT COLLATE "C" NOT NULL,
    container    TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    object       TEXT NOT NULL,
    size         BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    modified     BIGINT NOT NULL,
    PRIMARY KEY (account, container, name),
    FOREIGN KEY (account, container) REFERENCES containers (account, name)
);
