-- +goose Up
-- When a key gets a new version by itself. A key without a row is never rotated.
CREATE TABLE keyvault_rotation_policies (
	vault    TEXT COLLATE "C" NOT NULL,
	kind     TEXT COLLATE "C" NOT NULL,    -- always keys; it is here for the foreign key
	name_key TEXT COLLATE "C" NOT NULL,
	document TEXT NOT NULL,
	PRIMARY KEY (vault, kind, name_key),
	FOREIGN KEY (vault, kind, name_key) REFERENCES keyvault_objects (vault, kind, name_key) ON DELETE CASCADE
);
