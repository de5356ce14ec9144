-- +goose Up
-- What a subscription has beside its id, which is the installation's: its tags.
CREATE TABLE subscriptions (
    id_key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);
