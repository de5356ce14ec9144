package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// record is a principal with what proves it.
type record struct {
	Principal
	salt, hash []byte
	created    int64
}

func insertPrincipal(ctx context.Context, tx *database.Tx, r record) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_principals (object_id, app_id, name, salt, secret_hash, created_at)
		VALUES ($1, $2, $3, $4, $5, $6)`, r.ObjectID, r.AppID, r.Name, r.salt, r.hash, r.created)
	return err
}

func updateSecret(ctx context.Context, tx *database.Tx, objectID string, salt, hash []byte) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_principals SET salt = $1, secret_hash = $2 WHERE object_id = $3`, salt, hash, objectID)
	return err
}

func deletePrincipal(ctx context.Context, tx *database.Tx, objectID string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_principals WHERE object_id = $1`, objectID)
	return err
}

const selectPrincipal = `SELECT object_id, app_id, name, salt, secret_hash, created_at FROM identity_principals `

// principalByID finds a principal by object or application id, in lower case.
func principalByID(ctx context.Context, tx *database.Tx, id string) (record, bool, error) {
	return scanPrincipal(tx.QueryRowContext(ctx, selectPrincipal+`WHERE object_id = $1 OR app_id = $1`, id))
}

// principalByName finds the oldest principal of that name.
func principalByName(ctx context.Context, tx *database.Tx, name string) (record, bool, error) {
	return scanPrincipal(tx.QueryRowContext(ctx, selectPrincipal+`WHERE name = $1 ORDER BY created_at, object_id LIMIT 1`, name))
}

func scanPrincipal(row interface{ Scan(...any) error }) (r record, found bool, err error) {
	err = row.Scan(&r.ObjectID, &r.AppID, &r.Name, &r.salt, &r.hash, &r.created)
	if errors.Is(err, sql.ErrNoRows) {
		return record{}, false, nil
	}
	return r, err == nil, err
}

func allPrincipals(ctx context.Context, tx *database.Tx) (all []record, err error) {
	rows, err := tx.QueryContext(ctx, selectPrincipal+`ORDER BY name, object_id`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, _, err := scanPrincipal(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func insertAssignment(ctx context.Context, tx *database.Tx, a Assignment) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_assignments (principal, role, scope, scope_key) VALUES ($1, $2, $3, $4)
		ON CONFLICT (principal, role, scope_key) DO NOTHING`, a.PrincipalID, a.Role, a.Scope.String(), a.Scope.Key())
	return err
}

func deleteAssignment(ctx context.Context, tx *database.Tx, a Assignment) (bool, error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM identity_assignments WHERE principal = $1 AND role = $2 AND scope_key = $3`,
		a.PrincipalID, a.Role, a.Scope.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

const selectAssignments = `SELECT principal, role, scope FROM identity_assignments `

func assignmentsOf(ctx context.Context, tx *database.Tx, objectID string) ([]Assignment, error) {
	return queryAssignments(ctx, tx, selectAssignments+`WHERE principal = $1 ORDER BY scope_key, role`, objectID)
}

func allAssignments(ctx context.Context, tx *database.Tx) ([]Assignment, error) {
	return queryAssignments(ctx, tx, selectAssignments+`ORDER BY scope_key, role, principal`)
}

func queryAssignments(ctx context.Context, tx *database.Tx, query string, args ...any) (all []Assignment, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a Assignment
		var scope string
		if err := rows.Scan(&a.PrincipalID, &a.Role, &scope); err != nil {
			return nil, err
		}
		if a.Scope, err = armid.Parse(scope); err != nil {
			return nil, fmt.Errorf("read assignment: %w", err)
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// insertSigningKey does nothing if another process has made the key of that generation.
func insertSigningKey(ctx context.Context, tx *database.Tx, generation int64, sealed []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_signing_keys (generation, sealed) VALUES ($1, $2)
		ON CONFLICT (generation) DO NOTHING`, generation, sealed)
	return err
}

type sealedKey struct {
	generation int64
	sealed     []byte
}

func signingKeys(ctx context.Context, tx *database.Tx) (all []sealedKey, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT generation, sealed FROM identity_signing_keys ORDER BY generation DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var k sealedKey
		if err := rows.Scan(&k.generation, &k.sealed); err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, rows.Err()
}

func updateSigningKey(ctx context.Context, tx *database.Tx, k sealedKey) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_signing_keys SET sealed = $2 WHERE generation = $1`, k.generation, k.sealed)
	return err
}
