-- +goose Up
-- A storage account has two keys, sealed under the root key.
CREATE TABLE storage_account_keys (
    account TEXT COLLATE "C" NOT NULL REFERENCES storage_accounts (name) ON DELETE CASCADE,
    number  BIGINT NOT NULL, -- 1 or 2
    sealed  BYTEA NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, number)
);

ALTER TABLE containers ADD COLUMN etag TEXT NOT NULL DEFAULT '0';
ALTER TABLE containers ADD COLUMN modified BIGINT NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';

-- A blob's bytes are its blocks in order of place, one object each. A block that is not committed has the place -1.
CREATE TABLE blob_blocks (
    account   TEXT COLLATE "C" NOT NULL,
    container TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    place     BIGINT NOT NULL,
    block     TEXT COLLATE "C" NOT NULL, -- the client's id; empty for a blob that was written whole
    object    TEXT COLLATE "C" NOT NULL,
    size      BIGINT NOT NULL,
    written   BIGINT NOT NULL,
    PRIMARY KEY (account, container, name, place, block),
    FOREIGN KEY (account, container) REFERENCES containers (account, name)
);
CREATE INDEX blob_blocks_written ON blob_blocks (written) WHERE place < 0;
INSERT INTO blob_blocks (account, container, name, place, block, object, size, written)
    SELECT account, container, name, 0, '', object, size, modified FROM blobs;

-- What was the name of the blob's one object was its etag as well; the etag it stays.
ALTER TABLE blobs RENAME COLUMN object TO etag;
ALTER TABLE blobs ADD COLUMN created BIGINT NOT NULL DEFAULT 0;
UPDATE blobs SET created = modified;
ALTER TABLE blobs ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';  -- how it is to be served, beside the content type
ALTER TABLE blobs ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
