-- +goose Up
CREATE TABLE disks (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    vm_key   TEXT COLLATE "C" NOT NULL, -- empty when no VM has the disk
    document TEXT NOT NULL,
    path     TEXT NOT NULL UNIQUE,
    format   TEXT NOT NULL,
    size     BIGINT NOT NULL,
    owned    BOOLEAN NOT NULL,
    vm       TEXT NOT NULL
);
CREATE INDEX disks_vm ON disks (vm_key);
CREATE TABLE virtual_machines (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);
