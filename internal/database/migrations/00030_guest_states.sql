-- +goose Up
-- What a machine was beside its disks, kept with its restored OS disk until a machine is made of it. Sealed under the
-- root key: the state of a TPM may hold the key of a disk.
CREATE TABLE guest_states (
    disk_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sealed   BYTEA NOT NULL
);
