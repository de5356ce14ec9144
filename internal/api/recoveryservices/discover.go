package recoveryservices

import (
	"context"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// Before protection: which VMs there are, and whether one can be protected.

// refresh looks for VMs in Azure. Here they are known as soon as they are registered, so the operation is
// over before it is asked for.
func (d *door) refresh(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := filterOf(r, "backupManagementType"); err != nil {
		return nil, err
	}
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return d.isOver(r), nil
}

// protectableID is what clients make container and item of.
func protectableID(vault, vm armid.ID) (id armid.ID, name string) {
	container := backup.ItemID(vault, vm).Parent()
	name = containerName(container.Name())
	return container.Child("protectableItems", "vm;"+name), name
}

func (d *door) listProtectable(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "backupManagementType", "workloadType", "containerName", "status", "friendlyName")
	if err != nil {
		return nil, err
	}
	machines, err := d.s.Protectable(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []resource[protectableItem]{}
	for _, m := range machines {
		id, name := protectableID(r.ID, m.ID)
		if f.is("backupManagementType", management) && f.is("workloadType", workload) && f.is("status", "NotProtected") &&
			f.is("containerName", name, id.Parent().Name()) && f.is("friendlyName", m.ID.Name()) {
			bodies = append(bodies, resource[protectableItem]{id.String(), name, containers + "/protectableItems", protectableItem{
				VirtualMachineID: m.ID.String(), VirtualMachineVersion: "Compute", ResourceGroup: m.ID.ResourceGroup, BackupManagementType: management,
				ProtectableItemType: vmType, FriendlyName: m.ID.Name(), ProtectionState: "NotProtected"}})
		}
	}
	return arm.List(r, bodies), nil
}

// listContainers: each protected VM is alone in its container.
func (d *door) listContainers(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	return d.containersOf(ctx, r, func(backup.Item) bool { return true })
}

// listDeletedContainers are those whose item can still be undeleted.
func (d *door) listDeletedContainers(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	return d.containersOf(ctx, r, backup.Item.SoftDeleted)
}

func (d *door) containersOf(ctx context.Context, r *arm.Request, meant func(backup.Item) bool) (*arm.Reply, error) {
	f, err := filterOf(r, "backupManagementType", "containerType", "backupEngineName", "fabricName", "status", "friendlyName")
	if err != nil {
		return nil, err
	}
	all, err := d.s.Items(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []resource[containerProperties]{}
	for _, i := range all {
		if meant(i) && f.is("backupManagementType", management) && f.is("friendlyName", i.VM.Name()) && f.is("status", "Registered") &&
			f.is("containerType", "IaasVMContainer", vmType) && f.is("fabricName", fabricName) && f.is("backupEngineName", "") {
			bodies = append(bodies, encodeContainer(i))
		}
	}
	return arm.List(r, bodies), nil
}

func (d *door) getContainer(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	i, err := d.s.Item(ctx, r.ID.Child("protectedItems", "VM;"+containerName(r.ID.Name())))
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeContainer(i)), nil
}

func encodeContainer(i backup.Item) resource[containerProperties] {
	id := i.ID.Parent()
	return resource[containerProperties]{id.String(), id.Name(), containers, containerProperties{
		VirtualMachineID: i.VM.String(), VirtualMachineVersion: "Compute", ResourceGroup: i.VM.ResourceGroup, FriendlyName: i.VM.Name(),
		BackupManagementType: management, RegistrationStatus: "Registered", HealthStatus: "Healthy",
		ContainerType: vmType, ProtectableObjectType: vmType}}
}

func decodeCheck(r *arm.Request) (body checkRequest, err error) {
	if err := r.Decode(&body); err != nil {
		return body, err
	}
	if body.ResourceID.IsZero() {
		return body, missing("resourceId", "the id of the virtual machine")
	}
	return body, nil
}

// checkedNames are those that a VM has or would have; Azure writes them in lower case here.
func checkedNames(vm armid.ID) (container, item string) {
	id := backup.ItemID(armid.ID{}, vm)
	return strings.ToLower(id.Parent().Name()), strings.ToLower(id.Name())
}

// backupStatus says whether and where a VM is protected.
func (d *door) backupStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := decodeCheck(r)
	if err != nil {
		return nil, err
	}
	answer := backupStatusBody{ProtectionStatus: "NotProtected", FabricName: fabricName}
	answer.ContainerName, answer.ProtectedItemName = checkedNames(body.ResourceID)
	i, err := d.s.ItemOf(ctx, body.ResourceID)
	if problem.KindOf(err) == problem.NotFound {
		return arm.OK(answer), nil
	}
	if err != nil {
		return nil, err
	}
	answer.ProtectionStatus, answer.VaultID, answer.RegistrationStatus, answer.ProtectedItemsCount = "Protected", i.Vault().String(), "Registered", 1
	if i.State == backup.ProtectionError {
		answer.ProtectionStatus = "ProtectionFailed"
		if i.Problem != nil {
			answer.ErrorCode, answer.ErrorMessage = i.Problem.Code, i.Problem.Message
		}
	}
	if !i.Policy.IsZero() {
		answer.PolicyName = i.Policy.Name()
	}
	return arm.OK(answer), nil
}

// preValidate is the notice before 'Enable backup': what is in the way, and what to do. Who may not ask
// gets no notice.
func (d *door) preValidate(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := decodeCheck(r)
	if err != nil {
		return nil, err
	}
	if body.VaultID.IsZero() {
		return nil, missing("vaultId", "the id of the Recovery Services vault")
	}
	answer := preValidateBody{Status: "Succeeded"}
	answer.ContainerName, answer.ProtectedItemName = checkedNames(body.ResourceID)
	if err := d.s.Check(ctx, body.VaultID, body.ResourceID); err != nil {
		p := problem.Of(err)
		if p == nil || p.Kind == problem.Internal || p.Kind == problem.Unauthenticated || p.Code == "AuthorizationFailed" {
			return nil, err
		}
		answer.Status, answer.ErrorCode, answer.ErrorMessage, answer.Recommendation = "Failed", p.Code, p.Message, p.Advice
	}
	return arm.OK(answer), nil
}

// validateFeatures: any VM can be protected, whatever its size.
func (d *door) validateFeatures(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	var body featureRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if !strings.EqualFold(body.FeatureType, "AzureVMResourceBackup") {
		return arm.OK(featureBody{"NotSupported"}), nil
	}
	return arm.OK(featureBody{"Supported"}), nil
}
