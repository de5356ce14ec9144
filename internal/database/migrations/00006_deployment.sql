-- +goose Up
CREATE TABLE deployments (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);
