-- +goose Up
-- The record of uses becomes a chain: each row has a place in it and a hash over itself and the hash before it.
ALTER TABLE keyvault_uses ADD COLUMN seq BIGINT NOT NULL DEFAULT 0; -- from 1; 0 for rows from before there was a chain
ALTER TABLE keyvault_uses ADD COLUMN correlation TEXT NOT NULL DEFAULT '';
ALTER TABLE keyvault_uses ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX keyvault_uses_seq ON keyvault_uses (seq) WHERE seq > 0;

-- The end of the chain, one row. It is sealed, so that who can write the database alone can't move it.
CREATE TABLE keyvault_audit_head (
	id     TEXT PRIMARY KEY,
	seq    BIGINT NOT NULL,
	hash   TEXT NOT NULL,
	sealed BYTEA NOT NULL
);
INSERT INTO keyvault_audit_head (id, seq, hash, sealed) VALUES ('head', 0, '', '');
