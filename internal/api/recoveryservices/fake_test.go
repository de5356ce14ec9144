package recoveryservices_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/api/recoveryservices"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/compute"
	"kluis/internal/identity"
	"kluis/internal/job"
	"kluis/internal/problem"
	"kluis/internal/proof"
	"kluis/internal/recovery"
)

// The names are those of the recorded traffic, so that its requests can be sent as they are.
const (
	host         = "https://management.example:8443"
	subscription = "/subscriptions/00000000-0000-0000-0000-000000000000"
	group        = subscription + "/resourceGroups/clitest.rg000001"
	vault        = group + "/providers/Microsoft.RecoveryServices/vaults/clitest-vault000002"
	vm           = group + "/providers/Microsoft.Compute/virtualMachines/clitest-vm000003"
	container    = vault + "/backupFabrics/Azure/protectionContainers/IaasVMContainer;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003"
	item         = container + "/protectedItems/VM;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003"
	point        = "1795435200000000" // the microsecond of noon
	point2       = "1795521600000000" // a day later
	version      = "?api-version=2024-04-01"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// softDelete is what every vault has that nobody has changed.
var softDelete = backup.SoftDelete{State: "Enabled", Days: 14}

// fake is the backup service's state without its work: what is asked for is noted, and jobs stay as they
// were put.
type fake struct {
	vaults   []backup.RecoveryVault
	policies []backup.Policy
	items    []backup.Item
	machines []compute.VM
	points   []backup.Point
	keys     []backup.KeyBackup
	jobs     []backup.Job
	alerts   []backup.Alert
	mount    backup.Mount
	check    error
	exported map[string][]byte

	asked     []backup.MountRequest
	drills    []backup.DrillRequest
	revoked   []string
	protected []string // "item vm policy" of each Protect
	acted     []string // what VaultOf was asked for
	selected  []*backup.DiskSelection
	restores  []backup.RestoreRequest
	backups   []time.Time
	cancelled []string
}

func find[T any](all []T, what string, is func(T) bool) (T, error) {
	i := slices.IndexFunc(all, is)
	if i < 0 {
		var zero T
		return zero, problem.New(problem.NotFound, "ResourceNotFound", "The %s was not found.", what).WithAdvice("Look for it in the list.")
	}
	return all[i], nil
}

func remove[T any](all *[]T, is func(T) bool) bool {
	before := len(*all)
	*all = slices.DeleteFunc(*all, is)
	return len(*all) < before
}

func (f *fake) PutVault(_ context.Context, v backup.RecoveryVault) (backup.RecoveryVault, bool, error) {
	if v.Redundancy == "" {
		v.Redundancy = "GeoRedundant"
	}
	if v.SoftDelete == (backup.SoftDelete{}) {
		v.SoftDelete = softDelete
	}
	v.Changed = noon
	if v.Identity.Wanted {
		v.Identity.ObjectID, v.Identity.TenantID = "bbbbbbbb-0000-4000-8000-000000000000", "cccccccc-0000-4000-8000-000000000000"
	} else {
		v.Identity = backup.VaultIdentity{}
	}
	existed := remove(&f.vaults, func(o backup.RecoveryVault) bool { return o.ID.Equal(v.ID) })
	f.vaults = append(f.vaults, v)
	return v, !existed, nil
}

func (f *fake) Vault(_ context.Context, id armid.ID) (backup.RecoveryVault, error) {
	return find(f.vaults, "Resource 'Microsoft.RecoveryServices/vaults/"+id.Name()+"'", func(v backup.RecoveryVault) bool { return v.ID.Equal(id) })
}

func (f *fake) VaultOf(ctx context.Context, part armid.ID, verb string) (backup.RecoveryVault, error) {
	f.acted = append(f.acted, part.Type()+"/"+verb)
	part.Segments = part.Segments[:1]
	return f.Vault(ctx, part)
}

func (f *fake) ConfigureVault(ctx context.Context, part armid.ID, change func(*backup.RecoveryVault)) (backup.RecoveryVault, error) {
	v, err := f.VaultOf(ctx, part, "write")
	if err == nil {
		change(&v)
		v, _, err = f.PutVault(ctx, v)
	}
	return v, err
}

func (f *fake) Vaults(_ context.Context, scope armid.ID) ([]backup.RecoveryVault, error) {
	return slices.DeleteFunc(slices.Clone(f.vaults), func(v backup.RecoveryVault) bool { return !v.ID.Within(scope) }), nil
}

func (f *fake) DeleteVault(_ context.Context, id armid.ID) (bool, error) {
	return remove(&f.vaults, func(v backup.RecoveryVault) bool { return v.ID.Equal(id) }), nil
}

func (f *fake) PutPolicy(_ context.Context, p backup.Policy) (backup.Policy, error) {
	remove(&f.policies, func(o backup.Policy) bool { return o.ID.Equal(p.ID) })
	f.policies = append(f.policies, p)
	return p, nil
}

func (f *fake) Policy(_ context.Context, id armid.ID) (backup.Policy, error) {
	return find(f.policies, "policy", func(p backup.Policy) bool { return p.ID.Equal(id) })
}

func (f *fake) Policies(_ context.Context, vault armid.ID) ([]backup.Policy, error) {
	return slices.DeleteFunc(slices.Clone(f.policies), func(p backup.Policy) bool { return !p.ID.Within(vault) }), nil
}

func (f *fake) DeletePolicy(_ context.Context, id armid.ID) (bool, error) {
	return remove(&f.policies, func(p backup.Policy) bool { return p.ID.Equal(id) }), nil
}

func (f *fake) ProtectDisks(ctx context.Context, id, vm, policy armid.ID, disks *backup.DiskSelection) (backup.Item, backup.Job, error) {
	f.protected = append(f.protected, id.String()+" "+vm.String()+" "+policy.String())
	f.selected = append(f.selected, disks)
	i, err := f.Item(ctx, id)
	return i, f.job("ConfigureBackup"), err
}

func (f *fake) Stop(_ context.Context, id armid.ID) (backup.Job, error) {
	return f.job("DisableBackup"), f.exists(id)
}
func (f *fake) Delete(_ context.Context, id armid.ID) (backup.Job, error) {
	return f.job("DeleteBackupData"), f.exists(id)
}

func (f *fake) Undelete(_ context.Context, id armid.ID) (backup.Job, error) {
	return f.job("Undelete"), f.exists(id)
}
func (f *fake) Check(context.Context, armid.ID, armid.ID) error { return f.check }

// exists finds an item whatever the case of its id, as the service does.
func (f *fake) exists(id armid.ID) error { _, err := f.Item(context.Background(), id); return err }

func (f *fake) Item(_ context.Context, id armid.ID) (backup.Item, error) {
	return find(f.items, "protected item", func(i backup.Item) bool { return i.ID.Equal(id) })
}

func (f *fake) ItemOf(_ context.Context, vm armid.ID) (backup.Item, error) {
	return find(f.items, "protected item", func(i backup.Item) bool { return i.VM.Equal(vm) })
}

func (f *fake) Items(_ context.Context, vault armid.ID) ([]backup.Item, error) {
	return slices.DeleteFunc(slices.Clone(f.items), func(i backup.Item) bool { return !i.ID.Within(vault) }), nil
}

func (f *fake) Protectable(context.Context, armid.ID) ([]compute.VM, error) { return f.machines, nil }

func (f *fake) BackUp(_ context.Context, item armid.ID, expiry time.Time) (backup.Job, error) {
	f.backups = append(f.backups, expiry)
	return f.job("Backup"), f.exists(item)
}

func (f *fake) Points(_ context.Context, item armid.ID) ([]backup.Point, error) {
	return slices.DeleteFunc(slices.Clone(f.points), func(p backup.Point) bool { return !p.Item.Equal(item) }), nil
}

func (f *fake) Point(_ context.Context, id armid.ID) (backup.Point, error) {
	return find(f.points, "recovery point", func(p backup.Point) bool { return p.ID == id.Name() })
}

func (f *fake) PointKeys(context.Context, armid.ID) ([]backup.KeyBackup, error) { return f.keys, nil }

func (f *fake) Restore(_ context.Context, r backup.RestoreRequest) (backup.Job, error) {
	f.restores = append(f.restores, r)
	if r.Type != "RestoreDisks" {
		return backup.Job{}, problem.New(problem.Unsupported, "UserErrorEncryptedVmRestoreTypeNotSupported", "No.").WithAdvice("Restore disks.")
	}
	return f.job("Restore"), nil
}

// ValidateRestore answers as Restore would, and notes nothing.
func (f *fake) ValidateRestore(ctx context.Context, _ string, r backup.RestoreRequest) error {
	_, err := (&fake{}).Restore(ctx, r)
	if _, notThere := f.Point(ctx, r.Point); notThere != nil {
		return notThere
	}
	return err
}

func (f *fake) AllowedAt(_ context.Context, _ armid.ID, action string) error {
	f.acted = append(f.acted, action)
	return nil
}

func (f *fake) RestoreKeys(_ context.Context, point armid.ID) ([]backup.RestoredKey, error) {
	return []backup.RestoredKey{{Kind: "keys", URL: "https://kv1.vault.azure.net/keys/kek/" + point.Name()}}, nil
}

func (f *fake) StartDrill(_ context.Context, r backup.DrillRequest) (backup.Job, error) {
	f.drills = append(f.drills, r)
	return f.job("RestoreDrill"), nil
}

func (f *fake) Provision(_ context.Context, r backup.MountRequest) (backup.Mount, error) {
	f.asked = append(f.asked, r)
	return f.mount, nil
}

func (f *fake) Mount(_ context.Context, _ armid.ID, id string) (backup.Mount, error) {
	if id != f.mount.ID {
		return backup.Mount{}, problem.New(problem.NotFound, "UserErrorItemRecoveryNotFound", "It has ended.")
	}
	return f.mount, nil
}

func (f *fake) Revoke(_ context.Context, point armid.ID, mount string) error {
	f.revoked = append(f.revoked, point.Name()+" "+mount)
	return nil
}

func (f *fake) Alerts(context.Context, armid.ID) ([]backup.Alert, error) { return f.alerts, nil }

func (f *fake) Jobs(context.Context, armid.ID) ([]backup.Job, error) { return f.jobs, nil }

func (f *fake) JobsAfter(_ context.Context, _ armid.ID, after string, most int) ([]backup.Job, error) {
	return part(f.jobs, backup.PlaceOfJob, after, most), nil
}

func (f *fake) ItemsAfter(ctx context.Context, vault armid.ID, after string, most int) ([]backup.Item, error) {
	all, err := f.Items(ctx, vault)
	return part(all, backup.PlaceOfItem, after, most), err
}

func (f *fake) PointsAfter(ctx context.Context, item armid.ID, after string, most int) ([]backup.Point, error) {
	all, err := f.Points(ctx, item)
	return part(all, backup.PlaceOfPoint, after, most), err
}

// part is what follows a place in a list.
func part[T any](all []T, place func(T) string, after string, most int) []T {
	if after != "" {
		all = all[slices.IndexFunc(all, func(v T) bool { return place(v) == after })+1:]
	}
	return all[:min(most, len(all))]
}

func (f *fake) Job(_ context.Context, _ armid.ID, id string) (backup.Job, error) {
	return find(f.jobs, "job", func(j backup.Job) bool { return j.ID == id })
}

func (f *fake) ExportJobs(_ context.Context, _ armid.ID, name, _ string, data []byte) (backup.Published, error) {
	if f.exported == nil {
		f.exported = map[string][]byte{}
	}
	f.exported[name] = data
	return backup.Published{URL: "https://exports/" + name, Query: "sig=1"}, nil
}

func (f *fake) CancelJob(ctx context.Context, vault armid.ID, id string) error {
	f.cancelled = append(f.cancelled, id)
	_, err := f.Job(ctx, vault, id)
	return err
}

// job begins a job of its own kind, with the id that goldens know.
func (f *fake) job(kind string) backup.Job {
	j := jobOf(kind, job.Queued)
	f.jobs = append(f.jobs, j)
	return j
}

// jobOf is a job of a kind in a state, as the service would have recorded it.
func jobOf(kind string, state job.State) backup.Job {
	ids := map[string]string{"Backup": "b", "Restore": "c", "ConfigureBackup": "a", "DisableBackup": "d", "DeleteBackupData": "e", "Undelete": "f"}
	j := backup.Job{ID: strings.Repeat(ids[kind], 8) + "-0000-4000-8000-000000000000", Kind: kind, State: state, Entity: strings.ToLower(item),
		Scope: strings.ToLower(vault), Created: noon, Correlation: "58c996b1-f4ac-11ed-abb3-c8f750f92764",
		Details: map[string]string{"VM Name": "clitest-vm000003"}}
	switch kind {
	case "Backup":
		j.Details["Recovery Point Expiry Time in UTC"] = "12/23/2026 12:00:00 PM"
		j.Tasks = tasks(state, "Take Snapshot", "Transfer data to vault")
		j.Done, j.Total = 3<<30, 4<<30
	case "Restore":
		j.Details = map[string]string{"Job Type": "Recover disks", "Target VM Name": "clitest-vm000003", "Target Storage Account Name": "clitest000004",
			"Recovery point time ": "11/23/2026 12:00:00 PM", "Target resource group": "clitest.rg000001"}
		j.Tasks = tasks(state, "Transfer data from vault", "Write configuration and template")
		j.Tasks[0].Note = "1024 MB / 4096 MB Transferred"
		j.Done, j.Total = 1<<30, 4<<30
	case "Undelete":
		j.Details["Undelete flag"] = "True"
	case "ConfigureBackup", "DisableBackup":
		j.Details["Policy Name"] = "DefaultPolicy"
	}
	if state == job.Ended {
		j.Outcome, j.Ended, j.Done = job.Completed, noon.Add(2*time.Minute), j.Total
		switch kind {
		case "Backup":
			j.Details["Backup Size"] = "11374 MB"
		case "DeleteBackupData":
			j.Details["Number of Recovery Points"] = "1"
		case "Restore":
			for _, key := range []string{"Config Blob Name", "Config Blob Container Name", "Config Blob Uri", "Template Blob Uri", "Restored disk(s)", "Backed-up disk(s)"} {
				j.Details[key] = "the " + strings.ToLower(key)
			}
		}
	}
	return j
}

// tasks are named steps: all done, or the last running and the others done.
func tasks(state job.State, names ...string) []job.Task {
	all := make([]job.Task, len(names))
	for i, name := range names {
		all[i] = job.Task{Name: name, Status: job.TaskNotStarted}
		if state != job.Queued {
			all[i].Status, all[i].Started, all[i].Ended = job.TaskCompleted, noon.Add(time.Duration(i)*30*time.Second), noon.Add(time.Duration(i+1)*30*time.Second)
		}
	}
	if last := &all[len(all)-1]; state == job.Running {
		last.Status, last.Ended = job.TaskInProgress, time.Time{}
	}
	return all
}

func policyBody() backup.PolicyProperties {
	at := []time.Time{time.Date(2026, 11, 23, 22, 0, 0, 0, time.UTC)}
	return backup.PolicyProperties{
		BackupManagementType: "AzureIaasVM", InstantRPDetails: json.RawMessage("{}"),
		Schedule: backup.Schedule{Type: "SimpleSchedulePolicy", Frequency: "Daily", Times: at},
		Retention: backup.Retention{Type: "LongTermRetentionPolicy",
			Daily: &backup.DailyRetention{Times: at, Duration: backup.Duration{Count: 30, Type: "Days"}}},
		InstantRetentionDays: 2, TimeZone: "UTC", ProtectedItemsCount: 1,
	}
}

// world is one vault with one protected VM, encrypted on OS and data disk, and two recovery points.
func world() *fake {
	id, v := armid.Must(item), armid.Must(vault)
	secretURL, keyURL := "https://kv-one.vault.example/secrets/", "https://kv-one.vault.example/keys/kek/0123456789abcdef0123456789abcdef"
	keyVault := armid.Must(group + "/providers/Microsoft.KeyVault/vaults/kv-one")
	pair := func(disk string, lun int, name string) backup.KeyBackup {
		return backup.KeyBackup{KeyPair: backup.KeyPair{Disk: disk, Lun: lun, SecretURL: secretURL + name + "/00000000000000000000000000000001", SecretVault: keyVault,
			KeyURL: keyURL, KeyVault: keyVault}, KeyBlob: []byte("key blob"), SecretBlob: []byte("secret blob of " + disk)}
	}
	keys := []backup.KeyBackup{pair("data", 0, "bek-data"), pair("os", -1, "bek-os")}
	disk := func(name string, lun int) backup.PointDisk {
		return backup.PointDisk{Name: name, Lun: lun, ID: armid.Must(group + "/providers/Microsoft.Compute/disks/" + name), Size: 4 << 30, Digest: "b3:" + name,
			Counters: recovery.Counters{Size: 4 << 30, Read: 1 << 30, New: 1 << 20, Reused: 1 << 19, Stored: 1 << 18}}
	}
	p := backup.Point{ID: point, Item: id, VM: armid.Must(vm), Time: noon, Expiry: noon.AddDate(0, 0, 30), Job: "b", Consistency: "CrashConsistent",
		ConsistencyReason: "no agent answers", VMSize: "Standard_DS1_v2", OSType: "Linux", Disks: []backup.PointDisk{disk("os", -1), disk("data", 0)},
		Keys: []backup.KeyPair{keys[0].KeyPair, keys[1].KeyPair},
		Verdict: proof.Verdict{State: proof.Proved, Time: noon, Disks: []proof.DiskVerdict{
			{Name: "os", State: proof.Proved, Encryption: "LUKS2 aes-xts-plain64", UUID: "0b1e4c1e-0000-4000-8000-000000000001", FileSystem: "ext4", BytesRead: 4 << 20}}}}
	newer := p
	newer.ID, newer.Time = point2, noon.AddDate(0, 0, 1)
	return &fake{
		vaults: []backup.RecoveryVault{
			{ID: v, Location: "westeurope", SKU: "Standard", Redundancy: "LocallyRedundant", SoftDelete: softDelete, Changed: noon, Tags: map[string]string{"team": "one"},
				Properties: map[string]json.RawMessage{"monitoringSettings": json.RawMessage(`{"azureMonitorAlertSettings":{"alertsForAllJobFailures":"Enabled"},"classicAlertSettings":{"alertsForCriticalOperations":"Enabled"}}`)}},
			{ID: armid.Must(group + "/providers/Microsoft.RecoveryServices/vaults/clitest-vault000003"), Location: "westeurope", Redundancy: "GeoRedundant", SoftDelete: softDelete, Changed: noon},
			{ID: armid.Must(subscription + "/resourceGroups/other/providers/Microsoft.RecoveryServices/vaults/legacy"), Location: "northeurope", SKU: "RS0", Redundancy: "GeoRedundant", SoftDelete: softDelete, Changed: noon},
		},
		policies: []backup.Policy{{ID: v.Child("backupPolicies", "DefaultPolicy"), Body: policyBody()}},
		items: []backup.Item{{ID: id, VM: armid.Must(vm), VMLocation: "westeurope", Policy: v.Child("backupPolicies", "DefaultPolicy"), State: backup.Protected,
			Created: noon, LastBackup: noon.Add(time.Hour), LastStatus: "Completed", LastPoint: point2, LastTime: noon.AddDate(0, 0, 1)}},
		machines: []compute.VM{{ID: armid.Must(subscription + "/resourceGroups/AFSTests/providers/Microsoft.Compute/virtualMachines/Plain"), Location: "westeurope"}},
		points:   []backup.Point{newer, p},
		keys:     keys,
	}
}

type answer struct {
	Status int
	Header http.Header
	Raw    []byte
	Body   any
}

// ask sends one request through the real router.
func ask(t *testing.T, s recoveryservices.Service, method, target, body string) answer {
	t.Helper()
	return doorTo(t, s)(method, target, body)
}

// doorTo is a door that stays: what one request leaves, the next one finds.
func doorTo(t *testing.T, s recoveryservices.Service) func(method, target, body string) answer {
	t.Helper()
	n := 0
	router, err := arm.NewRouter(arm.RouterOptions{
		Authenticate: func(ctx context.Context, _ *http.Request) (context.Context, error) {
			return identity.With(ctx, identity.Principal{ObjectID: "someone"}), nil
		},
		Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "request" },
	}, recoveryservices.Provider(s, recoveryservices.Options{Now: func() time.Time { return noon.Add(time.Minute) }, NewID: func() string {
		n++
		return fmt.Sprintf("0000000%d-0000-4000-8000-00000000000f", n)
	}}))
	if err != nil {
		t.Fatal(err)
	}
	return func(method, target, body string) answer {
		t.Helper()
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, host+target, strings.NewReader(body)))
		a := answer{Status: w.Code, Header: w.Header()}
		if a.Raw, err = io.ReadAll(w.Body); err != nil {
			t.Fatal(err)
		}
		if len(a.Raw) > 0 {
			if err := json.Unmarshal(a.Raw, &a.Body); err != nil {
				t.Fatalf("%s %s answers %q: %v", method, target, a.Raw, err)
			}
		}
		return a
	}
}

// at walks into decoded JSON: names and indexes, joined by dots.
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for _, step := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			inner, ok := x[step]
			if !ok {
				return nil
			}
			v = inner
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// names are those of a list's entries.
func names(t *testing.T, a answer) []string {
	t.Helper()
	all, ok := at(t, a.Body, "value").([]any)
	if !ok {
		t.Fatalf("not a list: %d %s", a.Status, a.Raw)
	}
	got := []string{}
	for _, e := range all {
		name, _ := at(t, e, "name").(string)
		got = append(got, name)
	}
	return got
}

func code(t *testing.T, a answer) string {
	t.Helper()
	c, _ := at(t, a.Body, "error.code").(string)
	return c
}
