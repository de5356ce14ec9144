-- +goose Up
-- What proves a principal: several secrets and certificates, each with its time.
CREATE TABLE identity_credentials (
    id         TEXT COLLATE "C" PRIMARY KEY,
    principal  TEXT COLLATE "C" NOT NULL REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,   -- secret, certificate or password
    name       TEXT NOT NULL,
    salt       BYTEA NOT NULL,  -- of a secret
    proof      BYTEA NOT NULL,  -- hash of a secret or password, or the certificate
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL  -- 0: never
);
CREATE INDEX identity_credentials_principal ON identity_credentials (principal);

INSERT INTO identity_credentials (id, principal, kind, name, salt, proof, created_at, expires_at)
SELECT object_id, object_id, 'secret', '', salt, secret_hash, created_at, 0 FROM identity_principals;

ALTER TABLE identity_principals DROP COLUMN salt;
ALTER TABLE identity_principals DROP COLUMN secret_hash;
ALTER TABLE identity_principals ADD COLUMN kind TEXT NOT NULL DEFAULT 'Application';
ALTER TABLE identity_principals ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE;

-- Assertions that were used, until they would have expired.
CREATE TABLE identity_assertions (
    id         TEXT COLLATE "C" PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

ALTER TABLE identity_signing_keys ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
