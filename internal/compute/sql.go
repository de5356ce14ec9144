package compute

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

const diskColumns = `document, path, format, size, owned, vm`

func insertDisk(ctx context.Context, tx *database.Tx, r diskRow) error {
	doc, err := json.Marshal(r.Disk)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO disks (id_key, vm_key, `+diskColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		r.ID.Key(), strings.ToLower(r.vm), string(doc), r.image.Path, r.image.Format, r.image.Size, r.owned, r.vm)
	return err
}

func putDisk(ctx context.Context, tx *database.Tx, r diskRow) error {
	doc, err := json.Marshal(r.Disk)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO disks (id_key, vm_key, `+diskColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (id_key) DO UPDATE SET vm_key = excluded.vm_key, document = excluded.document, vm = excluded.vm`,
		r.ID.Key(), strings.ToLower(r.vm), string(doc), r.image.Path, r.image.Format, r.image.Size, r.owned, r.vm)
	return err
}

func scanDisk(row interface{ Scan(...any) error }) (r diskRow, err error) {
	var doc string
	if err := row.Scan(&doc, &r.image.Path, &r.image.Format, &r.image.Size, &r.owned, &r.vm); err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(doc), &r.Disk); err != nil {
		return r, fmt.Errorf("decode disk: %w", err)
	}
	r.ManagedBy = r.vm
	return r, nil
}

func selectDisk(ctx context.Context, tx *database.Tx, id armid.ID) (diskRow, error) {
	r, err := scanDisk(tx.QueryRowContext(ctx, `SELECT `+diskColumns+` FROM disks WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return r, notFound(DiskType, id)
	}
	return r, err
}

// selectDisks returns those below a scope: keys that begin with its key and a slash.
func selectDisks(ctx context.Context, tx *database.Tx, scope armid.ID) ([]diskRow, error) {
	return queryDisks(ctx, tx, `SELECT `+diskColumns+` FROM disks WHERE id_key >= $1 AND id_key < $2 ORDER BY id_key`,
		scope.Key()+"/", scope.Key()+"0") // '0' follows '/'
}

func selectDisksOf(ctx context.Context, tx *database.Tx, vm armid.ID) ([]diskRow, error) {
	return queryDisks(ctx, tx, `SELECT `+diskColumns+` FROM disks WHERE vm_key = $1 ORDER BY id_key`, vm.Key())
}

func queryDisks(ctx context.Context, tx *database.Tx, query string, args ...any) ([]diskRow, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []diskRow
	for rows.Next() {
		r, err := scanDisk(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func deleteDisk(ctx context.Context, tx *database.Tx, id armid.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM disks WHERE id_key = $1`, id.Key())
	return err
}

func putVM(ctx context.Context, tx *database.Tx, vm VM) error {
	doc, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO virtual_machines (id_key, document) VALUES ($1, $2)
		ON CONFLICT (id_key) DO UPDATE SET document = excluded.document`, vm.ID.Key(), string(doc))
	return err
}

func scanVM(row interface{ Scan(...any) error }) (vm VM, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return VM{}, err
	}
	if err := json.Unmarshal([]byte(doc), &vm); err != nil {
		return VM{}, fmt.Errorf("decode virtual machine: %w", err)
	}
	return vm, nil
}

func selectVM(ctx context.Context, tx *database.Tx, id armid.ID) (VM, error) {
	vm, err := scanVM(tx.QueryRowContext(ctx, `SELECT document FROM virtual_machines WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return VM{}, notFound(VMType, id)
	}
	return vm, err
}

func selectVMs(ctx context.Context, tx *database.Tx, scope armid.ID) ([]VM, error) {
	rows, err := tx.QueryContext(ctx, `SELECT document FROM virtual_machines WHERE id_key >= $1 AND id_key < $2 ORDER BY id_key`,
		scope.Key()+"/", scope.Key()+"0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []VM
	for rows.Next() {
		vm, err := scanVM(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, vm)
	}
	return all, rows.Err()
}

func deleteVM(ctx context.Context, tx *database.Tx, id armid.ID) (existed bool, err error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM virtual_machines WHERE id_key = $1`, id.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func putExtension(ctx context.Context, tx *database.Tx, e Extension) error {
	doc, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO vm_extensions (id_key, vm_key, document) VALUES ($1, $2, $3)
		ON CONFLICT (id_key) DO UPDATE SET document = excluded.document`, e.ID.Key(), e.ID.Parent().Key(), string(doc))
	return err
}

func scanExtension(row interface{ Scan(...any) error }) (e Extension, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return Extension{}, err
	}
	if err := json.Unmarshal([]byte(doc), &e); err != nil {
		return Extension{}, fmt.Errorf("decode extension: %w", err)
	}
	return e, nil
}

func selectExtension(ctx context.Context, tx *database.Tx, id armid.ID) (Extension, error) {
	e, err := scanExtension(tx.QueryRowContext(ctx, `SELECT document FROM vm_extensions WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return Extension{}, notFound(ExtensionType, id)
	}
	return e, err
}

func selectExtensions(ctx context.Context, tx *database.Tx, vm armid.ID) ([]Extension, error) {
	rows, err := tx.QueryContext(ctx, `SELECT document FROM vm_extensions WHERE vm_key = $1 ORDER BY id_key`, vm.Key())
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Extension
	for rows.Next() {
		e, err := scanExtension(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

func deleteExtension(ctx context.Context, tx *database.Tx, id armid.ID) (existed bool, err error) {
	result, err := tx.ExecContext(ctx, `DELETE FROM vm_extensions WHERE id_key = $1`, id.Key())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}
