-- +goose Up

-- One row holds something sealed under the root key that this database belongs to: opened at every start.
CREATE TABLE keyvault_seal (
	id     TEXT PRIMARY KEY,
	sealed BYTEA NOT NULL
);

-- A soft-deleted key vault keeps its row, and with it its name, until it is recovered or purged.
CREATE TABLE keyvault_vaults (
	name_key   TEXT COLLATE "C" PRIMARY KEY, -- folded; names are unique in the whole installation
	id         TEXT NOT NULL,
	id_key     TEXT COLLATE "C" NOT NULL UNIQUE,
	location   TEXT NOT NULL,
	document   TEXT NOT NULL,                -- tags, access policies and settings as JSON
	created_at BIGINT NOT NULL,
	created_by TEXT NOT NULL,
	changed_at BIGINT NOT NULL,
	changed_by TEXT NOT NULL,
	deleted_at BIGINT NOT NULL DEFAULT 0,    -- 0 while it lives
	purge_at   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX keyvault_vaults_purge ON keyvault_vaults (purge_at);

-- A key or a secret: the name that its versions share.
CREATE TABLE keyvault_objects (
	vault      TEXT COLLATE "C" NOT NULL REFERENCES keyvault_vaults (name_key) ON DELETE CASCADE,
	kind       TEXT COLLATE "C" NOT NULL,    -- keys or secrets
	name_key   TEXT COLLATE "C" NOT NULL,
	name       TEXT NOT NULL,
	current    TEXT NOT NULL,                -- the newest version
	deleted_at BIGINT NOT NULL DEFAULT 0,
	purge_at   BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (vault, kind, name_key)
);
CREATE INDEX keyvault_objects_purge ON keyvault_objects (purge_at);

CREATE TABLE keyvault_versions (
	vault      TEXT COLLATE "C" NOT NULL,
	kind       TEXT COLLATE "C" NOT NULL,
	name_key   TEXT COLLATE "C" NOT NULL,
	version    TEXT COLLATE "C" NOT NULL,
	document   TEXT NOT NULL,                -- attributes, tags and the public part as JSON
	sealed     BYTEA NOT NULL,               -- private key or value, bound to vault, kind, name and version
	created_at BIGINT NOT NULL,
	changed_at BIGINT NOT NULL,
	PRIMARY KEY (vault, kind, name_key, version),
	FOREIGN KEY (vault, kind, name_key) REFERENCES keyvault_objects (vault, kind, name_key) ON DELETE CASCADE
);

-- Every use of a key or a secret, allowed or not. Rows are only ever added, and outlive what they tell of.
CREATE TABLE keyvault_uses (
	id          TEXT COLLATE "C" PRIMARY KEY, -- begins with the time, so that ids sort by it
	at          BIGINT NOT NULL,
	tenant      TEXT NOT NULL,
	principal   TEXT NOT NULL,
	application TEXT NOT NULL,
	operation   TEXT NOT NULL,
	vault       TEXT COLLATE "C" NOT NULL,
	kind        TEXT NOT NULL,
	name        TEXT NOT NULL,
	version     TEXT NOT NULL,
	result      TEXT NOT NULL                 -- Success, or the code of the refusal
);
CREATE INDEX keyvault_uses_vault ON keyvault_uses (vault, id);
