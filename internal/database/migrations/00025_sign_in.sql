-- +goose Up
-- What a person has let a client have, until the client fetches it. Codes are kept as hashes alone; what was wanted is JSON;
-- sessions is the person's number at the time, and with another one nothing of it is good any more.
CREATE TABLE identity_codes (
    hash       TEXT COLLATE "C" PRIMARY KEY,
    principal  TEXT COLLATE "C" NOT NULL REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    sessions   BIGINT NOT NULL,
    wanted     TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used       BOOLEAN NOT NULL DEFAULT FALSE
);

-- A device asks, and a person answers at a page.
CREATE TABLE identity_devices (
    hash       TEXT COLLATE "C" PRIMARY KEY,
    user_code  TEXT COLLATE "C" NOT NULL UNIQUE,
    principal  TEXT COLLATE "C" REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    sessions   BIGINT NOT NULL DEFAULT 0,
    wanted     TEXT NOT NULL,
    state      TEXT NOT NULL, -- pending, allowed or denied
    polled_at  BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT NOT NULL
);

-- Refresh tokens are used once. Those that came from one sign-in are a family: if one is used again later, all end.
CREATE TABLE identity_refresh_tokens (
    hash       TEXT COLLATE "C" PRIMARY KEY,
    family     TEXT COLLATE "C" NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    sessions   BIGINT NOT NULL,
    wanted     TEXT NOT NULL,
    begun_at   BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX identity_refresh_tokens_family ON identity_refresh_tokens (family);

-- Where a sign-in to an application may lead back to.
CREATE TABLE identity_redirect_uris (
    principal TEXT COLLATE "C" NOT NULL REFERENCES identity_principals (object_id) ON DELETE CASCADE,
    uri       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (principal, uri)
);
