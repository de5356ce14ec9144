package backup

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

// Rows hold documents; beside them stands only what is searched by.

func insertVault(ctx context.Context, tx *database.Tx, v RecoveryVault) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO recovery_vaults (id_key, store, document) VALUES ($1, $2, $3)`, v.ID.Key(), v.store, string(doc))
	return err
}

func updateVault(ctx context.Context, tx *database.Tx, v RecoveryVault) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE recovery_vaults SET document = $2 WHERE id_key = $1`, v.ID.Key(), string(doc))
	return err
}

func selectVault(ctx context.Context, tx *database.Tx, id armid.ID) (v RecoveryVault, err error) {
	v, err = scanVault(tx.QueryRowContext(ctx, `SELECT document, store FROM recovery_vaults WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return v, vaultNotFound(id)
	}
	return v, err
}

func selectVaults(ctx context.Context, tx *database.Tx) ([]RecoveryVault, error) {
	return query(ctx, tx, func(r *sql.Rows) (RecoveryVault, error) { return scanVault(r) },
		`SELECT document, store FROM recovery_vaults ORDER BY id_key`)
}

// scanVault also completes a vault that was stored before it had all settings.
func scanVault(row interface{ Scan(...any) error }) (v RecoveryVault, err error) {
	err = scanDocument(row, &v, &v.store)
	v.SoftDelete = v.SoftDelete.complete()
	return v, err
}

func deleteVault(ctx context.Context, tx *database.Tx, v RecoveryVault) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM backup_policies WHERE vault_key = $1`, v.ID.Key()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM recovery_vaults WHERE id_key = $1`, v.ID.Key())
	return err
}

// policyRow is a policy with its id, which its wire form leaves out.
type policyRow struct {
	ID   armid.ID         `json:"id"`
	Body PolicyProperties `json:"properties"`
}

func putPolicy(ctx context.Context, tx *database.Tx, p Policy) error {
	doc, err := json.Marshal(policyRow(p))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO backup_policies (id_key, vault_key, document) VALUES ($1, $2, $3)
		ON CONFLICT (id_key) DO UPDATE SET document = excluded.document`, p.ID.Key(), p.ID.Parent().Key(), string(doc))
	return err
}

func selectPolicy(ctx context.Context, tx *database.Tx, id armid.ID) (Policy, error) {
	var row policyRow
	err := scanDocument(tx.QueryRowContext(ctx, `SELECT document FROM backup_policies WHERE id_key = $1`, id.Key()), &row)
	if errors.Is(err, sql.ErrNoRows) {
		return Policy{}, policyNotFound(id)
	}
	return Policy(row), err
}

func selectPolicies(ctx context.Context, tx *database.Tx, vault armid.ID) ([]Policy, error) {
	return query(ctx, tx, func(r *sql.Rows) (Policy, error) {
		var row policyRow
		err := scanDocument(r, &row)
		return Policy(row), err
	}, `SELECT document FROM backup_policies WHERE vault_key = $1 ORDER BY id_key`, vault.Key())
}

func countPolicies(ctx context.Context, tx *database.Tx, vault armid.ID) (n int, err error) {
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM backup_policies WHERE vault_key = $1`, vault.Key()).Scan(&n)
	return n, err
}

func countItems(ctx context.Context, tx *database.Tx, vault armid.ID) (n int, err error) {
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM protected_items WHERE vault_key = $1`, vault.Key()).Scan(&n)
	return n, err
}

func deletePolicy(ctx context.Context, tx *database.Tx, id armid.ID) (existed bool, err error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM backup_policies WHERE id_key = $1`, id.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func putItem(ctx context.Context, tx *database.Tx, i Item) error {
	doc, err := json.Marshal(i)
	if err != nil {
		return err
	}
	policy := ""
	if !i.Policy.IsZero() {
		policy = i.Policy.Key()
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO protected_items (id_key, vault_key, vm_key, policy_key, next_run, collect_at, purge_at, store, document)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id_key) DO UPDATE SET policy_key = excluded.policy_key,
		next_run = excluded.next_run, collect_at = excluded.collect_at, purge_at = excluded.purge_at, store = excluded.store, document = excluded.document`,
		i.ID.Key(), i.Vault().Key(), i.VM.Key(), policy, database.Micros(i.next), database.Micros(i.collect), database.Micros(i.purge), i.store, string(doc))
	if database.IsUnique(err) {
		return alreadyProtected(i.VM, i)
	}
	return err
}

func scanItem(row interface{ Scan(...any) error }) (i Item, err error) {
	var next, collect, purge int64
	err = scanDocument(row, &i, &next, &collect, &purge, &i.store)
	i.next, i.collect, i.purge = database.Time(next), database.Time(collect), database.Time(purge)
	return i, err
}

// itemColumns are what scanItem scans.
const itemColumns = `document, next_run, collect_at, purge_at, store`

func selectItem(ctx context.Context, tx *database.Tx, id armid.ID) (Item, error) {
	i, err := scanItem(tx.QueryRowContext(ctx, `SELECT `+itemColumns+` FROM protected_items WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return i, itemNotFound(id)
	}
	return i, err
}

func selectItemOf(ctx context.Context, tx *database.Tx, vm armid.ID) (Item, error) {
	i, err := scanItem(tx.QueryRowContext(ctx, `SELECT `+itemColumns+` FROM protected_items WHERE vm_key = $1`, vm.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return i, vmNotProtected(vm)
	}
	return i, err
}

func selectItems(ctx context.Context, tx *database.Tx, vault armid.ID) ([]Item, error) {
	return selectItemsAfter(ctx, tx, vault, "", all)
}

func selectItemsAfter(ctx context.Context, tx *database.Tx, vault armid.ID, after string, most int) ([]Item, error) {
	return query(ctx, tx, func(r *sql.Rows) (Item, error) { return scanItem(r) },
		`SELECT `+itemColumns+` FROM protected_items WHERE vault_key = $1 AND id_key > $2 ORDER BY id_key LIMIT $3`, vault.Key(), after, most)
}

func selectAllItems(ctx context.Context, tx *database.Tx) ([]Item, error) {
	return query(ctx, tx, func(r *sql.Rows) (Item, error) { return scanItem(r) },
		`SELECT `+itemColumns+` FROM protected_items ORDER BY id_key`)
}

func selectDue(ctx context.Context, tx *database.Tx, now time.Time) ([]Item, error) {
	return query(ctx, tx, func(r *sql.Rows) (Item, error) { return scanItem(r) },
		`SELECT `+itemColumns+` FROM protected_items WHERE next_run > 0 AND next_run <= $1 ORDER BY next_run`, database.Micros(now))
}

// selectCollectable returns the items whose space is to be given back by now.
func selectCollectable(ctx context.Context, tx *database.Tx, now time.Time) ([]Item, error) {
	return query(ctx, tx, func(r *sql.Rows) (Item, error) { return scanItem(r) },
		`SELECT `+itemColumns+` FROM protected_items WHERE collect_at > 0 AND collect_at <= $1 ORDER BY collect_at`, database.Micros(now))
}

// selectPurgeable returns the items that were deleted and whose time to be undeleted is over.
func selectPurgeable(ctx context.Context, tx *database.Tx, now time.Time) ([]Item, error) {
	return query(ctx, tx, func(r *sql.Rows) (Item, error) { return scanItem(r) },
		`SELECT `+itemColumns+` FROM protected_items WHERE purge_at > 0 AND purge_at <= $1 ORDER BY purge_at`, database.Micros(now))
}

func deleteItem(ctx context.Context, tx *database.Tx, i Item) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM recovery_points WHERE item_key = $1`, i.ID.Key()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM protected_items WHERE id_key = $1`, i.ID.Key())
	return err
}

func putPoint(ctx context.Context, tx *database.Tx, p Point) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO recovery_points (item_key, id, taken, expiry, document) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (item_key, id) DO UPDATE SET expiry = excluded.expiry, document = excluded.document`,
		p.Item.Key(), p.ID, database.Micros(p.Time), database.Micros(p.Expiry), string(doc))
	return err
}

func selectPoint(ctx context.Context, tx *database.Tx, item armid.ID, id string) (p Point, err error) {
	err = scanDocument(tx.QueryRowContext(ctx, `SELECT document FROM recovery_points WHERE item_key = $1 AND id = $2`, item.Key(), id), &p)
	if errors.Is(err, sql.ErrNoRows) {
		return p, pointNotFound(item.Child("recoveryPoints", id))
	}
	return p, err
}

func selectPoints(ctx context.Context, tx *database.Tx, item armid.ID) ([]Point, error) {
	return selectPointsAfter(ctx, tx, item, first, all)
}

func selectPointsAfter(ctx context.Context, tx *database.Tx, item armid.ID, after place, most int) ([]Point, error) {
	return query(ctx, tx, func(r *sql.Rows) (p Point, err error) { return p, scanDocument(r, &p) },
		`SELECT document FROM recovery_points WHERE item_key = $1 AND (taken < $2 OR taken = $2 AND id < $3)
		ORDER BY taken DESC, id DESC LIMIT $4`, item.Key(), after.Created, after.ID, most)
}

func deletePoint(ctx context.Context, tx *database.Tx, item armid.ID, id string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM recovery_points WHERE item_key = $1 AND id = $2`, item.Key(), id)
	return err
}

// insertAlert adds an alert, unless it is there already.
func insertAlert(ctx context.Context, tx *database.Tx, a Alert) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO backup_alerts (id, vault_key, item_key, document) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		a.ID, vaultOf(a.Item).Key(), a.Item.Key(), string(doc))
	return err
}

func selectAlerts(ctx context.Context, tx *database.Tx, vault armid.ID) ([]Alert, error) {
	return query(ctx, tx, func(r *sql.Rows) (a Alert, err error) { return a, scanDocument(r, &a) },
		`SELECT document FROM backup_alerts WHERE vault_key = $1 ORDER BY id DESC`, vault.Key())
}

// scanDocument scans a row whose first column is a JSON document.
func scanDocument(row interface{ Scan(...any) error }, v any, more ...any) error {
	var doc string
	if err := row.Scan(append([]any{&doc}, more...)...); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(doc), v); err != nil {
		return fmt.Errorf("decode stored document: %w", err)
	}
	return nil
}

func query[T any](ctx context.Context, tx *database.Tx, scan func(*sql.Rows) (T, error), text string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
