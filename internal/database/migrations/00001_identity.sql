-- +goose Up
CREATE TABLE identity_principals (
    object_id   TEXT COLLATE "C" PRIMARY KEY,
    app_id      TEXT COLLATE "C" NOT NULL UNIQUE,
    name        TEXT COLLATE "C" NOT NULL,
    salt        BYTEA NOT NULL,
    secret_hash BYTEA NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE identity_assignments (
    principal TEXT NOT NULL REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    role      TEXT NOT NULL,
    scope     TEXT NOT NULL,
    scope_key TEXT COLLATE "C" NOT NULL, -- the scope in lower case
    PRIMARY KEY (principal, role, scope_key)
);

CREATE TABLE identity_signing_keys (
    generation BIGINT PRIMARY KEY,
    sealed     BYTEA NOT NULL -- PKCS #8, sealed
);
