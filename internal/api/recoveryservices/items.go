package recoveryservices

import (
	"context"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

type resourceBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties any    `json:"properties"`
}

// never is what Azure says instead of a time at which nothing happened.
const never = "2001-01-01T00:00:00Z"

type itemProperties struct {
	FriendlyName         string         `json:"friendlyName"`
	VirtualMachineID     string         `json:"virtualMachineId"`
	ProtectionStatus     string         `json:"protectionStatus"`
	ProtectionState      string         `json:"protectionState"`
	HealthStatus         string         `json:"healthStatus"`
	HealthDetails        []healthDetail `json:"healthDetails,omitempty"`
	LastBackupStatus     string         `json:"lastBackupStatus"`
	LastBackupTime       string         `json:"lastBackupTime"`
	LastRecoveryPoint    string         `json:"lastRecoveryPoint,omitempty"`
	ProtectedItemDataID  string         `json:"protectedItemDataId"`
	ProtectedItemType    string         `json:"protectedItemType"`
	BackupManagementType string         `json:"backupManagementType"`
	WorkloadType         string         `json:"workloadType"`
	ContainerName        string         `json:"containerName"`
	SourceResourceID     string         `json:"sourceResourceId"`
	PolicyID             string         `json:"policyId"`
	PolicyName           string         `json:"policyName"`
	VaultID              string         `json:"vaultId"`
	IsArchiveEnabled     bool           `json:"isArchiveEnabled"`
	ExtendedInfo         *itemExtended  `json:"extendedInfo,omitempty"`
}

type healthDetail struct {
	Code            int      `json:"code"`
	Title           string   `json:"title"`
	Message         string   `json:"message"`
	Recommendations []string `json:"recommendations"`
}

type itemExtended struct {
	OldestRecoveryPoint string `json:"oldestRecoveryPoint,omitempty"`
	RecoveryPointCount  int    `json:"recoveryPointCount"`
	PolicyInconsistent  bool   `json:"policyInconsistent"`
}

func encodeItem(i backup.Item) resourceBody {
	container := i.ID.NameOf("protectionContainers")
	p := itemProperties{
		FriendlyName: i.VM.Name(), VirtualMachineID: i.VM.String(), ProtectionStatus: "Healthy", ProtectionState: string(i.State),
		HealthStatus: "Passed", LastBackupStatus: i.LastStatus, LastBackupTime: never, ProtectedItemDataID: digits(i.Created),
		ProtectedItemType: vmType, BackupManagementType: management, WorkloadType: "VM",
		ContainerName: container[strings.IndexByte(container, ';')+1:], SourceResourceID: i.VM.String(), VaultID: i.Vault().String(),
	}
	if !i.Policy.IsZero() {
		p.PolicyID, p.PolicyName = i.Policy.String(), i.Policy.Name()
	}
	if !i.LastBackup.IsZero() {
		p.LastBackupTime = azureTime(i.LastBackup)
	}
	p.LastRecoveryPoint = i.LastPoint
	if i.Problem != nil {
		p.ProtectionStatus, p.HealthStatus = "Unhealthy", "ActionRequired"
		p.HealthDetails = []healthDetail{{errorNumber, i.Problem.Code, i.Problem.Message, []string{i.Problem.Advice}}}
	}
	return resourceBody{i.ID.String(), i.ID.Name(), items, p}
}

// digits is a number of 15 digits that stays the same for an item, as Azure gives one.
func digits(t time.Time) string { return t.UTC().Format("060102150405000") }

func (d *door) getItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	i, err := d.s.Item(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	body := encodeItem(i)
	if strings.EqualFold(r.Filter["expand"], "extendedinfo") {
		all, err := d.s.Points(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		p := body.Properties.(itemProperties)
		p.ExtendedInfo = &itemExtended{RecoveryPointCount: len(all)}
		if len(all) > 0 {
			p.ExtendedInfo.OldestRecoveryPoint = azureTime(all[len(all)-1].Time)
		}
		body.Properties = p
	}
	return arm.OK(body), nil
}

func (d *door) listItems(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := d.s.Items(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	bodies := []resourceBody{}
	for _, i := range all {
		body := encodeItem(i)
		p := body.Properties.(itemProperties)
		if matches(r.Filter, "backupManagementType", management) && matches(r.Filter, "itemType", "VM") &&
			matches(r.Filter, "policyName", p.PolicyName) && matches(r.Filter, "friendlyName", p.FriendlyName) &&
			matches(r.Filter, "containerName", p.ContainerName) && matches(r.Filter, "healthState", p.HealthStatus) {
			bodies = append(bodies, body)
		}
	}
	return arm.List(r, bodies), nil
}

// itemRequest is what a client says of an item: protect it by a policy, or stop.
type itemRequest struct {
	Properties struct {
		ProtectedItemType  string   `json:"protectedItemType"`
		SourceResourceID   armid.ID `json:"sourceResourceId"`
		PolicyID           string   `json:"policyId"`
		ProtectionState    string   `json:"protectionState"`
		ExtendedProperties *struct {
			Exclusion *struct{} `json:"diskExclusionProperties"`
		} `json:"extendedProperties"`
	} `json:"properties"`
}

func (d *door) putItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body itemRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	p := body.Properties
	if p.ExtendedProperties != nil && p.ExtendedProperties.Exclusion != nil {
		return nil, problem.New(problem.Unsupported, "UserErrorEncryptedVmNotSupportedWithDiskEx", "Disks of an encrypted virtual machine cannot be left out of its backup.").
			WithAdvice("Leave diskExclusionProperties out.")
	}
	switch {
	case p.PolicyID != "":
		policy, err := armid.Parse(p.PolicyID)
		if err != nil {
			return nil, problem.New(problem.Invalid, "InvalidParameter", "policyId is not a resource id.").WithTarget("properties.policyId").
				WithAdvice("Give the id of one of the vault's policies.").WithCause(err)
		}
		i, j, err := d.s.Protect(ctx, r.ID, p.SourceResourceID, policy)
		if err != nil {
			return nil, err
		}
		return d.started(r, i.ID, j), nil
	case strings.EqualFold(p.ProtectionState, string(backup.ProtectionStopped)):
		j, err := d.s.Stop(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		return d.started(r, r.ID, j), nil
	}
	return nil, problem.New(problem.Invalid, "BMSUserErrorInvalidRequest", "The request neither names a policy nor stops protection.").
		WithAdvice("Send policyId to protect the virtual machine, or protectionState ProtectionStopped to stop.")
}

func (d *door) deleteItem(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Delete(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	vault := vaultOf(r.ID)
	return arm.Accepted(r.URL(vault.Child("backupOperations", j.ID).String()), r.URL(vault.Child("backupOperationResults", j.ID).String())), nil
}

// backUp starts a backup on demand.
func (d *door) backUp(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Properties struct {
			ObjectType string    `json:"objectType"`
			Expiry     time.Time `json:"recoveryPointExpiryTimeInUTC"`
		} `json:"properties"`
	}
	if r.HTTP.ContentLength != 0 {
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
	}
	j, err := d.s.BackUp(ctx, r.ID, body.Properties.Expiry)
	if err != nil {
		return nil, err
	}
	return d.started(r, r.ID, j), nil
}

func (d *door) refresh(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return arm.Accepted("", r.URL(r.ID.Child("operationResults", d.o.NewID()).String())), nil
}

// refreshed: there is nothing to wait for, since VMs are known as soon as they are registered.
func (d *door) refreshed(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

func (d *door) listProtectable(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vault := vaultOf(r.ID)
	machines, err := d.s.Protectable(ctx, vault)
	if err != nil {
		return nil, err
	}
	bodies := []resourceBody{}
	for _, m := range machines {
		if !matches(r.Filter, "backupManagementType", management) || !matches(r.Filter, "friendlyName", m.ID.Name()) {
			continue
		}
		container := backup.ItemID(vault, m.ID).Parent()
		name := strings.TrimPrefix(container.Name(), "IaasVMContainer;")
		bodies = append(bodies, resourceBody{container.Child("protectableItems", "vm;"+name).String(), name, containers + "/protectableItems", map[string]string{
			"virtualMachineId": m.ID.String(), "virtualMachineVersion": "Compute", "resourceGroup": m.ID.ResourceGroup,
			"backupManagementType": management, "protectableItemType": vmType, "friendlyName": m.ID.Name(), "protectionState": "NotProtected"}})
	}
	return arm.List(r, bodies), nil
}

func (d *door) listContainers(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := d.s.Items(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	bodies := []resourceBody{}
	for _, i := range all {
		if !matches(r.Filter, "backupManagementType", management) || !matches(r.Filter, "friendlyName", i.VM.Name()) || !matches(r.Filter, "status", "Registered") {
			continue
		}
		container := i.ID.Parent()
		bodies = append(bodies, resourceBody{container.String(), container.Name(), containers, map[string]string{
			"virtualMachineId": i.VM.String(), "virtualMachineVersion": "Compute", "resourceGroup": i.VM.ResourceGroup, "friendlyName": i.VM.Name(),
			"backupManagementType": management, "registrationStatus": "Registered", "healthStatus": "Healthy",
			"containerType": vmType, "protectableObjectType": vmType}})
	}
	return arm.List(r, bodies), nil
}

// checkRequest asks about a VM at a location.
type checkRequest struct {
	ResourceType string   `json:"resourceType"`
	ResourceID   armid.ID `json:"resourceId"`
	VaultID      armid.ID `json:"vaultId"`
}

// backupStatus says whether and where a VM is protected.
func (d *door) backupStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body checkRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	names := backup.ItemID(armid.ID{}, body.ResourceID)
	answer := map[string]any{"protectionStatus": "NotProtected", "fabricName": "Azure", "protectedItemsCount": 0,
		"containerName": names.Parent().Name(), "protectedItemName": names.Name(), "acquireStorageAccountLock": "NotApplicable"}
	i, err := d.s.ItemOf(ctx, body.ResourceID)
	switch {
	case problem.KindOf(err) == problem.NotFound:
	case err != nil:
		return nil, err
	default:
		answer["protectionStatus"], answer["vaultId"], answer["registrationStatus"] = "Protected", i.Vault().String(), "Registered"
		answer["protectedItemsCount"] = 1
		if i.State == backup.ProtectionError {
			answer["protectionStatus"] = "ProtectionFailed"
		}
		if !i.Policy.IsZero() {
			answer["policyName"] = i.Policy.Name()
		}
	}
	return arm.OK(answer), nil
}

// preValidate is the notice before 'Enable backup': what is in the way, and what to do.
func (d *door) preValidate(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body checkRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	names := backup.ItemID(armid.ID{}, body.ResourceID)
	answer := map[string]string{"status": "Succeeded", "containerName": names.Parent().Name(), "protectedItemName": names.Name()}
	if err := d.s.Check(ctx, body.VaultID, body.ResourceID); err != nil {
		p := problem.Of(err)
		if p == nil || p.Kind == problem.Unauthenticated || p.Code == "AuthorizationFailed" {
			return nil, err
		}
		answer["status"], answer["errorCode"], answer["errorMessage"], answer["recommendation"] = "Failed", p.Code, p.Message, p.Advice
	}
	return arm.OK(answer), nil
}

func (d *door) validateFeatures(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		FeatureType string `json:"featureType"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	support := "NotSupported"
	if body.FeatureType == "AzureVMResourceBackup" {
		support = "Supported"
	}
	return arm.OK(map[string]string{"supportStatus": support}), nil
}
