-- +goose Up
-- What a client says is installed in a VM. Protected settings are in no row.
CREATE TABLE vm_extensions (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    vm_key   TEXT COLLATE "C" NOT NULL REFERENCES virtual_machines (id_key) ON DELETE CASCADE,
    document TEXT NOT NULL
);
CREATE INDEX vm_extensions_vm ON vm_extensions (vm_key);
