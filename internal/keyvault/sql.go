package keyvault

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

func selectSeal(ctx context.Context, tx *database.Tx) (sealed []byte, err error) {
	err = tx.QueryRowContext(ctx, `SELECT sealed FROM keyvault_seal WHERE id = 'check'`).Scan(&sealed)
	return sealed, err
}

func insertSeal(ctx context.Context, tx *database.Tx, sealed []byte) error {
	return exec(ctx, tx, "insert seal check", `INSERT INTO keyvault_seal (id, sealed) VALUES ('check', $1)`, sealed)
}

func updateSeal(ctx context.Context, tx *database.Tx, sealed []byte) error {
	return exec(ctx, tx, "seal the check anew", `UPDATE keyvault_seal SET sealed = $1 WHERE id = 'check'`, sealed)
}

// vaultRow is a key vault, living or deleted.
type vaultRow struct {
	Vault
	deleted *deletion
}

const vaultColumns = `id, location, document, created_at, created_by, changed_at, changed_by, deleted_at, purge_at`

func selectVault(ctx context.Context, tx *database.Tx, key string) (vaultRow, error) {
	row := tx.QueryRowContext(ctx, `SELECT `+vaultColumns+` FROM keyvault_vaults WHERE name_key = $1`, key)
	return scanVault(row)
}

func selectVaults(ctx context.Context, tx *database.Tx) ([]vaultRow, error) {
	return collect(ctx, tx, scanVault, `SELECT `+vaultColumns+` FROM keyvault_vaults ORDER BY name_key`)
}

func scanVault(row scanner) (vaultRow, error) {
	var r vaultRow
	var id, document string
	var created, changed, deletedAt, purgeAt int64
	err := row.Scan(&id, &r.Location, &document, &created, &r.CreatedBy, &changed, &r.ChangedBy, &deletedAt, &purgeAt)
	if err != nil {
		return vaultRow{}, err
	}
	if r.ID, err = armid.Parse(id); err != nil {
		return vaultRow{}, fmt.Errorf("read key vault row: %w", err)
	}
	if err := json.Unmarshal([]byte(document), &r.Settings); err != nil {
		return vaultRow{}, fmt.Errorf("read key vault row: %w", err)
	}
	r.Created, r.Changed = database.Time(created), database.Time(changed)
	r.deleted = scannedDeletion(deletedAt, purgeAt)
	return r, nil
}

func insertVault(ctx context.Context, tx *database.Tx, v Vault) error {
	document, err := json.Marshal(v.Settings)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "insert key vault",
		`INSERT INTO keyvault_vaults (name_key, id, id_key, location, document, created_at, created_by, changed_at, changed_by)
		 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		v.key(), v.ID.String(), v.ID.Key(), v.Location, string(document),
		database.Micros(v.Created), v.CreatedBy, database.Micros(v.Changed), v.ChangedBy)
}

func updateVault(ctx context.Context, tx *database.Tx, v Vault) error {
	document, err := json.Marshal(v.Settings)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "update key vault",
		`UPDATE keyvault_vaults SET document = $2, changed_at = $3, changed_by = $4 WHERE name_key = $1`,
		v.key(), string(document), database.Micros(v.Changed), v.ChangedBy)
}

func setVaultDeleted(ctx context.Context, tx *database.Tx, key string, d *deletion) error {
	at, purge := d.micros()
	return exec(ctx, tx, "mark key vault", `UPDATE keyvault_vaults SET deleted_at = $2, purge_at = $3 WHERE name_key = $1`, key, at, purge)
}

func deleteVault(ctx context.Context, tx *database.Tx, key string) error {
	return exec(ctx, tx, "purge key vault", `DELETE FROM keyvault_vaults WHERE name_key = $1`, key)
}

// purgeExpired deletes what was deleted softly and has outlived its retention, with all that hangs on it.
func purgeExpired(ctx context.Context, tx *database.Tx, now time.Time) error {
	for _, table := range []string{"keyvault_vaults", "keyvault_objects"} {
		if err := exec(ctx, tx, "purge expired", `DELETE FROM `+table+` WHERE purge_at > 0 AND purge_at <= $1`, database.Micros(now)); err != nil {
			return err
		}
	}
	return nil
}

// objectRow is the name of a key or secret, living or deleted.
type objectRow struct {
	target  // its version is the newest
	deleted *deletion
}

func selectObject(ctx context.Context, tx *database.Tx, t target) (objectRow, error) {
	o := objectRow{target: target{kind: t.kind, vault: t.vault}}
	var deletedAt, purgeAt int64
	err := tx.QueryRowContext(ctx,
		`SELECT name, current, deleted_at, purge_at FROM keyvault_objects WHERE vault = $1 AND kind = $2 AND name_key = $3`,
		fold(t.vault), string(t.kind), fold(t.name)).Scan(&o.name, &o.version, &deletedAt, &purgeAt)
	o.deleted = scannedDeletion(deletedAt, purgeAt)
	return o, err
}

// putObject makes the object, or names the newest version of one that exists.
func putObject(ctx context.Context, tx *database.Tx, t target) error {
	return exec(ctx, tx, "write "+t.kind.word(),
		`INSERT INTO keyvault_objects (vault, kind, name_key, name, current) VALUES ($1, $2, $3, $4, $5)
		 ON CONFLICT (vault, kind, name_key) DO UPDATE SET current = EXCLUDED.current`,
		fold(t.vault), string(t.kind), fold(t.name), t.name, t.version)
}

func setObjectDeleted(ctx context.Context, tx *database.Tx, t target, d *deletion) error {
	at, purge := d.micros()
	return exec(ctx, tx, "mark "+t.kind.word(),
		`UPDATE keyvault_objects SET deleted_at = $4, purge_at = $5 WHERE vault = $1 AND kind = $2 AND name_key = $3`,
		fold(t.vault), string(t.kind), fold(t.name), at, purge)
}

func deleteObject(ctx context.Context, tx *database.Tx, t target) error {
	return exec(ctx, tx, "purge "+t.kind.word(),
		`DELETE FROM keyvault_objects WHERE vault = $1 AND kind = $2 AND name_key = $3`, fold(t.vault), string(t.kind), fold(t.name))
}

const versionColumns = `o.name, v.version, v.document, v.sealed, v.created_at, v.changed_at, o.deleted_at, o.purge_at`

const versionsOfObjects = ` FROM keyvault_objects o JOIN keyvault_versions v
	ON v.vault = o.vault AND v.kind = o.kind AND v.name_key = o.name_key`

// selectVersion returns one version, or the newest when t names none.
func selectVersion(ctx context.Context, tx *database.Tx, t target) (record, error) {
	row := tx.QueryRowContext(ctx, `SELECT `+versionColumns+versionsOfObjects+
		` WHERE o.vault = $1 AND o.kind = $2 AND o.name_key = $3 AND v.version = CASE WHEN $4 = '' THEN o.current ELSE $4 END`,
		fold(t.vault), string(t.kind), fold(t.name), t.version)
	return scanVersion(t.kind, t.vault)(row)
}

// selectNewest returns the newest version of each object after a name, deleted or living, in the order of names.
func selectNewest(ctx context.Context, tx *database.Tx, t target, deleted bool, now time.Time, p Page) ([]record, error) {
	after := int64(0)
	condition := `o.purge_at = $4`
	if deleted {
		after, condition = database.Micros(now), `o.purge_at > $4`
	}
	return collect(ctx, tx, scanVersion(t.kind, t.vault), `SELECT `+versionColumns+versionsOfObjects+
		` AND v.version = o.current WHERE o.vault = $1 AND o.kind = $2 AND o.name_key > $3 AND `+condition+` ORDER BY o.name_key LIMIT $5`,
		fold(t.vault), string(t.kind), p.After, after, p.limit()+1)
}

// selectVersions returns versions of one object after a version, in the order of their names.
func selectVersions(ctx context.Context, tx *database.Tx, t target, after string, limit int) ([]record, error) {
	return collect(ctx, tx, scanVersion(t.kind, t.vault), `SELECT `+versionColumns+versionsOfObjects+
		` WHERE o.vault = $1 AND o.kind = $2 AND o.name_key = $3 AND v.version > $4 ORDER BY v.version LIMIT $5`,
		fold(t.vault), string(t.kind), fold(t.name), after, limit)
}

func scanVersion(kind Kind, vault string) func(scanner) (record, error) {
	return func(row scanner) (record, error) {
		r := record{target: target{kind: kind, vault: vault}}
		var document string
		var created, changed, deletedAt, purgeAt int64
		if err := row.Scan(&r.name, &r.version, &document, &r.sealed, &created, &changed, &deletedAt, &purgeAt); err != nil {
			return record{}, err
		}
		if err := json.Unmarshal([]byte(document), &r.document); err != nil {
			return record{}, fmt.Errorf("read %s row: %w", kind.word(), err)
		}
		r.created, r.changed = database.Time(created), database.Time(changed)
		r.deleted = scannedDeletion(deletedAt, purgeAt)
		return r, nil
	}
}

func insertVersion(ctx context.Context, tx *database.Tx, r record) error {
	document, err := json.Marshal(r.document)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "insert version of "+r.kind.word(),
		`INSERT INTO keyvault_versions (vault, kind, name_key, version, document, sealed, created_at, changed_at)
		 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		fold(r.vault), string(r.kind), fold(r.name), r.version, string(document), r.sealed, database.Micros(r.created), database.Micros(r.changed))
}

func updateVersion(ctx context.Context, tx *database.Tx, r record) error {
	document, err := json.Marshal(r.document)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "update version of "+r.kind.word(),
		`UPDATE keyvault_versions SET document = $5, changed_at = $6 WHERE vault = $1 AND kind = $2 AND name_key = $3 AND version = $4`,
		fold(r.vault), string(r.kind), fold(r.name), r.version, string(document), database.Micros(r.changed))
}

// sealedRow is what is sealed of one version, and where it belongs.
type sealedRow struct {
	target
	sealed []byte
}

// selectUnderOtherRoots returns versions after one, in the order of their keys, that don't begin with the mark.
func selectUnderOtherRoots(ctx context.Context, tx *database.Tx, mark []byte, after target, limit int) ([]sealedRow, error) {
	scan := func(row scanner) (r sealedRow, err error) {
		err = row.Scan(&r.vault, &r.kind, &r.name, &r.version, &r.sealed)
		return r, err
	}
	return collect(ctx, tx, scan, `SELECT vault, kind, name_key, version, sealed FROM keyvault_versions
		WHERE substr(sealed, 1, 5) <> $1 AND (vault, kind, name_key, version) > ($2, $3, $4, $5)
		ORDER BY vault, kind, name_key, version LIMIT $6`, mark, after.vault, string(after.kind), after.name, after.version, limit)
}

func countUnderOtherRoots(ctx context.Context, tx *database.Tx, mark []byte) (n int, err error) {
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM keyvault_versions WHERE substr(sealed, 1, 5) <> $1`, mark).Scan(&n)
	return n, err
}

func updateSealed(ctx context.Context, tx *database.Tx, r sealedRow) error {
	return exec(ctx, tx, "seal anew", `UPDATE keyvault_versions SET sealed = $5 WHERE vault = $1 AND kind = $2 AND name_key = $3 AND version = $4`,
		r.vault, string(r.kind), r.name, r.version, r.sealed)
}

// selectRotationPolicy returns the policy of a key, or the one that stands for none.
func selectRotationPolicy(ctx context.Context, tx *database.Tx, t target) (p RotationPolicy, err error) {
	var text string
	err = tx.QueryRowContext(ctx, `SELECT document FROM keyvault_rotation_policies WHERE vault = $1 AND kind = $2 AND name_key = $3`,
		fold(t.vault), string(t.kind), fold(t.name)).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return defaultPolicy, nil
	}
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(text), &p)
}

func putRotationPolicy(ctx context.Context, tx *database.Tx, t target, p RotationPolicy) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "write rotation policy", `INSERT INTO keyvault_rotation_policies (vault, kind, name_key, document) VALUES ($1, $2, $3, $4)
		ON CONFLICT (vault, kind, name_key) DO UPDATE SET document = EXCLUDED.document`, fold(t.vault), string(t.kind), fold(t.name), string(text))
}

// rotating is the newest version of a living key that has a policy.
type rotating struct {
	record
	policy RotationPolicy
}

func selectRotating(ctx context.Context, tx *database.Tx) ([]rotating, error) {
	scan := func(row scanner) (r rotating, err error) {
		var policy, document string
		var created int64
		r.kind = Keys
		if err := row.Scan(&r.vault, &r.name, &r.version, &document, &created, &policy); err != nil {
			return rotating{}, err
		}
		r.created = database.Time(created)
		return r, errors.Join(json.Unmarshal([]byte(document), &r.document), json.Unmarshal([]byte(policy), &r.policy))
	}
	return collect(ctx, tx, scan, `SELECT o.vault, o.name, v.version, v.document, v.created_at, p.document
		FROM keyvault_rotation_policies p
		JOIN keyvault_objects o ON o.vault = p.vault AND o.kind = p.kind AND o.name_key = p.name_key
		JOIN keyvault_versions v ON v.vault = o.vault AND v.kind = o.kind AND v.name_key = o.name_key AND v.version = o.current
		JOIN keyvault_vaults k ON k.name_key = o.vault
		WHERE o.purge_at = 0 AND k.purge_at = 0 ORDER BY o.vault, o.name_key`)
}

type scanner interface{ Scan(...any) error }

func collect[T any](ctx context.Context, tx *database.Tx, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func(rows *sql.Rows) { _ = rows.Close() }(rows)
	var out []T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, item)
	}
	return out, rows.Err()
}

func exec(ctx context.Context, tx *database.Tx, what, query string, args ...any) error {
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (d *deletion) micros() (at, purge int64) {
	if d == nil {
		return 0, 0
	}
	return database.Micros(d.at), database.Micros(d.purge)
}

func scannedDeletion(at, purge int64) *deletion {
	if at == 0 && purge == 0 {
		return nil
	}
	return &deletion{database.Time(at), database.Time(purge)}
}
