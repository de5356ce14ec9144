-- +goose Up
-- A person has a name to sign in with, in lower case; an application has none.
ALTER TABLE identity_principals ADD COLUMN sign_in_name TEXT COLLATE "C";
CREATE UNIQUE INDEX identity_principals_sign_in_name ON identity_principals (sign_in_name);

-- How often everything that a person had signed in to was ended. Tokens carry the number of their day.
ALTER TABLE identity_principals ADD COLUMN sessions BIGINT NOT NULL DEFAULT 0;
