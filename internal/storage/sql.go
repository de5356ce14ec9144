package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/database"
)

func putAccount(ctx context.Context, tx *database.Tx, a Account) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO storage_accounts (name, document) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET document = excluded.document`, a.ID.Name(), string(doc))
	return err
}

func scanAccount(row interface{ Scan(...any) error }) (a Account, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return Account{}, err
	}
	if err := json.Unmarshal([]byte(doc), &a); err != nil {
		return Account{}, fmt.Errorf("decode storage account: %w", err)
	}
	return a, nil
}

func selectAccount(ctx context.Context, tx *database.Tx, name string) (a Account, found bool, err error) {
	a, err = scanAccount(tx.QueryRowContext(ctx, `SELECT document FROM storage_accounts WHERE name = $1`, strings.ToLower(name)))
	if errors.Is(err, sql.ErrNoRows) {
		return Account{}, false, nil
	}
	return a, err == nil, err
}

func selectAccounts(ctx context.Context, tx *database.Tx) ([]Account, error) {
	rows, err := tx.QueryContext(ctx, `SELECT document FROM storage_accounts ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Account
	for rows.Next() {
		a, err := scanAccount(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// deleteAccount removes the account with what is in it, and returns the objects of its blobs.
func deleteAccount(ctx context.Context, tx *database.Tx, name string) (objects []string, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM blobs WHERE account = $1 RETURNING object`, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var object string
		if err := rows.Scan(&object); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM containers WHERE account = $1`, name); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM storage_accounts WHERE name = $1`, name)
	return objects, err
}

func putContainer(ctx context.Context, tx *database.Tx, account, container string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO containers (account, name) VALUES ($1, $2) ON CONFLICT (account, name) DO NOTHING`, account, container)
	return err
}

func hasContainer(ctx context.Context, tx *database.Tx, account, container string) (bool, error) {
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM containers WHERE account = $1 AND name = $2`, account, container).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func selectContainers(ctx context.Context, tx *database.Tx, account string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `SELECT name FROM containers WHERE account = $1 ORDER BY name`, account)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, rows.Err()
}

func putBlob(ctx context.Context, tx *database.Tx, account, container string, b Blob) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO blobs (account, container, name, object, size, content_type, modified)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, container, name) DO UPDATE SET object = excluded.object,
		size = excluded.size, content_type = excluded.content_type, modified = excluded.modified`,
		account, container, b.Name, b.object, b.Size, b.ContentType, database.Micros(b.Modified))
	return err
}

const blobColumns = `name, object, size, content_type, modified`

func scanBlob(row interface{ Scan(...any) error }) (b Blob, err error) {
	var modified int64
	err = row.Scan(&b.Name, &b.object, &b.Size, &b.ContentType, &modified)
	b.Modified = database.Time(modified)
	return b, err
}

func selectBlob(ctx context.Context, tx *database.Tx, account, container, name string) (b Blob, found bool, err error) {
	b, err = scanBlob(tx.QueryRowContext(ctx, `SELECT `+blobColumns+` FROM blobs WHERE account = $1 AND container = $2 AND name = $3`,
		account, container, name))
	if errors.Is(err, sql.ErrNoRows) {
		return Blob{}, false, nil
	}
	return b, err == nil, err
}

func selectBlobs(ctx context.Context, tx *database.Tx, account, container string) ([]Blob, error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+blobColumns+` FROM blobs WHERE account = $1 AND container = $2 ORDER BY name`, account, container)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Blob
	for rows.Next() {
		b, err := scanBlob(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

func deleteBlob(ctx context.Context, tx *database.Tx, account, container, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM blobs WHERE account = $1 AND container = $2 AND name = $3`, account, container, name)
	return err
}
