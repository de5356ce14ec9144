package resources

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

func putGroup(ctx context.Context, tx *database.Tx, g Group) error {
	doc, err := json.Marshal(g)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO resource_groups (name_key, document) VALUES ($1, $2)
		ON CONFLICT (name_key) DO UPDATE SET document = excluded.document`, strings.ToLower(g.Name), string(doc))
	return err
}

func scanGroup(row interface{ Scan(...any) error }) (g Group, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return Group{}, err
	}
	if err := json.Unmarshal([]byte(doc), &g); err != nil {
		return Group{}, fmt.Errorf("decode resource group: %w", err)
	}
	return g, nil
}

func selectGroup(ctx context.Context, tx *database.Tx, name string) (g Group, found bool, err error) {
	g, err = scanGroup(tx.QueryRowContext(ctx, `SELECT document FROM resource_groups WHERE name_key = $1`, strings.ToLower(name)))
	if errors.Is(err, sql.ErrNoRows) {
		return Group{}, false, nil
	}
	return g, err == nil, err
}

func selectGroups(ctx context.Context, tx *database.Tx) ([]Group, error) {
	rows, err := tx.QueryContext(ctx, `SELECT document FROM resource_groups ORDER BY name_key`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var groups []Group
	for rows.Next() {
		g, err := scanGroup(rows)
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, rows.Err()
}

func deleteGroup(ctx context.Context, tx *database.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM resource_groups WHERE name_key = $1`, strings.ToLower(name))
	return err
}

func putDocument(ctx context.Context, tx *database.Tx, d Document) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO documents (id_key, id, type_key, body) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id_key) DO UPDATE SET body = excluded.body`, d.ID.Key(), d.ID.String(), strings.ToLower(d.ID.Type()), string(d.Body))
	return err
}

func scanDocument(row interface{ Scan(...any) error }) (d Document, err error) {
	var id, body string
	if err := row.Scan(&id, &body); err != nil {
		return Document{}, err
	}
	d.Body = json.RawMessage(body)
	d.ID, err = armid.Parse(id)
	return d, err
}

func selectDocument(ctx context.Context, tx *database.Tx, id armid.ID) (d Document, found bool, err error) {
	d, err = scanDocument(tx.QueryRowContext(ctx, `SELECT id, body FROM documents WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return Document{}, false, nil
	}
	return d, err == nil, err
}

// selectDocuments returns those below a scope: keys that begin with its key and a slash, of one type or of all.
func selectDocuments(ctx context.Context, tx *database.Tx, scope armid.ID, typ string) ([]Document, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, body FROM documents
		WHERE id_key >= $1 AND id_key < $2 AND ($3 = '' OR type_key = $3) ORDER BY id_key`,
		scope.Key()+"/", scope.Key()+"0", strings.ToLower(typ)) // '0' follows '/'
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Document
	for rows.Next() {
		d, err := scanDocument(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

func deleteDocument(ctx context.Context, tx *database.Tx, id armid.ID) (existed bool, err error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM documents WHERE id_key = $1`, id.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// subscriptionRow is what is kept of a subscription.
type subscriptionRow struct {
	Tags map[string]string `json:"tags,omitempty"`
}

func putSubscriptionTags(ctx context.Context, tx *database.Tx, id string, tags map[string]string) error {
	doc, err := json.Marshal(subscriptionRow{tags})
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO subscriptions (id_key, document) VALUES ($1, $2)
		ON CONFLICT (id_key) DO UPDATE SET document = excluded.document`, strings.ToLower(id), string(doc))
	return err
}

func selectSubscriptionTags(ctx context.Context, tx *database.Tx, id string) (map[string]string, error) {
	var doc string
	err := tx.QueryRowContext(ctx, `SELECT document FROM subscriptions WHERE id_key = $1`, strings.ToLower(id)).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var row subscriptionRow
	if err := json.Unmarshal([]byte(doc), &row); err != nil {
		return nil, fmt.Errorf("decode subscription: %w", err)
	}
	return row.Tags, nil
}
