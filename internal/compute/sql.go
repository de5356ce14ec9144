package compute

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

const diskColumns = `document, path, format, size, owned, vm, host, target`

func insertDisk(ctx context.Context, tx *database.Tx, r diskRow) error {
	doc, err := json.Marshal(r.Disk)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO disks (id_key, vm_key, `+diskColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		r.ID.Key(), strings.ToLower(r.vm), string(doc), r.image.Path, r.image.Format, r.image.Size, r.owned, r.vm, r.host, r.target)
	return err
}

func putDisk(ctx context.Context, tx *database.Tx, r diskRow) error {
	doc, err := json.Marshal(r.Disk)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO disks (id_key, vm_key, `+diskColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id_key) DO UPDATE SET vm_key = excluded.vm_key, document = excluded.document, vm = excluded.vm,
			path = excluded.path, format = excluded.format, size = excluded.size, host = excluded.host, target = excluded.target`,
		r.ID.Key(), strings.ToLower(r.vm), string(doc), r.image.Path, r.image.Format, r.image.Size, r.owned, r.vm, r.host, r.target)
	return err
}

// diskRows are disks with the time until which they are shared.
const diskRows = `SELECT ` + diskColumns + `, COALESCE(expires, 0) FROM disks LEFT JOIN disk_accesses USING (id_key)`

func scanDisk(row interface{ Scan(...any) error }) (r diskRow, err error) {
	var doc string
	var expires int64
	if err := row.Scan(&doc, &r.image.Path, &r.image.Format, &r.image.Size, &r.owned, &r.vm, &r.host, &r.target, &expires); err != nil {
		return r, err
	}
	if expires != 0 {
		r.accessUntil = database.Time(expires)
	}
	if err := json.Unmarshal([]byte(doc), &r.Disk); err != nil {
		return r, fmt.Errorf("decode disk: %w", err)
	}
	r.ManagedBy = r.vm
	return r, nil
}

func selectDisk(ctx context.Context, tx *database.Tx, id armid.ID) (diskRow, error) {
	r, err := scanDisk(tx.QueryRowContext(ctx, diskRows+` WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return r, notFound(DiskType, id)
	}
	return r, err
}

// selectDisks returns those below a scope: keys that begin with its key and a slash.
func selectDisks(ctx context.Context, tx *database.Tx, scope armid.ID) ([]diskRow, error) {
	return queryDisks(ctx, tx, diskRows+` WHERE id_key >= $1 AND id_key < $2 ORDER BY id_key`,
		scope.Key()+"/", scope.Key()+"0") // '0' follows '/'
}

func selectDisksOf(ctx context.Context, tx *database.Tx, vm armid.ID) ([]diskRow, error) {
	return queryDisks(ctx, tx, diskRows+` WHERE vm_key = $1 ORDER BY id_key`, vm.Key())
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
	if _, err := tx.ExecContext(ctx, `DELETE FROM guest_states WHERE disk_key = $1`, id.Key()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM disks WHERE id_key = $1`, id.Key())
	return err
}

const snapshotColumns = `SELECT document, path, format, size, COALESCE(expires, 0) FROM snapshots LEFT JOIN disk_accesses USING (id_key)`

func insertSnapshot(ctx context.Context, tx *database.Tx, r snapshotRow) error {
	doc, err := json.Marshal(r.Snapshot)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO snapshots (id_key, document, path, format, size) VALUES ($1, $2, $3, $4, $5)`,
		r.ID.Key(), string(doc), r.image.Path, r.image.Format, r.image.Size)
	return err
}

func updateSnapshot(ctx context.Context, tx *database.Tx, r snapshotRow) error {
	doc, err := json.Marshal(r.Snapshot)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE snapshots SET document = $2 WHERE id_key = $1`, r.ID.Key(), string(doc))
	return err
}

func scanSnapshot(row interface{ Scan(...any) error }) (r snapshotRow, err error) {
	var doc string
	var expires int64
	if err := row.Scan(&doc, &r.image.Path, &r.image.Format, &r.image.Size, &expires); err != nil {
		return r, err
	}
	if expires != 0 {
		r.accessUntil = database.Time(expires)
	}
	if err := json.Unmarshal([]byte(doc), &r.Snapshot); err != nil {
		return r, fmt.Errorf("decode snapshot: %w", err)
	}
	return r, nil
}

func selectSnapshot(ctx context.Context, tx *database.Tx, id armid.ID) (snapshotRow, error) {
	r, err := scanSnapshot(tx.QueryRowContext(ctx, snapshotColumns+` WHERE id_key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return r, notFound(SnapshotType, id)
	}
	return r, err
}

func selectSnapshots(ctx context.Context, tx *database.Tx, scope armid.ID) ([]snapshotRow, error) {
	rows, err := tx.QueryContext(ctx, snapshotColumns+` WHERE id_key >= $1 AND id_key < $2 ORDER BY id_key`, scope.Key()+"/", scope.Key()+"0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []snapshotRow
	for rows.Next() {
		r, err := scanSnapshot(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func hasSnapshotAt(ctx context.Context, tx *database.Tx, path string) (bool, error) {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM snapshots WHERE path = $1`, path).Scan(&n)
	return n > 0, err
}

func deleteSnapshot(ctx context.Context, tx *database.Tx, id armid.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM snapshots WHERE id_key = $1`, id.Key())
	return err
}

func putAccess(ctx context.Context, tx *database.Tx, a Access) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO disk_accesses (id_key, id, access, sealed, expires) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id_key) DO UPDATE SET id = excluded.id, access = excluded.access, sealed = excluded.sealed, expires = excluded.expires`,
		a.Resource.Key(), a.Resource.String(), a.ID, a.sealed, database.Micros(a.Expires))
	return err
}

const accessColumns = `SELECT id, access, sealed, expires FROM disk_accesses`

func scanAccess(row interface{ Scan(...any) error }) (a Access, err error) {
	var id string
	var expires int64
	if err := row.Scan(&id, &a.ID, &a.sealed, &expires); err != nil {
		return Access{}, err
	}
	a.Expires = database.Time(expires)
	a.Resource, err = armid.Parse(id)
	return a, err
}

// selectAccess returns the grant for a disk or snapshot; one without an id if there is none.
func selectAccess(ctx context.Context, tx *database.Tx, id armid.ID) (Access, error) {
	return accessOrNone(scanAccess(tx.QueryRowContext(ctx, accessColumns+` WHERE id_key = $1`, id.Key())))
}

func selectAccessNamed(ctx context.Context, tx *database.Tx, access string) (Access, error) {
	return accessOrNone(scanAccess(tx.QueryRowContext(ctx, accessColumns+` WHERE access = $1`, access)))
}

func accessOrNone(a Access, err error) (Access, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return Access{}, nil
	}
	return a, err
}

func selectAccesses(ctx context.Context, tx *database.Tx) ([]Access, error) {
	rows, err := tx.QueryContext(ctx, accessColumns)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []Access
	for rows.Next() {
		a, err := scanAccess(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

func deleteAccess(ctx context.Context, tx *database.Tx, id armid.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM disk_accesses WHERE id_key = $1`, id.Key())
	return err
}

func deleteExpired(ctx context.Context, tx *database.Tx, now time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM disk_accesses WHERE expires <= $1`, database.Micros(now))
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

const machineColumns = `v.document, m.host, m.uuid, m.power, m.agent, m.made, m.deallocated, m.definition, m.left_out`

func putMachine(ctx context.Context, tx *database.Tx, m machineRow) error {
	left, err := json.Marshal(m.left)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO machines (vm_key, host, uuid, power, agent, made, deallocated, definition, left_out) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (vm_key) DO UPDATE SET host = excluded.host, power = excluded.power, agent = excluded.agent, made = excluded.made, deallocated = excluded.deallocated,
			definition = excluded.definition, left_out = excluded.left_out`,
		m.vm.ID.Key(), m.host, m.uuid, string(m.power), string(m.agent), m.made, m.deallocated, string(m.definition), string(left))
	return err
}

func scanMachine(row interface{ Scan(...any) error }) (m machineRow, err error) {
	var doc, power, agent, definition, left string
	if err := row.Scan(&doc, &m.host, &m.uuid, &power, &agent, &m.made, &m.deallocated, &definition, &left); err != nil {
		return machineRow{}, err
	}
	m.power, m.agent, m.definition = fabric.PowerState(power), fabric.AgentState(agent), []byte(definition)
	if err := json.Unmarshal([]byte(doc), &m.vm); err != nil {
		return machineRow{}, fmt.Errorf("decode virtual machine: %w", err)
	}
	return m, json.Unmarshal([]byte(left), &m.left)
}

// selectMachine returns what a host runs as a VM; found is false for a VM at rest, or none.
func selectMachine(ctx context.Context, tx *database.Tx, vm armid.ID) (m machineRow, found bool, err error) {
	m, err = scanMachine(tx.QueryRowContext(ctx, `SELECT `+machineColumns+` FROM machines m JOIN virtual_machines v ON v.id_key = m.vm_key WHERE m.vm_key = $1`, vm.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return machineRow{}, false, nil
	}
	return m, err == nil, err
}

func selectMachinesOn(ctx context.Context, tx *database.Tx, host string) ([]machineRow, error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+machineColumns+` FROM machines m JOIN virtual_machines v ON v.id_key = m.vm_key WHERE m.host = $1 ORDER BY m.vm_key`, host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []machineRow
	for rows.Next() {
		m, err := scanMachine(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// selectMachineBeyond returns the machine of a UUID that is on another host than one.
func selectMachineBeyond(ctx context.Context, tx *database.Tx, host, uuid string) (m machineRow, found bool, err error) {
	m, err = scanMachine(tx.QueryRowContext(ctx, `SELECT `+machineColumns+` FROM machines m JOIN virtual_machines v ON v.id_key = m.vm_key
		WHERE m.uuid = $1 AND m.host <> $2 ORDER BY m.vm_key LIMIT 1`, uuid, host))
	if errors.Is(err, sql.ErrNoRows) {
		return machineRow{}, false, nil
	}
	return m, err == nil, err
}

func putGuestState(ctx context.Context, tx *database.Tx, disk armid.ID, sealed []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO guest_states (disk_key, sealed) VALUES ($1, $2)
		ON CONFLICT (disk_key) DO UPDATE SET sealed = excluded.sealed`, disk.Key(), sealed)
	return err
}

// selectGuestState returns nil where there is none.
func selectGuestState(ctx context.Context, tx *database.Tx, disk armid.ID) (sealed []byte, err error) {
	err = tx.QueryRowContext(ctx, `SELECT sealed FROM guest_states WHERE disk_key = $1`, disk.Key()).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return sealed, err
}
