package recoveryservices

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

// listVaultUsages counts what a vault protects and what of it needs somebody, as the vault's overview shows it.
func (d *door) listVaultUsages(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, r.ID.Child(r.Collection, ""), "read"); err != nil {
		return nil, err
	}
	protected, err := d.s.Items(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	var critical, warning int
	for _, i := range protected {
		switch {
		case i.State == backup.ProtectionError:
			critical++
		case i.Problem != nil:
			warning++
		}
	}
	count := func(n int, name, localized string) usage { return usage{"Count", n, -1, usageName{name, localized}} }
	return arm.List(r, []usage{
		count(len(protected), "ProtectedItemCount", "Backup items"),
		count(critical, "ProtectedItemCriticalCount", "Critical"),
		count(warning, "ProtectedItemWarningCount", "Warning"),
		count(len(protected), "IaaSVMProtectedItemCount", "Azure Virtual Machines"),
		count(critical, "IaaSVMProtectedItemCriticalCount", "Critical"),
		count(warning, "IaaSVMProtectedItemWarningCount", "Warning"),
		count(0, "MABContainersCount", "Backup management servers"),
	}), nil
}
