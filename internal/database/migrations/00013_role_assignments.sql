-- +goose Up
CREATE TABLE identity_role_assignments (
    name           TEXT COLLATE "C" UNIQUE, -- a GUID; NULL until the assignments from before have got theirs
    principal      TEXT COLLATE "C" NOT NULL, -- object id, also of a principal that is part of the product
    principal_type TEXT NOT NULL,
    role           TEXT NOT NULL, -- GUID of the role definition
    scope          TEXT NOT NULL,
    scope_key      TEXT COLLATE "C" NOT NULL, -- the scope in lower case
    description    TEXT NOT NULL DEFAULT '',
    created_at     BIGINT NOT NULL,
    created_by     TEXT NOT NULL DEFAULT '',
    updated_at     BIGINT NOT NULL,
    updated_by     TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (principal, role, scope_key)
);

INSERT INTO identity_role_assignments (principal, principal_type, role, scope, scope_key, created_at, updated_at)
SELECT a.principal, 'ServicePrincipal',
       CASE a.role
           WHEN 'Owner' THEN '8e3af657-a8ff-443c-a75c-2fe8c4bcb635'
           WHEN 'Contributor' THEN 'b24988ac-6180-42a0-ab88-20f7382dd24c'
           WHEN 'Reader' THEN 'acdd72a7-3385-48ef-bd42-f606fba81ae7'
           WHEN 'Backup Contributor' THEN '5e467623-bb1f-42f4-a55d-6e525e11384b'
           WHEN 'Backup Operator' THEN '00c29273-979b-4161-815c-10b084fb9324'
           WHEN 'Backup Reader' THEN 'a795c7a0-d4a2-40c1-ae25-d81f01202912'
           WHEN 'Key Vault Contributor' THEN 'f25e0fa2-a7c8-4377-a976-54943a77a395'
           WHEN 'Virtual Machine Contributor' THEN '9980e02c-c2be-4d73-94e8-173b1dc7cf3c'
       END,
       a.scope, a.scope_key, p.created_at, p.created_at
FROM identity_assignments a JOIN identity_principals p ON p.object_id = a.principal;

DROP TABLE identity_assignments;
