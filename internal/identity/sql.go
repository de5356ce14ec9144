package identity

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// record is a principal with what only the database knows of it.
type record struct {
	Principal
	created  int64
	sessions int64 // how often what a person has signed in to was ended
}

func insertPrincipal(ctx context.Context, tx *database.Tx, r record) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_principals (object_id, app_id, name, kind, disabled, created_at, sign_in_name)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, r.ObjectID, cmp.Or(r.AppID, r.ObjectID), r.Name, r.Kind, r.Disabled, r.created,
		sql.NullString{String: r.SignInName, Valid: r.SignInName != ""})
	return err
}

func updateDisabled(ctx context.Context, tx *database.Tx, objectID string, disabled bool) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_principals SET disabled = $2 WHERE object_id = $1`, objectID, disabled)
	return err
}

func endSessions(ctx context.Context, tx *database.Tx, objectID string) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_principals SET sessions = sessions + 1 WHERE object_id = $1 AND kind = $2`, objectID, User)
	return err
}

func redirectURIsOf(ctx context.Context, tx *database.Tx, objectID string) ([]string, error) {
	return rowsOf(ctx, tx, func(row scanner) (uri string, err error) { return uri, row.Scan(&uri) },
		`SELECT uri FROM identity_redirect_uris WHERE principal = $1 ORDER BY uri`, objectID)
}

func replaceRedirectURIs(ctx context.Context, tx *database.Tx, objectID string, uris []string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM identity_redirect_uris WHERE principal = $1`, objectID); err != nil {
		return err
	}
	for _, uri := range uris {
		if _, err := tx.ExecContext(ctx, `INSERT INTO identity_redirect_uris (principal, uri) VALUES ($1, $2)`, objectID, uri); err != nil {
			return err
		}
	}
	return nil
}

func deletePrincipal(ctx context.Context, tx *database.Tx, objectID string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM identity_role_assignments WHERE principal = $1`, objectID); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_principals WHERE object_id = $1`, objectID)
	return err
}

const selectPrincipal = `SELECT object_id, app_id, name, kind, disabled, created_at, COALESCE(sign_in_name, ''), sessions FROM identity_principals `

// principalByID finds a principal by object or application id, in lower case.
func principalByID(ctx context.Context, tx *database.Tx, id string) (record, bool, error) {
	return scanPrincipal(tx.QueryRowContext(ctx, selectPrincipal+`WHERE object_id = $1 OR app_id = $1`, id))
}

// principalByName finds the oldest principal of that kind and name.
func principalByName(ctx context.Context, tx *database.Tx, kind Kind, name string) (record, bool, error) {
	return scanPrincipal(tx.QueryRowContext(ctx, selectPrincipal+`WHERE kind = $1 AND name = $2 ORDER BY created_at, object_id LIMIT 1`, kind, name))
}

func principalBySignInName(ctx context.Context, tx *database.Tx, name string) (record, bool, error) {
	return scanPrincipal(tx.QueryRowContext(ctx, selectPrincipal+`WHERE sign_in_name = $1`, name))
}

func scanPrincipal(row interface{ Scan(...any) error }) (r record, found bool, err error) {
	err = row.Scan(&r.ObjectID, &r.AppID, &r.Name, &r.Kind, &r.Disabled, &r.created, &r.SignInName, &r.sessions)
	if errors.Is(err, sql.ErrNoRows) {
		return record{}, false, nil
	}
	if r.Kind == User {
		r.AppID = "" // the column holds something that is unique
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

// insertAssignment does nothing if the principal has the role at the scope, and says whether it did something.
func insertAssignment(ctx context.Context, tx *database.Tx, a Assignment) (bool, error) {
	return changed(tx.ExecContext(ctx, `INSERT INTO identity_role_assignments
		(name, principal, principal_type, role, scope, scope_key, description, created_at, created_by, updated_at, updated_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (principal, role, scope_key) DO NOTHING`,
		a.Name, a.PrincipalID, a.PrincipalType, a.Role, a.Scope.String(), a.Scope.Key(), a.Description,
		database.Micros(a.Created), a.CreatedBy, database.Micros(a.Updated), a.UpdatedBy))
}

func updateAssignment(ctx context.Context, tx *database.Tx, a Assignment) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_role_assignments SET description = $2, updated_at = $3, updated_by = $4 WHERE name = $1`,
		a.Name, a.Description, database.Micros(a.Updated), a.UpdatedBy)
	return err
}

func nameAssignment(ctx context.Context, tx *database.Tx, a Assignment) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_role_assignments SET name = $1 WHERE principal = $2 AND role = $3 AND scope_key = $4`,
		a.Name, a.PrincipalID, a.Role, a.Scope.Key())
	return err
}

func deleteAssignment(ctx context.Context, tx *database.Tx, a Assignment) (bool, error) {
	return changed(tx.ExecContext(ctx, `DELETE FROM identity_role_assignments WHERE principal = $1 AND role = $2 AND scope_key = $3`,
		a.PrincipalID, a.Role, a.Scope.Key()))
}

func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

const selectAssignments = `SELECT COALESCE(name, ''), principal, principal_type, role, scope, description, created_at, created_by, updated_at, updated_by
	FROM identity_role_assignments `

func assignmentsOf(ctx context.Context, tx *database.Tx, objectID string) ([]Assignment, error) {
	return queryAssignments(ctx, tx, selectAssignments+`WHERE principal = $1 ORDER BY scope_key, role`, objectID)
}

func allAssignments(ctx context.Context, tx *database.Tx) ([]Assignment, error) {
	return queryAssignments(ctx, tx, selectAssignments+`ORDER BY scope_key, role, principal`)
}

func assignmentNamed(ctx context.Context, tx *database.Tx, name string) (Assignment, bool, error) {
	all, err := queryAssignments(ctx, tx, selectAssignments+`WHERE name = $1`, strings.ToLower(name))
	if err != nil || len(all) == 0 {
		return Assignment{}, false, err
	}
	return all[0], true, nil
}

func queryAssignments(ctx context.Context, tx *database.Tx, query string, args ...any) ([]Assignment, error) {
	return rowsOf(ctx, tx, func(row scanner) (a Assignment, err error) {
		var scope string
		var created, updated int64
		if err := row.Scan(&a.Name, &a.PrincipalID, &a.PrincipalType, &a.Role, &scope, &a.Description, &created, &a.CreatedBy, &updated, &a.UpdatedBy); err != nil {
			return a, err
		}
		a.Created, a.Updated = database.Time(created), database.Time(updated)
		if a.Scope, err = armid.Parse(scope); err != nil {
			return a, fmt.Errorf("read assignment: %w", err)
		}
		return a, nil
	}, query, args...)
}

func insertLock(ctx context.Context, tx *database.Tx, l Lock) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_locks (scope_key, name_key, scope, name, level, notes, created_at, created_by, updated_at, updated_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, l.Scope.Key(), strings.ToLower(l.Name), l.Scope.String(), l.Name, l.Level, l.Notes,
		database.Micros(l.Created), l.CreatedBy, database.Micros(l.Updated), l.UpdatedBy)
	return err
}

func updateLock(ctx context.Context, tx *database.Tx, l Lock) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_locks SET level = $3, notes = $4, updated_at = $5, updated_by = $6 WHERE scope_key = $1 AND name_key = $2`,
		l.Scope.Key(), strings.ToLower(l.Name), l.Level, l.Notes, database.Micros(l.Updated), l.UpdatedBy)
	return err
}

func deleteLock(ctx context.Context, tx *database.Tx, scope armid.ID, name string) (bool, error) {
	return changed(tx.ExecContext(ctx, `DELETE FROM identity_locks WHERE scope_key = $1 AND name_key = $2`, scope.Key(), strings.ToLower(name)))
}

const selectLocks = `SELECT scope, name, level, notes, created_at, created_by, updated_at, updated_by FROM identity_locks `

func allLocks(ctx context.Context, tx *database.Tx) ([]Lock, error) {
	return rowsOf(ctx, tx, scanLock, selectLocks+`ORDER BY scope_key, name_key`)
}

func lockNamed(ctx context.Context, tx *database.Tx, scope armid.ID, name string) (Lock, error) {
	return scanLock(tx.QueryRowContext(ctx, selectLocks+`WHERE scope_key = $1 AND name_key = $2`, scope.Key(), strings.ToLower(name)))
}

func scanLock(row scanner) (l Lock, err error) {
	var scope string
	var created, updated int64
	if err := row.Scan(&scope, &l.Name, &l.Level, &l.Notes, &created, &l.CreatedBy, &updated, &l.UpdatedBy); err != nil {
		return l, err
	}
	l.Created, l.Updated = database.Time(created), database.Time(updated)
	if l.Scope, err = armid.Parse(scope); err != nil {
		return l, fmt.Errorf("read lock: %w", err)
	}
	return l, nil
}

type scanner interface{ Scan(...any) error }

// rowsOf reads all rows of a query.
func rowsOf[T any](ctx context.Context, tx *database.Tx, scan func(scanner) (T, error), query string, args ...any) (all []T, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// insertSigningKey does nothing if another process has made the key of that generation.
func insertSigningKey(ctx context.Context, tx *database.Tx, k sealedKey) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_signing_keys (generation, sealed, created_at) VALUES ($1, $2, $3)
		ON CONFLICT (generation) DO NOTHING`, k.generation, k.sealed, database.Micros(k.created))
	return err
}

type sealedKey struct {
	generation int64
	sealed     []byte
	created    time.Time // zero: before there was a rotation
}

func signingKeys(ctx context.Context, tx *database.Tx) ([]sealedKey, error) {
	return rowsOf(ctx, tx, func(row scanner) (k sealedKey, err error) {
		var created int64
		err = row.Scan(&k.generation, &k.sealed, &created)
		k.created = database.Time(created)
		return k, err
	}, `SELECT generation, sealed, created_at FROM identity_signing_keys ORDER BY generation DESC`)
}

func updateSigningKey(ctx context.Context, tx *database.Tx, k sealedKey) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_signing_keys SET sealed = $2 WHERE generation = $1`, k.generation, k.sealed)
	return err
}

// deleteSigningKeys removes the keys up to a generation.
func deleteSigningKeys(ctx context.Context, tx *database.Tx, newest int64) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_signing_keys WHERE generation <= $1`, newest)
	return err
}

func insertCredential(ctx context.Context, tx *database.Tx, c credential) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_credentials (id, principal, kind, name, salt, proof, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.ID, c.principal, c.Kind, c.Name, c.salt, c.proof, database.Micros(c.Created), database.Micros(c.Expires))
	return err
}

func deleteCredential(ctx context.Context, tx *database.Tx, objectID, id string) (bool, error) {
	return changed(tx.ExecContext(ctx, `DELETE FROM identity_credentials WHERE principal = $1 AND id = $2 AND kind <> $3`, objectID, id, PasswordCredential))
}

func deleteCredentials(ctx context.Context, tx *database.Tx, objectID string, kind CredentialKind) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_credentials WHERE principal = $1 AND kind = $2`, objectID, kind)
	return err
}

func credentialsOf(ctx context.Context, tx *database.Tx, objectID string) ([]credential, error) {
	return rowsOf(ctx, tx, scanCredential, selectCredentials+`WHERE principal = $1 ORDER BY created_at, id`, objectID)
}

func credentialsOfKind(ctx context.Context, tx *database.Tx, kind CredentialKind) ([]credential, error) {
	return rowsOf(ctx, tx, scanCredential, selectCredentials+`WHERE kind = $1 ORDER BY created_at, id`, kind)
}

const selectCredentials = `SELECT id, principal, kind, name, salt, proof, created_at, expires_at FROM identity_credentials `

func scanCredential(row scanner) (c credential, err error) {
	var created, expires int64
	err = row.Scan(&c.ID, &c.principal, &c.Kind, &c.Name, &c.salt, &c.proof, &created, &expires)
	c.Created, c.Expires = database.Time(created), database.Time(expires)
	switch c.Kind {
	case CertificateCredential:
		c.Thumbprint = thumbprint(c.proof)
	case SubjectCredential, GroupCredential:
		c.Issuer = string(c.proof)
	}
	return c, err
}

// insertAssertion says whether it is new.
func insertAssertion(ctx context.Context, tx *database.Tx, id string, expires time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, `INSERT INTO identity_assertions (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`,
		id, database.Micros(expires)))
}

func deleteAssertions(ctx context.Context, tx *database.Tx, before time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_assertions WHERE expires_at < $1`, database.Micros(before))
	return err
}

// storedCode, storedDevice and storedRefresh are what is kept of a code, a device that asks, and a refresh token.
type storedCode struct {
	hash, principal string
	sessions        int64
	wanted          Wanted
	expires         time.Time
	used            bool
}

type storedDevice struct {
	hash, userCode, principal, state string
	sessions                         int64
	wanted                           Wanted
	polled, expires                  time.Time
}

type storedRefresh struct {
	begun
	hash    string
	wanted  Wanted
	expires time.Time
	used    time.Time // zero: not yet
}

func insertCode(ctx context.Context, tx *database.Tx, c storedCode) error {
	wanted, err := json.Marshal(c.wanted)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO identity_codes (hash, principal, sessions, wanted, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		c.hash, c.principal, c.sessions, string(wanted), database.Micros(c.expires))
	return err
}

func codeByHash(ctx context.Context, tx *database.Tx, hash string) (c storedCode, found bool, err error) {
	var wanted string
	var expires int64
	err = tx.QueryRowContext(ctx, `SELECT hash, principal, sessions, wanted, expires_at, used FROM identity_codes WHERE hash = $1`, hash).
		Scan(&c.hash, &c.principal, &c.sessions, &wanted, &expires, &c.used)
	c.expires = database.Time(expires)
	return c, err == nil, read(err, wanted, &c.wanted)
}

// read reads what was wanted; that there is no row is no error.
func read(err error, wanted string, w *Wanted) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(wanted), w)
}

func useCode(ctx context.Context, tx *database.Tx, hash string) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_codes SET used = TRUE WHERE hash = $1`, hash)
	return err
}

func deleteExpiredCodes(ctx context.Context, tx *database.Tx, before time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_codes WHERE expires_at < $1`, database.Micros(before))
	return err
}

func insertDevice(ctx context.Context, tx *database.Tx, d storedDevice) error {
	wanted, err := json.Marshal(d.wanted)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO identity_devices (hash, user_code, wanted, state, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		d.hash, d.userCode, string(wanted), d.state, database.Micros(d.expires))
	return err
}

const selectDevice = `SELECT hash, user_code, COALESCE(principal, ''), sessions, wanted, state, polled_at, expires_at FROM identity_devices `

func deviceByHash(ctx context.Context, tx *database.Tx, hash string) (storedDevice, bool, error) {
	return scanDevice(tx.QueryRowContext(ctx, selectDevice+`WHERE hash = $1`, hash))
}

func deviceByUserCode(ctx context.Context, tx *database.Tx, userCode string) (storedDevice, bool, error) {
	return scanDevice(tx.QueryRowContext(ctx, selectDevice+`WHERE user_code = $1`, userCode))
}

func scanDevice(row scanner) (d storedDevice, found bool, err error) {
	var wanted string
	var polled, expires int64
	err = row.Scan(&d.hash, &d.userCode, &d.principal, &d.sessions, &wanted, &d.state, &polled, &expires)
	d.polled, d.expires = database.Time(polled), database.Time(expires)
	return d, err == nil, read(err, wanted, &d.wanted)
}

func answerDevice(ctx context.Context, tx *database.Tx, d storedDevice) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_devices SET state = $2, principal = $3, sessions = $4 WHERE hash = $1`,
		d.hash, d.state, sql.NullString{String: d.principal, Valid: d.principal != ""}, d.sessions)
	return err
}

func pollDevice(ctx context.Context, tx *database.Tx, hash string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_devices SET polled_at = $2 WHERE hash = $1`, hash, database.Micros(now))
	return err
}

func deleteDevice(ctx context.Context, tx *database.Tx, hash string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_devices WHERE hash = $1`, hash)
	return err
}

func deleteExpiredDevices(ctx context.Context, tx *database.Tx, before time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_devices WHERE expires_at < $1`, database.Micros(before))
	return err
}

func insertRefreshToken(ctx context.Context, tx *database.Tx, t storedRefresh) error {
	wanted, err := json.Marshal(t.wanted)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO identity_refresh_tokens (hash, family, principal, sessions, wanted, begun_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		t.hash, t.family, t.principal, t.sessions, string(wanted), database.Micros(t.at), database.Micros(t.expires))
	return err
}

func refreshByHash(ctx context.Context, tx *database.Tx, hash string) (t storedRefresh, found bool, err error) {
	var wanted string
	var at, expires, used int64
	err = tx.QueryRowContext(ctx, `SELECT hash, family, principal, sessions, wanted, begun_at, expires_at, used_at FROM identity_refresh_tokens WHERE hash = $1`, hash).
		Scan(&t.hash, &t.family, &t.principal, &t.sessions, &wanted, &at, &expires, &used)
	t.at, t.expires, t.used = database.Time(at), database.Time(expires), database.Time(used)
	return t, err == nil, read(err, wanted, &t.wanted)
}

// useRefreshToken notes when it was first used.
func useRefreshToken(ctx context.Context, tx *database.Tx, hash string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE identity_refresh_tokens SET used_at = $2 WHERE hash = $1 AND used_at = 0`, hash, database.Micros(now))
	return err
}

func deleteFamily(ctx context.Context, tx *database.Tx, family string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_refresh_tokens WHERE family = $1`, family)
	return err
}

func deleteExpiredRefreshTokens(ctx context.Context, tx *database.Tx, before time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM identity_refresh_tokens WHERE expires_at < $1`, database.Micros(before))
	return err
}
