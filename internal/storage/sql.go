package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

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
	containers, err := selectContainers(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range containers {
		names = append(names, c.Name)
	}
	if objects, err = deleteContainers(ctx, tx, name, names...); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM storage_accounts WHERE name = $1`, name) // its keys go with it
	return objects, err
}

func putKeys(ctx context.Context, tx *database.Tx, keys []sealedKey) error {
	for _, k := range keys {
		if err := putKey(ctx, tx, k); err != nil {
			return err
		}
	}
	return nil
}

func putKey(ctx context.Context, tx *database.Tx, k sealedKey) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO storage_account_keys (account, number, sealed, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, number) DO UPDATE SET sealed = excluded.sealed, created = excluded.created`, k.account, k.number, k.sealed, database.Micros(k.created))
	return err
}

// selectKeys returns the keys of an account, or of all where it is "".
func selectKeys(ctx context.Context, tx *database.Tx, account string) ([]sealedKey, error) {
	rows, err := tx.QueryContext(ctx, `SELECT account, number, sealed, created FROM storage_account_keys WHERE account = $1 OR $1 = '' ORDER BY account, number`, account)
	return collect(rows, err, func(rows *sql.Rows) (k sealedKey, err error) {
		var created int64
		err = rows.Scan(&k.account, &k.number, &k.sealed, &created)
		k.created = database.Time(created)
		return k, err
	})
}

// collect reads all rows of a query.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
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

func scanText(rows *sql.Rows) (text string, err error) { return text, rows.Scan(&text) }

func putContainer(ctx context.Context, tx *database.Tx, account string, c Container) error {
	metadata, err := json.Marshal(c.Metadata)
	if err != nil {
		return err
	}
	policies, err := json.Marshal(c.Policies)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO containers (account, name, etag, modified, metadata, policies) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (account, name) DO UPDATE SET etag = excluded.etag, modified = excluded.modified, metadata = excluded.metadata, policies = excluded.policies`,
		account, c.Name, c.etag, database.Micros(c.Modified), string(metadata), string(policies))
	return err
}

const (
	leaseColumns     = `COALESCE(lease, ''), COALESCE(seconds, 0), COALESCE(expires, 0), COALESCE(broken, 0)`
	containerColumns = `SELECT c.name, etag, modified, metadata, policies, ` + leaseColumns + ` FROM containers c
		LEFT JOIN blob_leases l ON l.account = c.account AND l.container = c.name AND l.name = ''`
)

// lease is a lease as its columns have it.
type leaseRow struct {
	id                       string
	seconds, expires, broken int64
}

func (r *leaseRow) columns() []any { return []any{&r.id, &r.seconds, &r.expires, &r.broken} }

func (r leaseRow) lease() Lease {
	if r.id == "" {
		return Lease{}
	}
	l := Lease{ID: r.id, For: time.Duration(r.seconds) * time.Second}
	if r.seconds < 0 {
		l.For = forever
	}
	if r.expires != 0 {
		l.Expires = database.Time(r.expires)
	}
	if r.broken != 0 {
		l.Broken = database.Time(r.broken)
	}
	return l
}

// putLease writes the lease of a blob, or of a container where name is ""; one without an id is removed.
func putLease(ctx context.Context, tx *database.Tx, account, container, name string, l Lease) error {
	if l.ID == "" {
		_, err := tx.ExecContext(ctx, `DELETE FROM blob_leases WHERE account = $1 AND container = $2 AND name = $3`, account, container, name)
		return err
	}
	row := leaseRow{id: l.ID, seconds: int64(l.For / time.Second)}
	if l.For == forever {
		row.seconds = forever
	}
	if !l.Expires.IsZero() {
		row.expires = database.Micros(l.Expires)
	}
	if !l.Broken.IsZero() {
		row.broken = database.Micros(l.Broken)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO blob_leases (account, container, name, lease, seconds, expires, broken) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (account, container, name) DO UPDATE SET lease = excluded.lease, seconds = excluded.seconds, expires = excluded.expires, broken = excluded.broken`,
		account, container, name, row.id, row.seconds, row.expires, row.broken)
	return err
}

func scanContainer(row interface{ Scan(...any) error }) (c Container, err error) {
	var modified int64
	var metadata, policies string
	var lease leaseRow
	if err := row.Scan(append([]any{&c.Name, &c.etag, &modified, &metadata, &policies}, lease.columns()...)...); err != nil {
		return Container{}, err
	}
	c.Modified, c.Lease = database.Time(modified), lease.lease()
	return c, errors.Join(json.Unmarshal([]byte(metadata), &c.Metadata), json.Unmarshal([]byte(policies), &c.Policies))
}

func selectContainer(ctx context.Context, tx *database.Tx, account, name string) (c Container, found bool, err error) {
	c, err = scanContainer(tx.QueryRowContext(ctx, containerColumns+` WHERE c.account = $1 AND c.name = $2`, account, name))
	if errors.Is(err, sql.ErrNoRows) {
		return Container{}, false, nil
	}
	return c, err == nil, err
}

func selectContainers(ctx context.Context, tx *database.Tx, account string) ([]Container, error) {
	rows, err := tx.QueryContext(ctx, containerColumns+` WHERE c.account = $1 ORDER BY c.name`, account)
	return collect(rows, err, func(rows *sql.Rows) (Container, error) { return scanContainer(rows) })
}

// deleteContainers removes containers with all that is in them, and returns the objects of their blobs.
func deleteContainers(ctx context.Context, tx *database.Tx, account string, names ...string) (objects []string, err error) {
	for _, name := range names {
		rows, err := tx.QueryContext(ctx, `DELETE FROM blob_blocks WHERE account = $1 AND container = $2 RETURNING object`, account, name)
		more, err := collect(rows, err, scanText)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
		for _, statement := range []string{`DELETE FROM blobs WHERE account = $1 AND container = $2`, `DELETE FROM containers WHERE account = $1 AND name = $2`} {
			if _, err := tx.ExecContext(ctx, statement, account, name); err != nil {
				return nil, err
			}
		}
	}
	return distinct(objects, nil), nil
}

// distinct are the objects without those that are kept, each once: a block may be in a blob twice.
func distinct(objects []string, kept []block) (rest []string) {
	seen := map[string]bool{}
	for _, b := range kept {
		seen[b.object] = true
	}
	for _, o := range objects {
		if !seen[o] {
			seen[o], rest = true, append(rest, o)
		}
	}
	return rest
}

// putBlob writes a blob that consists of blocks, in place of what is there under its name, and returns the
// objects that no row names any more.
func putBlob(ctx context.Context, tx *database.Tx, account, container string, b Blob, blocks []block) (unused []string, err error) {
	if unused, err = deleteBlob(ctx, tx, account, container, b.Name); err != nil {
		return nil, err
	}
	headers, metadata, err := encodeBlob(b)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO blobs (account, container, name, etag, size, content_type, modified, created, headers, metadata)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, account, container, b.Name, b.etag, b.Size, b.Headers.ContentType,
		database.Micros(b.Modified), database.Micros(b.Created), headers, metadata)
	if err != nil {
		return nil, err
	}
	for i, part := range blocks {
		if err := insertBlock(ctx, tx, account, container, b.Name, i, part); err != nil {
			return nil, err
		}
	}
	return distinct(unused, blocks), nil
}

func encodeBlob(b Blob) (headers, metadata string, err error) {
	h, err := json.Marshal(b.Headers)
	if err != nil {
		return "", "", err
	}
	m, err := json.Marshal(b.Metadata)
	return string(h), string(m), err
}

func updateBlob(ctx context.Context, tx *database.Tx, account, container string, b Blob) error {
	headers, metadata, err := encodeBlob(b)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE blobs SET etag = $1, content_type = $2, modified = $3, headers = $4, metadata = $5
		WHERE account = $6 AND container = $7 AND name = $8`, b.etag, b.Headers.ContentType, database.Micros(b.Modified), headers, metadata, account, container, b.Name)
	return err
}

const blobColumns = `SELECT b.name, etag, size, content_type, modified, created, headers, metadata, ` + leaseColumns + ` FROM blobs b
	LEFT JOIN blob_leases l ON l.account = b.account AND l.container = b.container AND l.name = b.name`

func scanBlob(row interface{ Scan(...any) error }) (b Blob, err error) {
	var modified, created int64
	var headers, metadata string
	var lease leaseRow
	if err := row.Scan(append([]any{&b.Name, &b.etag, &b.Size, &b.Headers.ContentType, &modified, &created, &headers, &metadata}, lease.columns()...)...); err != nil {
		return Blob{}, err
	}
	b.Modified, b.Created, b.Lease = database.Time(modified), database.Time(created), lease.lease()
	return b, errors.Join(json.Unmarshal([]byte(headers), &b.Headers), json.Unmarshal([]byte(metadata), &b.Metadata))
}

func selectBlob(ctx context.Context, tx *database.Tx, account, container, name string) (b Blob, found bool, err error) {
	b, err = scanBlob(tx.QueryRowContext(ctx, blobColumns+` WHERE b.account = $1 AND b.container = $2 AND b.name = $3`,
		account, container, name))
	if errors.Is(err, sql.ErrNoRows) {
		return Blob{}, false, nil
	}
	return b, err == nil, err
}

// selectBlobs returns blobs by name, from a name on.
func selectBlobs(ctx context.Context, tx *database.Tx, account, container, from string, most int) ([]Blob, error) {
	rows, err := tx.QueryContext(ctx, blobColumns+` WHERE b.account = $1 AND b.container = $2 AND b.name >= $3 ORDER BY b.name LIMIT $4`,
		account, container, from, most)
	return collect(rows, err, func(rows *sql.Rows) (Blob, error) { return scanBlob(rows) })
}

// deleteBlob removes a blob and its blocks, also those that are not committed, and returns their objects.
func deleteBlob(ctx context.Context, tx *database.Tx, account, container, name string) (objects []string, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM blob_blocks WHERE account = $1 AND container = $2 AND name = $3 RETURNING object`, account, container, name)
	if objects, err = collect(rows, err, scanText); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM blobs WHERE account = $1 AND container = $2 AND name = $3`, account, container, name)
	return distinct(objects, nil), err
}

func insertBlock(ctx context.Context, tx *database.Tx, account, container, name string, place int, b block) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO blob_blocks (account, container, name, place, block, object, size, written) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		account, container, name, place, b.id, b.object, b.size, database.Micros(b.written))
	return err
}

// notCommitted is the place of a block that is part of no blob yet.
const notCommitted = -1

// putPending writes a block that is not committed over one of the same id, and returns the objects that no row names any more.
func putPending(ctx context.Context, tx *database.Tx, account, container, name string, b block) (unused []string, err error) {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM blob_blocks WHERE account = $1 AND container = $2 AND name = $3 AND place < 0`,
		account, container, name).Scan(&n); err != nil {
		return nil, err
	}
	if n >= maxPending {
		return nil, tooManyBlocks()
	}
	rows, err := tx.QueryContext(ctx, `DELETE FROM blob_blocks WHERE account = $1 AND container = $2 AND name = $3 AND place < 0 AND block = $4 RETURNING object`,
		account, container, name, b.id)
	if unused, err = collect(rows, err, scanText); err != nil {
		return nil, err
	}
	return unused, insertBlock(ctx, tx, account, container, name, notCommitted, b)
}

func selectBlocks(ctx context.Context, tx *database.Tx, account, container, name string) ([]block, error) {
	return queryBlocks(ctx, tx, `place >= 0 ORDER BY place`, account, container, name)
}

func selectPending(ctx context.Context, tx *database.Tx, account, container, name string) ([]block, error) {
	return queryBlocks(ctx, tx, `place < 0 ORDER BY block`, account, container, name)
}

func queryBlocks(ctx context.Context, tx *database.Tx, which, account, container, name string) ([]block, error) {
	rows, err := tx.QueryContext(ctx, `SELECT block, object, size, written FROM blob_blocks WHERE account = $1 AND container = $2 AND name = $3 AND `+which,
		account, container, name)
	return collect(rows, err, func(rows *sql.Rows) (b block, err error) {
		var written int64
		err = rows.Scan(&b.id, &b.object, &b.size, &written)
		b.written = database.Time(written)
		return b, err
	})
}

// deletePending removes the blocks that were written before a time and never committed, and returns their objects.
func deletePending(ctx context.Context, tx *database.Tx, before time.Time) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM blob_blocks WHERE place < 0 AND written < $1 RETURNING object`, database.Micros(before))
	return collect(rows, err, scanText)
}
