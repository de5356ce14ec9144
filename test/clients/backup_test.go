package clients_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/hashicorp/go-azure-helpers/lang/pointer"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservices/2025-08-01/vaults"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/backupjobs"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/backups"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/jobdetails"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/protecteditems"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/protectionpolicies"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/recoverypoints"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/restores"
)

const (
	vmName     = "web1"
	passphrase = "the passphrase of web1"
)

// The story of the product, told by the clients that Terraform is made of (hashicorp/go-azure-sdk) and by Azure's own: an
// encrypted VM is made, protected, backed up and restored, and comes back with the bytes it had.
func TestBackupStory(t *testing.T) {
	s := start(t)
	b := &backupStory{server: s, t: t}
	b.makeMachine()
	b.protect()
	point := b.backUp()
	b.exportJobs()
	config := b.restore(point)
	b.deploy(config)
	b.leave()
}

// backupStory is a server with one vault and one VM.
type backupStory struct {
	*server
	t  *testing.T
	vm string // its id
}

func (b *backupStory) image(name string) string { return filepath.Join(b.images, name+".raw") }

// makeMachine wraps the passphrase with azkeys, keeps it with azsecrets, and makes disk and VM with armcompute.
func (b *backupStory) makeMachine() {
	t, ctx := b.t, b.t.Context()
	url := b.newVault(t, "kv-story", everyKey, everySecret)
	backupService := &armkeyvault.AccessPolicyEntry{TenantID: &b.tenant, ObjectID: new("5d3a9c1e-7b42-4f0a-9c56-1f8e2ab7d9c4"), Permissions: &armkeyvault.Permissions{
		Keys:    ptrs([]armkeyvault.KeyPermissions{armkeyvault.KeyPermissionsGet, armkeyvault.KeyPermissionsList, armkeyvault.KeyPermissionsBackup}),
		Secrets: ptrs([]armkeyvault.SecretPermissions{armkeyvault.SecretPermissionsGet, armkeyvault.SecretPermissionsList, armkeyvault.SecretPermissionsBackup})}}
	must[armkeyvault.VaultsClientUpdateAccessPolicyResponse](t)(b.vaults(t).UpdateAccessPolicy(ctx, group, "kv-story", armkeyvault.AccessPolicyUpdateKindAdd,
		armkeyvault.VaultAccessPolicyParameters{Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{backupService}}}, nil))
	keys := b.keys(t, url)
	kek := must[azkeys.CreateKeyResponse](t)(keys.CreateKey(ctx, "kek", azkeys.CreateKeyParameters{Kty: new(azkeys.KeyTypeRSA), KeySize: new(int32(2048))}, nil))
	wrapped := must[azkeys.WrapKeyResponse](t)(keys.WrapKey(ctx, "kek", kek.Key.KID.Version(), azkeys.KeyOperationParameters{Algorithm: new(azkeys.EncryptionAlgorithmRSAOAEP), Value: []byte(passphrase)}, nil))
	bek := must[azsecrets.SetSecretResponse](t)(b.secrets(t, url).SetSecret(ctx, "web1-bek", azsecrets.SetSecretParameters{Value: new(base64URL(wrapped.Result)), ContentType: new("Wrapped BEK"),
		Tags: map[string]*string{"DiskEncryptionKeyEncryptionAlgorithm": new("RSA-OAEP"), "DiskEncryptionKeyEncryptionKeyURL": new(string(*kek.Key.KID)), "DiskEncryptionKeyFileName": new("LinuxPassPhraseFileName")}}, nil))

	makeVolume(t, b.image("web1-os"))
	source := &armcompute.SourceVault{ID: new(b.id("Microsoft.KeyVault/vaults/kv-story"))}
	disks := must[*armcompute.DisksClient](t)(armcompute.NewDisksClient(b.subscription, b.credential, b.arm()))
	disk := poll[armcompute.DisksClientCreateOrUpdateResponse](t)(disks.BeginCreateOrUpdate(ctx, group, "web1-os", armcompute.Disk{Location: new(location), Properties: &armcompute.DiskProperties{
		OSType: new(armcompute.OperatingSystemTypesLinux), CreationData: &armcompute.CreationData{CreateOption: new(armcompute.DiskCreateOptionImport), SourceURI: new("file://" + b.image("web1-os"))},
		EncryptionSettingsCollection: &armcompute.EncryptionSettingsCollection{Enabled: new(true), EncryptionSettingsVersion: new("1.1"), EncryptionSettings: []*armcompute.EncryptionSettingsElement{{
			DiskEncryptionKey: &armcompute.KeyVaultAndSecretReference{SecretURL: new(string(*bek.ID)), SourceVault: source},
			KeyEncryptionKey:  &armcompute.KeyVaultAndKeyReference{KeyURL: new(string(*kek.Key.KID)), SourceVault: source}}}}}}, nil))
	vm := poll[armcompute.VirtualMachinesClientCreateOrUpdateResponse](t)(b.machines().BeginCreateOrUpdate(ctx, group, vmName, armcompute.VirtualMachine{Location: new(location), Properties: &armcompute.VirtualMachineProperties{
		HardwareProfile: &armcompute.HardwareProfile{VMSize: new(armcompute.VirtualMachineSizeTypesStandardD2SV3)},
		StorageProfile: &armcompute.StorageProfile{OSDisk: &armcompute.OSDisk{Name: new("web1-os"), OSType: new(armcompute.OperatingSystemTypesLinux),
			CreateOption: new(armcompute.DiskCreateOptionTypesAttach), ManagedDisk: &armcompute.ManagedDiskParameters{ID: disk.ID}}}}}, nil))
	b.vm = *vm.ID
}

func (b *backupStory) machines() *armcompute.VirtualMachinesClient {
	return must[*armcompute.VirtualMachinesClient](b.t)(armcompute.NewVirtualMachinesClient(b.subscription, b.credential, b.arm()))
}

func (b *backupStory) id(path string) string {
	return "/subscriptions/" + b.subscription + "/resourceGroups/" + group + "/providers/" + path
}

// protect makes a vault and a policy as Terraform does, and enables backup.
func (b *backupStory) protect() {
	t, ctx := b.t, b.ctx()
	recovery := must[*vaults.VaultsClient](t)(vaults.NewVaultsClientWithBaseURI(b.hashicorp()))
	recovery.Client.SetTransport(b.transport)
	recovery.Client.SetAuthorizer(b.bearer())
	id := vaults.NewVaultID(b.subscription, group, "nightly")
	if err := recovery.CreateOrUpdateThenPoll(ctx, id, vaults.Vault{Location: location, Sku: &vaults.Sku{Name: vaults.SkuNameStandard},
		Properties: &vaults.VaultProperties{PublicNetworkAccess: pointer.To(vaults.PublicNetworkAccessEnabled)}}, vaults.DefaultCreateOrUpdateOperationOptions()); err != nil {
		t.Fatal(err)
	}
	if vault := must[vaults.GetOperationResponse](t)(recovery.Get(ctx, id)); *vault.Model.Properties.ProvisioningState != "Succeeded" || vault.Model.Location != location {
		t.Errorf("the vault is %+v", vault.Model)
	}

	policies := protectionpolicies.NewProtectionPoliciesClientWithBaseURI(b.endpoint)
	b.autorest(&policies.Client)
	at := []string{"2026-01-01T23:00:00Z"}
	policy := protectionpolicies.NewBackupPolicyID(b.subscription, group, "nightly", "weeks")
	must[protectionpolicies.CreateOrUpdateOperationResponse](t)(policies.CreateOrUpdate(ctx, policy, protectionpolicies.ProtectionPolicyResource{Properties: protectionpolicies.AzureIaaSVMProtectionPolicy{
		BackupManagementType: "AzureIaasVM", TimeZone: pointer.To("UTC"),
		SchedulePolicy: protectionpolicies.SimpleSchedulePolicy{SchedulePolicyType: "SimpleSchedulePolicy", ScheduleRunFrequency: pointer.To(protectionpolicies.ScheduleRunTypeDaily), ScheduleRunTimes: &at},
		RetentionPolicy: protectionpolicies.LongTermRetentionPolicy{RetentionPolicyType: "LongTermRetentionPolicy", DailySchedule: &protectionpolicies.DailyRetentionSchedule{
			RetentionTimes: &at, RetentionDuration: &protectionpolicies.RetentionDuration{Count: pointer.To(int64(14)), DurationType: pointer.To(protectionpolicies.RetentionDurationTypeDays)}}}}},
		protectionpolicies.DefaultCreateOrUpdateOperationOptions()))
	got, ok := must[protectionpolicies.GetOperationResponse](t)(policies.Get(ctx, policy)).Model.Properties.(protectionpolicies.AzureIaaSVMProtectionPolicy)
	if retention, long := got.RetentionPolicy.(protectionpolicies.LongTermRetentionPolicy); !ok || !long || *retention.DailySchedule.RetentionDuration.Count != 14 {
		t.Errorf("the policy is %+v", got)
	}

	if err := b.items().CreateOrUpdateThenPoll(ctx, b.item(), protecteditems.ProtectedItemResource{Properties: protecteditems.AzureIaaSComputeVMProtectedItem{
		PolicyId: pointer.To(policy.ID()), SourceResourceId: &b.vm, ProtectedItemType: "Microsoft.Compute/virtualMachines"}}, protecteditems.DefaultCreateOrUpdateOperationOptions()); err != nil {
		t.Fatal(err)
	}
	if state := b.protection(); state.PolicyName == nil || *state.PolicyName != "weeks" || *state.ProtectionState != protecteditems.ProtectionStateIRPending {
		t.Errorf("the item is %+v", state)
	}
}

func (b *backupStory) item() protecteditems.ProtectedItemId {
	return protecteditems.NewProtectedItemID(b.subscription, group, "nightly", "Azure", "iaasvmcontainer;iaasvmcontainerv2;"+group+";"+vmName, "vm;iaasvmcontainerv2;"+group+";"+vmName)
}

func (b *backupStory) items() *protecteditems.ProtectedItemsClient {
	c := protecteditems.NewProtectedItemsClientWithBaseURI(b.endpoint)
	b.autorest(&c.Client)
	return &c
}

func (b *backupStory) protection() protecteditems.AzureIaaSComputeVMProtectedItem {
	got := must[protecteditems.GetOperationResponse](b.t)(b.items().Get(b.ctx(), b.item(), protecteditems.DefaultGetOperationOptions()))
	item, ok := got.Model.Properties.(protecteditems.AzureIaaSComputeVMProtectedItem)
	if !ok {
		b.t.Fatalf("the item is a %T", got.Model.Properties)
	}
	return item
}

// backUp runs a backup and returns its recovery point.
func (b *backupStory) backUp() recoverypoints.RecoveryPointId {
	t, ctx := b.t, b.ctx()
	i := b.item()
	c := backups.NewBackupsClientWithBaseURI(b.endpoint)
	b.autorest(&c.Client)
	must[backups.TriggerOperationResponse](t)(c.Trigger(ctx, backups.ProtectedItemId(i), backups.BackupRequestResource{Properties: backups.IaasVMBackupRequest{ObjectType: "IaasVMBackupRequest"}}))
	b.waitJob("Backup")

	points := recoverypoints.NewRecoveryPointsClientWithBaseURI(b.endpoint)
	b.autorest(&points.Client)
	all := must[recoverypoints.ListCompleteResult](t)(points.ListComplete(ctx, recoverypoints.ProtectedItemId(i), recoverypoints.DefaultListOperationOptions()))
	if len(all.Items) != 1 {
		t.Fatalf("%d recovery points", len(all.Items))
	}
	id := recoverypoints.NewRecoveryPointID(b.subscription, group, "nightly", "Azure", i.ProtectionContainerName, i.ProtectedItemName, *all.Items[0].Name)
	point, ok := must[recoverypoints.GetOperationResponse](t)(points.Get(ctx, id)).Model.Properties.(recoverypoints.IaasVMRecoveryPoint)
	if !ok || !*point.IsSourceVMEncrypted || point.KeyAndSecret == nil || *point.KeyAndSecret.KekDetails.KeyURL == "" || len(*point.KeyAndSecret.BekDetails.SecretData) == 0 {
		t.Errorf("the recovery point is %+v", point)
	}
	return id
}

// waitJob finds the job of an operation and returns it when it has completed.
func (b *backupStory) waitJob(operation string) jobdetails.AzureIaaSVMJob {
	b.t.Helper()
	list := backupjobs.NewBackupJobsClientWithBaseURI(b.endpoint)
	b.autorest(&list.Client)
	filter := "backupManagementType eq 'AzureIaasVM' and operation eq '" + operation + "'"
	found := must[backupjobs.ListCompleteResult](b.t)(list.ListComplete(b.ctx(), backupjobs.NewVaultID(b.subscription, group, "nightly"), backupjobs.ListOperationOptions{Filter: &filter}))
	if len(found.Items) != 1 {
		b.t.Fatalf("%d jobs of %s", len(found.Items), operation)
	}
	details := jobdetails.NewJobDetailsClientWithBaseURI(b.endpoint)
	b.autorest(&details.Client)
	for {
		job, ok := must[jobdetails.GetOperationResponse](b.t)(details.Get(b.ctx(), jobdetails.NewBackupJobID(b.subscription, group, "nightly", *found.Items[0].Name))).Model.Properties.(jobdetails.AzureIaaSVMJob)
		if !ok || *job.Status != "InProgress" && *job.Status != "Completed" {
			b.t.Fatalf("the job is %+v", job)
		}
		if *job.Status == "Completed" {
			return job
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-b.t.Context().Done():
			b.t.Fatal("the job does not end")
		}
	}
}

// restore restores the disks and returns what the job says of itself.
func (b *backupStory) restore(point recoverypoints.RecoveryPointId) map[string]string {
	t, ctx := b.t, b.ctx()
	groups := must[*armresources.ResourceGroupsClient](t)(armresources.NewResourceGroupsClient(b.subscription, b.credential, b.arm()))
	target := must[armresources.ResourceGroupsClientCreateOrUpdateResponse](t)(groups.CreateOrUpdate(ctx, "again", armresources.ResourceGroup{Location: new(location)}, nil))
	resources := must[*armresources.Client](t)(armresources.NewClient(b.subscription, b.credential, b.arm()))
	account := poll[armresources.ClientCreateOrUpdateByIDResponse](t)(resources.BeginCreateOrUpdateByID(ctx, b.id("Microsoft.Storage/storageAccounts/clientstaging"), "2023-05-01",
		armresources.GenericResource{Location: new(location), SKU: &armresources.SKU{Name: new("Standard_LRS")}, Kind: new("StorageV2")}, nil))
	c := restores.NewRestoresClientWithBaseURI(b.endpoint)
	b.autorest(&c.Client)
	if err := c.TriggerThenPoll(ctx, restores.RecoveryPointId(point), restores.RestoreRequestResource{Properties: restores.IaasVMRestoreRequest{ObjectType: "IaasVMRestoreRequest",
		RecoveryPointId: &point.RecoveryPointId, RecoveryType: pointer.To(restores.RecoveryTypeRestoreDisks), SourceResourceId: &b.vm, Region: pointer.To(location),
		StorageAccountId: account.ID, TargetResourceGroupId: target.ID}}, restores.DefaultTriggerOperationOptions()); err != nil {
		t.Fatal(err)
	}
	return *b.waitJob("Restore").ExtendedInfo.PropertyBag
}

// deploy creates the VM of the template that the restore left, and compares its disk with the one that was backed up.
func (b *backupStory) deploy(bag map[string]string) {
	t, ctx := b.t, b.t.Context()
	blobs := must[*azblob.Client](t)(azblob.NewClient("https://clientstaging.blob."+b.host, b.credential, &azblob.ClientOptions{ClientOptions: b.options}))
	download := must[azblob.DownloadStreamResponse](t)(blobs.DownloadStream(ctx, bag["Config Blob Container Name"], path.Base(bag["Template Blob Uri"]), nil))
	text := must[[]byte](t)(io.ReadAll(download.Body))
	_ = download.Body.Close()
	var template map[string]any
	if err := json.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	deployments := must[*armresources.DeploymentsClient](t)(armresources.NewDeploymentsClient(b.subscription, b.credential, b.arm()))
	deployed := poll[armresources.DeploymentsClientCreateOrUpdateResponse](t)(deployments.BeginCreateOrUpdate(ctx, "again", "again", armresources.Deployment{Properties: &armresources.DeploymentProperties{Template: template,
		Mode: new(armresources.DeploymentModeIncremental), Parameters: map[string]any{"VirtualMachineName": map[string]any{"value": "web2"}}}}, nil))
	if *deployed.Properties.ProvisioningState != armresources.ProvisioningStateSucceeded {
		t.Fatalf("the deployment ended as %s", *deployed.Properties.ProvisioningState)
	}
	vm := must[armcompute.VirtualMachinesClientGetResponse](t)(b.machines().Get(ctx, "again", "web2", nil))
	disk := path.Base(*vm.Properties.StorageProfile.OSDisk.ManagedDisk.ID)
	restored := ""
	for _, file := range must[[]string](t)(filepath.Glob(filepath.Join(b.data, "disks", "*", "*"))) {
		if filepath.Base(file) == disk+".raw" {
			restored = file
		}
	}
	if string(must[[]byte](t)(os.ReadFile(restored))) != string(must[[]byte](t)(os.ReadFile(b.image("web1-os")))) {
		t.Error("the restored disk differs from what was backed up")
	}
}

// leave stops protection, and deletes what there is for good.
func (b *backupStory) leave() {
	stopped := protecteditems.ProtectionStateProtectionStopped
	if err := b.items().CreateOrUpdateThenPoll(b.ctx(), b.item(), protecteditems.ProtectedItemResource{Properties: protecteditems.AzureIaaSComputeVMProtectedItem{
		ProtectionState: &stopped, SourceResourceId: &b.vm, ProtectedItemType: "Microsoft.Compute/virtualMachines"}}, protecteditems.DefaultCreateOrUpdateOperationOptions()); err != nil {
		b.t.Fatal(err)
	}
	if state := b.protection(); *state.ProtectionState != stopped {
		b.t.Errorf("the item is %+v", state)
	}
	must[protecteditems.DeleteOperationResponse](b.t)(b.items().Delete(b.ctx(), b.item()))
	b.waitJob("DeleteBackupData")
}

// poll waits for what an armX client has begun.
func poll[T any](t *testing.T) func(*runtime.Poller[T], error) T {
	return func(p *runtime.Poller[T], err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return must[T](t)(p.PollUntilDone(t.Context(), &runtime.PollUntilDoneOptions{Frequency: time.Second}))
	}
}

// makeVolume makes a LUKS volume with a file system in it.
func makeVolume(t *testing.T, file string) {
	t.Helper()
	for _, program := range []string{"mke2fs", "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("KLUIS_TEST_REQUIRE") == "" {
			skipped = true
			t.Skipf("%s is not installed; make test installs it", program)
		}
	}
	dir := t.TempDir()
	plain, secret := filepath.Join(dir, "plain"), filepath.Join(dir, "secret")
	for _, err := range []error{os.WriteFile(plain, make([]byte, 8<<20), 0o600), os.WriteFile(secret, []byte(passphrase), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range [][]string{{"mke2fs", "-q", "-F", plain},
		{"qemu-img", "convert", "--object", "secret,id=s,file=" + secret, "-f", "raw", "-O", "luks", "-o", "key-secret=s,iter-time=10", plain, file}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
}
