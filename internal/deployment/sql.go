package deployment

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/database"
)

func putDeployment(ctx context.Context, tx *database.Tx, d Deployment) error {
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO deployments (id_key, document) VALUES ($1, $2)
		ON CONFLICT (id_key) DO UPDATE SET document = excluded.document`, d.ID.Key(), string(doc))
	return err
}

func scan(row interface{ Scan(...any) error }) (d Deployment, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return Deployment{}, err
	}
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return Deployment{}, fmt.Errorf("decode deployment: %w", err)
	}
	return d, nil
}

func selectDeployment(ctx context.Context, tx *database.Tx, id armid.ID) (d Deployment, found bool, err error) {
	d, err = scan(tx.QueryRowContext(ctx, `SELECT document FROM deployments WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return Deployment{}, false, nil
	}
	return d, err == nil, err
}

// selectDeployments returns those of a group: keys that begin with its key and a slash.
func selectDeployments(ctx context.Context, tx *database.Tx, group armid.ID) ([]Deployment, error) {
	rows, err := tx.QueryContext(ctx, `SELECT document FROM deployments WHERE id_key >= $1 AND id_key < $2 ORDER BY id_key`,
		group.Key()+"/", group.Key()+"0") // '0' follows '/'
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Deployment
	for rows.Next() {
		d, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

func deleteDeployment(ctx context.Context, tx *database.Tx, id armid.ID) (existed bool, err error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM deployments WHERE id_key = $1`, id.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// deleteDeployments removes those of a group: keys that begin with its key and a slash.
func deleteDeployments(ctx context.Context, tx *database.Tx, group armid.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM deployments WHERE id_key >= $1 AND id_key < $2`, group.Key()+"/", group.Key()+"0")
	return err
}
