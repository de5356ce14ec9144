package audit

import (
	"context"
	"database/sql"
	"fmt"

	"kluis/internal/database"
)

func selectHead(ctx context.Context, tx *database.Tx) (h Head, sealed []byte, err error) {
	err = tx.QueryRowContext(ctx, `SELECT seq, hash, sealed FROM keyvault_audit_head WHERE id = 'head'`).Scan(&h.Seq, &h.Hash, &sealed)
	return h, sealed, err
}

func updateHead(ctx context.Context, tx *database.Tx, h Head, sealed []byte) error {
	_, err := tx.ExecContext(ctx, `UPDATE keyvault_audit_head SET seq = $1, hash = $2, sealed = $3 WHERE id = 'head'`, h.Seq, h.Hash, sealed)
	if err != nil {
		return fmt.Errorf("move the end of the audit log: %w", err)
	}
	return nil
}

const columns = `id, seq, at, tenant, principal, application, operation, vault, kind, name, version, result, correlation, hash`

func insertEntry(ctx context.Context, tx *database.Tx, e Entry) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO keyvault_uses (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		e.ID, e.Seq, database.Micros(e.At), e.Principal.TenantID, e.Principal.ObjectID, e.Principal.AppID,
		e.Operation, e.Vault, e.Kind, e.Name, e.Version, e.Result, e.Correlation, e.Hash)
	return err
}

func selectOfVault(ctx context.Context, tx *database.Tx, vault, before string, limit int) ([]Entry, error) {
	return entries(ctx, tx, `SELECT `+columns+` FROM keyvault_uses WHERE vault = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3`, vault, before, limit)
}

func selectAfter(ctx context.Context, tx *database.Tx, seq int64, limit int) ([]Entry, error) {
	return entries(ctx, tx, `SELECT `+columns+` FROM keyvault_uses WHERE seq > 0 AND seq > $1 ORDER BY seq LIMIT $2`, seq, limit)
}

func countUnchained(ctx context.Context, tx *database.Tx) (n int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM keyvault_uses WHERE seq <= 0`).Scan(&n)
	return n, err
}

func entries(ctx context.Context, tx *database.Tx, query string, args ...any) (all []Entry, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func(rows *sql.Rows) { _ = rows.Close() }(rows)
	for rows.Next() {
		var e Entry
		var at int64
		err := rows.Scan(&e.ID, &e.Seq, &at, &e.Principal.TenantID, &e.Principal.ObjectID, &e.Principal.AppID,
			&e.Operation, &e.Vault, &e.Kind, &e.Name, &e.Version, &e.Result, &e.Correlation, &e.Hash)
		if err != nil {
			return nil, err
		}
		e.At = database.Time(at)
		all = append(all, e)
	}
	return all, rows.Err()
}
