-- +goose Up
-- What a host says of a VM that it runs. A VM without a row here is image files at rest.
CREATE TABLE machines (
    vm_key      TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES virtual_machines (id_key) ON DELETE CASCADE,
    host        TEXT COLLATE "C" NOT NULL,
    uuid        TEXT COLLATE "C" NOT NULL, -- the host's identity for it, which outlives its name there
    power       TEXT NOT NULL,
    agent       TEXT NOT NULL,
    made        BOOLEAN NOT NULL, -- by this server, which may therefore remove it from the host
    deallocated BOOLEAN NOT NULL, -- that it is off was asked for by this word
    definition  TEXT NOT NULL,
    left_out    TEXT NOT NULL,    -- disks that are no resources, with the reason
    UNIQUE (host, uuid)
);
-- A disk that was found on a host has its path there, and nobody keeps two machines there from naming one image.
CREATE TABLE disks_of_hosts (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    vm_key   TEXT COLLATE "C" NOT NULL, -- empty when no VM has the disk
    document TEXT NOT NULL,
    path     TEXT NOT NULL,
    format   TEXT NOT NULL,
    size     BIGINT NOT NULL,
    owned    BOOLEAN NOT NULL,
    vm       TEXT NOT NULL,
    host     TEXT NOT NULL, -- empty for images of this machine
    target   TEXT NOT NULL  -- the host's name for the disk; empty at rest
);
INSERT INTO disks_of_hosts (id_key, vm_key, document, path, format, size, owned, vm, host, target)
    SELECT id_key, vm_key, document, path, format, size, owned, vm, '', '' FROM disks;
DROP TABLE disks;
ALTER TABLE disks_of_hosts RENAME TO disks;
CREATE INDEX disks_vm ON disks (vm_key);
CREATE UNIQUE INDEX disks_path ON disks (path) WHERE host = '';
