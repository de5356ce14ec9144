-- +goose Up
CREATE TABLE resource_groups (
    name_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);
CREATE TABLE documents (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id       TEXT NOT NULL,
    type_key TEXT NOT NULL,
    body     TEXT NOT NULL
);
