-- +goose Up
CREATE TABLE jobs (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind         TEXT NOT NULL,
    scope        TEXT NOT NULL, -- key of the Recovery Services vault the job belongs to
    entity       TEXT NOT NULL, -- key of the resource it works on
    exclusive    TEXT,          -- no two jobs that have not ended share this
    args         TEXT NOT NULL,
    state        TEXT NOT NULL, -- queued, running, ended
    outcome      TEXT NOT NULL, -- Completed, CompletedWithWarnings, Failed, Cancelled; empty until ended
    cancelling   BOOLEAN NOT NULL,
    owner        TEXT NOT NULL,
    lease_until  BIGINT NOT NULL,
    attempt      BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    done         BIGINT NOT NULL,
    total        BIGINT NOT NULL,
    tasks        TEXT NOT NULL,
    details      TEXT NOT NULL,
    problems     TEXT NOT NULL,
    correlation  TEXT NOT NULL
);
CREATE UNIQUE INDEX jobs_exclusive ON jobs (exclusive) WHERE state <> 'ended';
CREATE INDEX jobs_scope ON jobs (scope, created);
CREATE INDEX jobs_state ON jobs (state, lease_until);
