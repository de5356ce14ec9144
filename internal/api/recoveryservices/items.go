package recoveryservices

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
)

// never is what Azure says instead of a time at which nothing happened.
const never = "2001-01-01T00:00:00Z"

// errorNumber stands where Azure has a number beside the name of an error. We have names only.
const errorNumber = 0

func (d *door) encodeItem(r *arm.Request, i backup.Item) resource[itemProperties] {
	p := itemProperties{
		FriendlyName: i.VM.Name(), VirtualMachineID: i.VM.String(), ProtectionStatus: "Healthy", ProtectionState: string(i.State),
		HealthStatus: "Passed", LastBackupStatus: i.LastStatus, LastBackupTime: never, LastRecoveryPoint: timeOrNothing(i.LastTime),
		ProtectedItemDataID: dataID(i), ProtectedItemType: vmType, BackupManagementType: management, WorkloadType: workload,
		ContainerName: containerName(i.ID.Name()), SourceResourceID: i.VM.String(), VaultID: r.BaseURL + i.Vault().String(),
		Drift: i.Drift,
	}
	if !i.Policy.IsZero() {
		p.PolicyID, p.PolicyName = i.Policy.String(), i.Policy.Name()
	}
	if !i.LastBackup.IsZero() {
		p.LastBackupTime = azureTime(i.LastBackup)
	}
	if i.Problem != nil {
		p.ProtectionStatus, p.HealthStatus = "Unhealthy", "ActionRequired"
		p.HealthDetails = []healthDetail{{errorNumber, i.Problem.Code, i.Problem.Message, recommendations(i.Problem.Advice)}}
	}
	if !i.Disks.IsZero() { // the list is there also where it is empty
		p.Extended = &itemDisks{&diskExclusion{append([]int{}, i.Disks.Luns...), i.Disks.Inclusion}}
	}
	if i.SoftDeleted() {
		d.encodeDeferral(&p, i.Deferred)
	}
	return resource[itemProperties]{i.ID.String(), i.ID.Name(), items, p}
}

// eraseSoon is how long before its end Azure calls the end of a deferred deletion near.
const eraseSoon = 48 * time.Hour

// encodeDeferral: an item that is deleted softly is still there, and says so.
func (d *door) encodeDeferral(p *itemProperties, deferred backup.Deferral) {
	left := max(deferred.Until.Sub(d.o.Now()), 0)
	p.DeletedAt, p.SoftDeleted, p.EraseIn, p.EraseSoon = azureTime(deferred.At), true, timeSpan(left), left <= eraseSoon
	p.SoftDeleteDays, p.SoftDeleteDaysSent = deferred.Days, deferred.Days
}

// timeSpan writes a duration as .NET does: 13.23:59:44.1553648.
func timeSpan(left time.Duration) string {
	days, rest := left/(24*time.Hour), left%(24*time.Hour)
	return fmt.Sprintf("%d.%02d:%02d:%02d.%07d", days, rest/time.Hour, rest/time.Minute%60, rest/time.Second%60, rest%time.Second/100)
}

// recommendations is the list that Azure makes of advice.
func recommendations(advice string) []string {
	if advice == "" {
		return []string{}
	}
	return []string{advice}
}

// dataID is a number of at most 15 digits that is another one when a VM is protected anew.
func dataID(i backup.Item) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(i.ID.Key() + azureTime(i.Created))) // never fails
	return strconv.FormatUint(h.Sum64()%1e15, 10)
}

// getItem gives the extended information only to whom asks for it: it costs a look at all points.
func (d *door) getItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "expand")
	if err != nil {
		return nil, err
	}
	i, err := d.s.Item(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	body := d.encodeItem(r, i)
	if _, asked := f["expand"]; asked && f.is("expand", "extendedinfo") {
		if body.Properties.ExtendedInfo, err = d.extendItem(ctx, i); err != nil {
			return nil, err
		}
	}
	return arm.OK(body), nil
}

func (d *door) extendItem(ctx context.Context, i backup.Item) (*itemExtended, error) {
	all, err := d.s.Points(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	e := &itemExtended{RecoveryPointCount: len(all)}
	if len(all) > 0 {
		e.OldestRecoveryPoint = azureTime(all[len(all)-1].Time)
	}
	return e, nil
}

func (d *door) listItems(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "backupManagementType", "itemType", "workloadType", "policyName", "friendlyName", "containerName", "healthState",
		"fabricName", "backupEngineName", "backupSetName")
	if err != nil {
		return nil, err
	}
	read := func(after string, most int) ([]backup.Item, error) { return d.s.ItemsAfter(ctx, r.ID, after, most) }
	return arm.Walk(r, read, backup.PlaceOfItem, func(i backup.Item) (resource[itemProperties], bool) {
		body := d.encodeItem(r, i)
		p := body.Properties
		return body, f.is("backupManagementType", management) && f.is("itemType", workload) && f.is("workloadType", workload) &&
			f.is("policyName", p.PolicyName) && f.is("friendlyName", p.FriendlyName) && f.is("healthState", p.HealthStatus) &&
			f.is("containerName", p.ContainerName, i.ID.Parent().Name()) &&
			f.is("fabricName", fabricName) && f.is("backupEngineName", "") && f.is("backupSetName", "")
	})
}

// check refuses what would be done otherwise than the request says.
func (b itemRequest) check() error {
	p := b.Properties
	if t := strings.ToLower(p.Type); t != "" && !strings.HasSuffix(t, "compute/virtualmachines") && !strings.HasPrefix(t, "azureiaasvm") {
		return otherWorkload("properties.protectedItemType", p.Type)
	}
	for _, state := range []backup.ItemState{"ProtectionPaused", "BackupsSuspended"} {
		if strings.EqualFold(p.ProtectionState, string(state)) {
			return notSupportedHere("properties.protectionState", "The protection state "+string(state), "Use ProtectionStopped; recovery points are then kept for ever.")
		}
	}
	return nil
}

// putItem protects a VM, gives it another policy or resumes its protection if a policy is named, and stops
// protection or undeletes otherwise. Clients send back what they have read, so a state beside a policy says nothing.
func (d *door) putItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body itemRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	p := body.Properties
	if p.PolicyID != "" {
		return d.protect(ctx, r, p.SourceResourceID, p.PolicyID, p.Extended.selection())
	}
	change := d.s.Stop
	if p.IsRehydrate {
		change = d.s.Undelete
	} else if !strings.EqualFold(p.ProtectionState, string(backup.ProtectionStopped)) {
		return nil, neitherProtectNorStop()
	}
	j, err := change(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return started(r, r.ID, j), nil
}

// selection is what a request says of disks; nil when it says nothing.
func (x *itemDisks) selection() *backup.DiskSelection {
	switch {
	case x == nil:
		return nil
	case x.Exclusion == nil:
		return &backup.DiskSelection{}
	}
	return &backup.DiskSelection{Luns: x.Exclusion.Luns, Inclusion: x.Exclusion.Inclusion}
}

func (d *door) protect(ctx context.Context, r *arm.Request, vm armid.ID, policyID string, disks *backup.DiskSelection) (*arm.Reply, error) {
	policy, err := armid.Parse(policyID)
	if err != nil {
		return nil, notAnID("properties.policyId", err)
	}
	if vm.IsZero() {
		return nil, missing("properties.sourceResourceId", "the id of the virtual machine")
	}
	i, j, err := d.s.ProtectDisks(ctx, r.ID, vm, policy, disks)
	if err != nil {
		return nil, err
	}
	return started(r, i.ID, j), nil
}

// deleteItem is followed at the vault: the item won't be there to be asked.
func (d *door) deleteItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Delete(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	vault := vaultOf(r.ID)
	return arm.Accepted(r.URL(vault.Child("backupOperations", j.ID).String()), r.URL(vault.Child("backupOperationResults", j.ID).String())), nil
}

// backUp starts a backup on demand. Without a body the recovery point is kept as long as usual.
func (d *door) backUp(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body backupRequest
	if r.HTTP.ContentLength != 0 {
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
	}
	j, err := d.s.BackUp(ctx, r.ID, body.Properties.Expiry)
	if err != nil {
		return nil, err
	}
	return started(r, r.ID, j), nil
}
