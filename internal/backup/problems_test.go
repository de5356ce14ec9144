package backup

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/proof"
)

var update = flag.Bool("update", false, "rewrite golden files")

// All that can be said to a person is in one file, to be read; each says what to do.
func TestProblems(t *testing.T) {
	group := armid.Subscription("s").Group("rg")
	vm, classic := group.Resource(vmType, "web1"), group.Resource(classicVMType, "old1")
	keys := group.Resource("Microsoft.KeyVault/vaults", "kv1")
	vault := RecoveryVault{ID: vaultID, Location: "westeurope"}
	item := Item{ID: ItemID(vaultID, vm), VM: vm}
	deleted := item
	deleted.Deferred = Deferral{At: at("2026-11-01 22:00"), Until: at("2026-11-15 22:00"), Days: 14}
	policy, point := vaultID.Child("backupPolicies", "nightly"), item.ID.Child("recoveryPoints", "1700000000000000")
	inside := errors.New("inside")
	all := []*problem.Error{
		classicNotSupported(classic), bekAlone(vm, compute.DiskEncryption{Name: "os"}),
		keyVaultPermissions(vm, keys, keyvault.Permissions{Keys: []string{"backup"}, Secrets: []string{"get", "list"}}),
		keyVaultGoneForBackup(vm, keys), keyNotReadable("secret", "https://kv1.vault.localhost/secrets/bek/1", inside), keyVaultGone("web1", keys),
		keyAndSecretGone("web1", []string{"key kek", "secret bek"}),
		vaultNotFound(vaultID), invalidVaultName("1"), locationRequired(vaultID), locationFixed(vault), invalidRedundancy("Twice"), redundancyLocked(vault),
		vaultBeingChanged(vaultID), vaultNotEmpty(vault, []Item{item}),
		instantExceedsRetention(Policy{policy, PolicyProperties{InstantRetentionDays: 30, Retention: Retention{Daily: &DailyRetention{Duration: Duration{7, "Days"}}}}}),
		invalidPolicy(policy, errors.New("scheduleRunTimes has 2 times; a policy runs at one")), policyNotFound(policy),
		policyOfOtherVault(policy, group.Resource(vaultType, "other")), policyInUse(policy, item),
		invalidItemName(item.ID), itemNotOfVM(item.ID, group.Resource(vmType, "web2")), itemNotFound(item.ID), vmNotProtected(vm), notAVirtualMachine(keys), vmNotFound(vm),
		otherSubscription(vm, vault), otherLocation(compute.VM{ID: vm, Location: "northeurope"}, vault), alreadyProtected(vm, item), protectionStopped(item),
		operationInProgress(item), expiryInThePast(at("2020-01-01 00:00")), expiryTooFar(at("2526-01-01 00:00")), tooManyPolicies(vaultID, 200), tooManyItems(vaultID, 1000), noSuchPlace(), jobNotFound("7"), jobNotCancellable(job.Job{ID: "7", State: job.Ended, Outcome: job.Completed}),
		pointNotFound(point), storeFull(inside), targetFull("os", inside), pointDamaged(errors.New("disk os from 4 MiB to 5 MiB")),
		notProved("the BEK opens no key slot of disk os", "Set the secret to the passphrase of the disk."),
		encryptionDrift(Point{VM: vm}, Drift{Disk: "os", Bytes: encrypted, Found: "LUKS2"}), encryptionDrift(Point{VM: vm}, Drift{Disk: "os", Bytes: plain, Found: "ext4"}),
		encryptionDrift(Point{VM: vm}, Drift{Disk: "os", Bytes: converting, Found: "the guest is re-encrypting the volume"}),
		itemBeingDeleted(item), itemSoftDeleted(deleted), itemNotSoftDeleted(item), dataDeleted(deleted), vaultNotEmpty(vault, []Item{deleted}),
		invalidSoftDelete(SoftDelete{"Sometimes", 3}), softDeleteAlwaysOn(vault), invalidEnhancedSecurity("On"), diskExclusionOfEncrypted(vm),
		vmHasNoLun(vm, 7, []int{0, 1}), pointGone(Point{VM: vm, Time: at("2026-11-01 22:00")}), storeDamaged(item, errors.New("points/0a1b: bytes are damaged")), dataDeleted(item),
		keySizeInvalid(vm), vmHasNoDisk(vm, "data", []string{"os"}), keyDoesNotOpen(vm, proof.DiskVerdict{Name: "os", Kind: proof.WrongKey, Reason: "the key in the recovery point opens none of the key slots"}),
		restoreTypeNotSupported("OriginalLocation"), restoreNeeds("storageAccountId"), restoreElsewhere(vault, "westus"), noSuchDisk(7, []string{"os (LUN -1)", "data (LUN 0)"}),
	}
	served := Point{VM: vm}
	all = append(all, mountsOff(), tooManyMounts(), mountNotFound("7"), pointHasNoDisk(served, "data", []string{"os"}),
		notDecrypted(served, "os", errors.New("the key in the recovery point opens none of the key slots"), inside))
	for _, kind := range []fabric.HostKind{fabric.Away, fabric.Gone, fabric.Busy, fabric.Held, fabric.NoRoom, fabric.Halted, fabric.Refused} {
		all = append(all, hostProblem(&fabric.HostError{Host: "lab", Kind: kind, Err: inside}))
	}
	all = append(all, unreportedChanges(served, PointDisk{Name: "os"}), drillNoHost(), drillHostUnknown("c", []string{"a", "b"}), drillInvalid(),
		drillFailed(Point{ID: "7", VM: vm}, Drill{Host: "lab", Reason: "The machine stopped by itself."}))
	const outside = "kv1.vault.azure.net"
	e := compute.DiskEncryption{Name: "os"}
	all = append(all, outsidePermissions(vm, outside, keyvault.AzureBackupTemplate()), keysInTwoPlaces(vm, e), secretNotWrapped(vm, e, inside), noKeysOutside(point))
	for kind := keyservice.NotConfigured; kind <= keyservice.Malformed; kind++ {
		err := &keyservice.Error{Kind: kind, Host: outside, Operation: "backup of key kek", Code: "Code", Message: "what it says"}
		all = append(all, problem.Of(outsideFailure(err)), problem.Of(outsideRestoreFailure(err)))
	}
	for _, kind := range []fabric.Kind{fabric.Missing, fabric.NotAllowed, fabric.Truncated, fabric.InUse, fabric.Changed, fabric.UnknownFormat,
		fabric.HasBackingFile, fabric.NotRegular, fabric.Unreadable} {
		all = append(all, imageProblem(&fabric.ImageError{Path: "/images/web1.raw", Kind: kind, Err: inside}))
	}
	var text strings.Builder
	for _, p := range all {
		if p.Code == "" || p.Message == "" || p.Advice == "" || p.Kind == problem.Internal {
			t.Errorf("%q lacks a kind, a code, a message or advice", p.Code)
		}
		fmt.Fprintf(&text, "%s\n\t%s\n\t-> %s\n", p.Code, p.Message, p.Advice)
	}
	if strings.Contains(text.String(), "inside") || strings.Contains(text.String(), "%!") {
		t.Error("a cause is told to a person, or a sentence lacks what it names")
	}
	const golden = "testdata/problems.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("problems differ from %s (run with -update and read the difference):\n%s", golden, &text)
	}
}
