package recoveryservices

import (
	"encoding/json"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
)

// The JSON of Microsoft.RecoveryServices, in the order in which a person meets it. Answers first, then
// what of a request means something here. Policies are on the wire as the service keeps them.

// resource is the envelope of everything that has an id.
type resource[P any] struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties P      `json:"properties"`
}

type vaultBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Etag       string            `json:"etag"`
	SKU        sku               `json:"sku"`
	Identity   *vaultIdentity    `json:"identity,omitempty"`
	Properties vaultProperties   `json:"properties"`
}

type vaultIdentity struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId,omitempty"`
	TenantID    string `json:"tenantId,omitempty"`
}

type sku struct {
	Name string `json:"name"`
	Tier string `json:"tier,omitempty"`
}

type vaultProperties struct {
	ProvisioningState    string             `json:"provisioningState"`
	EndpointForBackup    string             `json:"privateEndpointStateForBackup"`
	EndpointForRecovery  string             `json:"privateEndpointStateForSiteRecovery"`
	BackupStorageVersion string             `json:"backupStorageVersion"`
	PublicNetworkAccess  string             `json:"publicNetworkAccess"`
	Monitoring           json.RawMessage    `json:"monitoringSettings,omitempty"`
	Restore              json.RawMessage    `json:"restoreSettings"`
	Redundancy           redundancySettings `json:"redundancySettings"`
	Security             securitySettings   `json:"securitySettings"`
}

type redundancySettings struct {
	Standard    string `json:"standardTierStorageRedundancy"`
	CrossRegion string `json:"crossRegionRestore,omitempty"`
}

type securitySettings struct {
	Immutability immutability `json:"immutabilitySettings"`
	SoftDelete   softDelete   `json:"softDeleteSettings"`
	MultiUser    string       `json:"multiUserAuthorization"`
}

type immutability struct {
	State string `json:"state"`
}

type softDelete struct {
	State            string `json:"softDeleteState"`
	Days             int    `json:"softDeleteRetentionPeriodInDays"`
	EnhancedSecurity string `json:"enhancedSecurityState,omitempty"`
}

type vaultRequest struct {
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	SKU        sku               `json:"sku"`
	Identity   *vaultIdentity    `json:"identity"`
	Properties struct {
		PublicNetworkAccess string              `json:"publicNetworkAccess"`
		Monitoring          map[string]any      `json:"monitoringSettings"`
		Restore             map[string]any      `json:"restoreSettings"`
		Redundancy          *redundancySettings `json:"redundancySettings"`
		Security            securitySettings    `json:"securitySettings"`
		Encryption          map[string]any      `json:"encryption"`
	} `json:"properties"`
}

// vaultOperation says how a change of a vault came out.
type vaultOperation struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	StartTime string `json:"startTime"`
	EndTime   string `json:"endTime"`
}

// nameBody says whether a name is free.
type nameBody struct {
	Available bool   `json:"nameAvailable"`
	Reason    string `json:"reason,omitempty"`
	Message   string `json:"message,omitempty"`
}

// storageConfig is the older way to a vault's redundancy.
type storageConfig struct {
	Model       string `json:"storageModelType,omitempty"`
	Type        string `json:"storageType,omitempty"`
	Dedup       string `json:"dedupState,omitempty"`
	Xcool       string `json:"xcoolState,omitempty"`
	State       string `json:"storageTypeState,omitempty"`
	CrossRegion bool   `json:"crossRegionRestoreFlag"`
}

type storageConfigRequest struct {
	Properties storageConfig `json:"properties"`
}

// vaultConfig is the older way to a vault's soft delete.
type vaultConfig struct {
	EnhancedSecurity string `json:"enhancedSecurityState"`
	SoftDelete       string `json:"softDeleteFeatureState"`
	SoftDeleteDays   int    `json:"softDeleteRetentionPeriodInDays"`
	Editable         bool   `json:"isSoftDeleteFeatureStateEditable"`
}

type vaultConfigRequest struct {
	Properties vaultConfig `json:"properties"`
}

type encryptionConfig struct {
	SystemIdentity bool   `json:"useSystemAssignedIdentity"`
	AtRest         string `json:"encryptionAtRestType"`
	LastUpdate     string `json:"lastUpdateStatus"`
	Infrastructure string `json:"infrastructureEncryptionState"`
}

type usage struct {
	Unit    string    `json:"unit"`
	Current int       `json:"currentValue"`
	Limit   int       `json:"limit"` // -1 is none
	Name    usageName `json:"name"`
}

type usageName struct {
	Value     string `json:"value"`
	Localized string `json:"localizedValue"`
}

// policyRequest reads also what a policy may ask for and the service does not keep.
type policyRequest struct {
	Properties struct {
		backup.PolicyProperties
		SnapshotConsistency string `json:"snapshotConsistencyType"`
	} `json:"properties"`
}

// tiering is one entry of a policy's tieringPolicy.
type tiering struct {
	Mode string `json:"tieringMode"`
}

type protectableItem struct {
	VirtualMachineID      string `json:"virtualMachineId"`
	VirtualMachineVersion string `json:"virtualMachineVersion"`
	ResourceGroup         string `json:"resourceGroup"`
	BackupManagementType  string `json:"backupManagementType"`
	ProtectableItemType   string `json:"protectableItemType"`
	FriendlyName          string `json:"friendlyName"`
	ProtectionState       string `json:"protectionState"`
}

type containerProperties struct {
	VirtualMachineID      string `json:"virtualMachineId"`
	VirtualMachineVersion string `json:"virtualMachineVersion"`
	ResourceGroup         string `json:"resourceGroup"`
	FriendlyName          string `json:"friendlyName"`
	BackupManagementType  string `json:"backupManagementType"`
	RegistrationStatus    string `json:"registrationStatus"`
	HealthStatus          string `json:"healthStatus"`
	ContainerType         string `json:"containerType"`
	ProtectableObjectType string `json:"protectableObjectType"`
}

// checkRequest asks about a VM at a location.
type checkRequest struct {
	ResourceType string   `json:"resourceType"`
	ResourceID   armid.ID `json:"resourceId"`
	VaultID      armid.ID `json:"vaultId"`
}

type backupStatusBody struct {
	ProtectionStatus    string `json:"protectionStatus"`
	VaultID             string `json:"vaultId,omitempty"`
	FabricName          string `json:"fabricName"`
	ContainerName       string `json:"containerName"`
	ProtectedItemName   string `json:"protectedItemName"`
	ErrorCode           string `json:"errorCode,omitempty"`
	ErrorMessage        string `json:"errorMessage,omitempty"`
	PolicyName          string `json:"policyName,omitempty"`
	RegistrationStatus  string `json:"registrationStatus,omitempty"`
	ProtectedItemsCount int    `json:"protectedItemsCount"`
}

type preValidateBody struct {
	Status            string `json:"status"`
	ErrorCode         string `json:"errorCode,omitempty"`
	ErrorMessage      string `json:"errorMessage,omitempty"`
	Recommendation    string `json:"recommendation,omitempty"`
	ContainerName     string `json:"containerName"`
	ProtectedItemName string `json:"protectedItemName"`
}

type featureRequest struct {
	FeatureType string `json:"featureType"`
}

type featureBody struct {
	SupportStatus string `json:"supportStatus"`
}

type itemProperties struct {
	FriendlyName         string         `json:"friendlyName"`
	VirtualMachineID     string         `json:"virtualMachineId"`
	ProtectionStatus     string         `json:"protectionStatus"`
	ProtectionState      string         `json:"protectionState"`
	HealthStatus         string         `json:"healthStatus"`
	HealthDetails        []healthDetail `json:"healthDetails,omitempty"`
	LastBackupStatus     string         `json:"lastBackupStatus"`
	LastBackupTime       string         `json:"lastBackupTime"`
	LastRecoveryPoint    string         `json:"lastRecoveryPoint,omitempty"` // a time
	ProtectedItemDataID  string         `json:"protectedItemDataId"`
	ProtectedItemType    string         `json:"protectedItemType"`
	BackupManagementType string         `json:"backupManagementType"`
	WorkloadType         string         `json:"workloadType"`
	ContainerName        string         `json:"containerName"`
	SourceResourceID     string         `json:"sourceResourceId"`
	PolicyID             string         `json:"policyId"` // "" when protection is stopped
	PolicyName           string         `json:"policyName"`
	VaultID              string         `json:"vaultId"` // with the host before it, as Azure's
	DeletedAt            string         `json:"deferredDeleteTimeInUTC,omitempty"`
	SoftDeleted          bool           `json:"isScheduledForDeferredDelete,omitempty"`
	EraseIn              string         `json:"deferredDeleteTimeRemaining,omitempty"` // d.hh:mm:ss.fffffff
	EraseSoon            bool           `json:"isDeferredDeleteScheduleUpcoming,omitempty"`
	IsArchiveEnabled     bool           `json:"isArchiveEnabled"`
	SoftDeleteDays       int            `json:"softDeleteRetentionPeriodInDays"` // in the descriptions,
	SoftDeleteDaysSent   int            `json:"softDeleteRetentionPeriod"`       // and what Azure sends
	ExtendedInfo         *itemExtended  `json:"extendedInfo,omitempty"`
	Extended             *itemDisks     `json:"extendedProperties,omitempty"`

	Drift []backup.Drift `json:"kluisDrift,omitempty"` // disks whose bytes and settings disagree
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

// itemDisks is which disks of a VM are backed up; all of them where it says nothing.
type itemDisks struct {
	Exclusion *diskExclusion `json:"diskExclusionProperties,omitempty"`
}

type diskExclusion struct {
	Luns      []int `json:"diskLunList"`
	Inclusion bool  `json:"isInclusionList"`
}

// itemRequest is what a client says of an item: protect it by a policy, stop, or undelete.
type itemRequest struct {
	Properties struct {
		Type             string     `json:"protectedItemType"`
		SourceResourceID armid.ID   `json:"sourceResourceId"`
		PolicyID         string     `json:"policyId"`
		ProtectionState  string     `json:"protectionState"`
		IsRehydrate      bool       `json:"isRehydrate"`
		Extended         *itemDisks `json:"extendedProperties"` // nil leaves the selection of disks as it is
	} `json:"properties"`
}

type backupRequest struct {
	Properties struct {
		Expiry time.Time `json:"recoveryPointExpiryTimeInUTC"`
	} `json:"properties"`
}

// pointProperties is Azure's IaasVMRecoveryPoint, with what we add. The list leaves out keys and disks.
type pointProperties struct {
	ObjectType           string            `json:"objectType"`
	Type                 string            `json:"recoveryPointType"`
	Time                 string            `json:"recoveryPointTime"`
	AdditionalInfo       string            `json:"recoveryPointAdditionalInfo"`
	StorageType          string            `json:"sourceVMStorageType"`
	Encrypted            bool              `json:"isSourceVMEncrypted"`
	KeyAndSecret         *keyAndSecret     `json:"keyAndSecret,omitempty"`
	InstantSessionActive bool              `json:"isInstantIlrSessionActive"`
	Tiers                []tier            `json:"recoveryPointTierDetails"`
	Managed              bool              `json:"isManagedVirtualMachine"`
	VMSize               string            `json:"virtualMachineSize,omitempty"`
	OriginalAccount      bool              `json:"originalStorageAccountOption"`
	OSType               string            `json:"osType,omitempty"`
	Disks                diskConfiguration `json:"recoveryPointDiskConfiguration"`
	MoveReadiness        moveReadiness     `json:"recoveryPointMoveReadinessInfo"`
	SecurityType         string            `json:"securityType"`
	PrivateAccess        bool              `json:"isPrivateAccessEnabledOnAnyDisk"`
	Retention            retention         `json:"recoveryPointProperties"`

	Proof             any                `json:"kluisProof,omitempty"` // the verdict as it encodes itself
	BackedUp          []backup.PointDisk `json:"kluisDisks,omitempty"`
	KeysAndSecrets    []diskKeys         `json:"kluisKeysAndSecrets,omitempty"`
	ConsistencyReason string             `json:"kluisConsistencyReason,omitempty"`
	Drill             *drillBody         `json:"kluisDrill,omitempty"`
	FrozenMS          int64              `json:"kluisFrozenMilliseconds,omitempty"` // how long the guest's file systems stood still
}

type tier struct {
	Type   any `json:"type"` // a word, or a number
	Status any `json:"status"`
}

type retention struct {
	Expiry string `json:"expiryTime"`
}

type diskConfiguration struct {
	Included     int           `json:"numberOfDisksIncludedInBackup"`
	Attached     int           `json:"numberOfDisksAttachedToVm"`
	IncludedList []attachedLun `json:"includedDiskList"`
	ExcludedList []attachedLun `json:"excludedDiskList"`
}

type attachedLun struct {
	Lun  int    `json:"lun"` // -1 is the OS disk
	Name string `json:"name"`
}

type moveReadiness struct {
	Archived struct {
		Ready bool   `json:"isReadyForMove"`
		Info  string `json:"additionalInfo"`
	} `json:"ArchivedRP"`
}

// keyAndSecret is the pair of the OS disk as Azure shows it.
type keyAndSecret struct {
	KEK       kekDetails `json:"kekDetails"`
	BEK       bekDetails `json:"bekDetails"`
	Mechanism string     `json:"encryptionMechanism"`
}

type kekDetails struct {
	KeyURL     string `json:"keyUrl"`
	KeyVaultID string `json:"keyVaultId"`
	BackupData string `json:"keyBackupData"`
}

type bekDetails struct {
	SecretURL     string `json:"secretUrl"`
	SecretVaultID string `json:"secretVaultId"`
	SecretData    string `json:"secretData"`
}

// diskKeys is the pair of any disk. The data, decoded, are what the key vault's restore calls take.
type diskKeys struct {
	Disk             string `json:"disk"`
	SecretURL        string `json:"secretUrl"`
	SecretVaultID    string `json:"secretVaultId"`
	SecretBackupData string `json:"secretBackupData"`
	KeyURL           string `json:"keyUrl"`
	KeyVaultID       string `json:"keyVaultId"`
	KeyBackupData    string `json:"keyBackupData"`
	Outside          bool   `json:"outside,omitempty"` // the key vault is none of this server's
}

type restoredKeys struct {
	Value []restoredKey `json:"value"`
}

type restoredKey struct {
	Kind    string `json:"kind"` // keys or secrets
	URL     string `json:"url"`
	Existed bool   `json:"existed"`
}

// restoreRequest asks for a restore.
type restoreRequest struct {
	Properties restoreProperties `json:"properties"`
}

// restoreProperties is the part of Azure's IaasVMRestoreRequest that means something here.
type restoreProperties struct {
	PointID          string            `json:"recoveryPointId"`
	Type             string            `json:"recoveryType"`
	Source           armid.ID          `json:"sourceResourceId"`
	Region           string            `json:"region"`
	Zones            []string          `json:"zones"`
	TargetGroup      armid.ID          `json:"targetResourceGroupId"`
	StorageAccount   armid.ID          `json:"storageAccountId"`
	OriginalAccount  bool              `json:"originalStorageAccountOption"`
	Luns             []int             `json:"restoreDiskLunList"` // null is all, empty is the OS disk alone
	DiskEncryption   string            `json:"diskEncryptionSetId"`
	Encryption       encryptionDetails `json:"encryptionDetails"`
	IdentityBased    identityBased     `json:"identityBasedRestoreDetails"`
	SecuredVMDetails struct {
		OSDiskEncryption string `json:"securedVMOsDiskEncryptionSetId"`
	} `json:"securedVMDetails"`
	Rehydration struct {
		Duration string `json:"rehydrationRetentionDuration"`
	} `json:"recoveryPointRehydrationInfo"`
}

// validateRequest asks about a restore; the descriptions have it with and without an envelope.
type validateRequest struct {
	ObjectType string            `json:"objectType"`
	Restore    restoreProperties `json:"restoreRequest"`
	Properties *struct {
		ObjectType string            `json:"objectType"`
		Restore    restoreProperties `json:"restoreRequest"`
	} `json:"properties"`
}

type validationBody struct {
	Response struct {
		Results []validationResult `json:"validationResults"`
	} `json:"validateOperationResponse"`
}

type validationResult struct {
	Code            string   `json:"code"`
	Message         string   `json:"message"`
	Recommendations []string `json:"recommendations"`
}

type validationStatus struct {
	ObjectType string `json:"objectType"`
	validationBody
}

// identityBased is where a request names the storage account that says as whom it is written to.
type identityBased struct {
	StorageAccount armid.ID `json:"targetStorageAccountId"`
}

type encryptionDetails struct {
	Enabled   bool   `json:"encryptionEnabled"`
	KeyURL    string `json:"kekUrl"`
	SecretURL string `json:"secretKeyUrl"`
}

// exportBody says where the exported jobs can be read.
type exportBody struct {
	Headers   struct{}        `json:"headers"`
	Operation exportOperation `json:"operation"`
}

type exportOperation struct {
	ObjectType string `json:"objectType"`
	URL        string `json:"blobUrl"`
	SAS        string `json:"blobSasKey"`
	ExcelURL   string `json:"excelFileBlobUrl"`
	ExcelSAS   string `json:"excelFileBlobSasKey"`
}

// capabilities are asked for and answered in the same shape.
type capabilities struct {
	Type       string `json:"type"`
	Properties struct {
		Zones []dnsZone `json:"dnsZones"`
	} `json:"properties"`
}

type dnsZone struct {
	SubResource string   `json:"subResource"`
	Names       []string `json:"requiredZoneNames"`
}

// operationName is an operation of the provider, as roles name it.
type operationName struct {
	Name    string           `json:"name"`
	Display operationDisplay `json:"display"`
	Origin  string           `json:"origin"`
}

type operationDisplay struct {
	Provider    string `json:"provider"`
	Resource    string `json:"resource"`
	Operation   string `json:"operation"`
	Description string `json:"description"`
}

type jobProperties struct {
	JobType               string       `json:"jobType"`
	ActionsInfo           []any        `json:"actionsInfo,omitempty"` // words, or numbers
	ContainerName         string       `json:"containerName"`
	Duration              string       `json:"duration"`
	VirtualMachineVersion string       `json:"virtualMachineVersion"`
	ExtendedInfo          *jobExtended `json:"extendedInfo,omitempty"`
	EntityFriendlyName    string       `json:"entityFriendlyName"`
	BackupManagementType  string       `json:"backupManagementType"`
	Operation             string       `json:"operation"`
	Status                string       `json:"status"`
	StartTime             string       `json:"startTime"`
	EndTime               string       `json:"endTime,omitempty"`
	ActivityID            string       `json:"activityId"`
	IsUserTriggered       bool         `json:"isUserTriggered"`
	ErrorDetails          []jobError   `json:"errorDetails,omitempty"`
}

type jobError struct {
	Code            int      `json:"errorCode"`
	Title           string   `json:"errorTitle"`
	Message         string   `json:"errorString"`
	Recommendations []string `json:"recommendations"`
}

type jobExtended struct {
	Tasks      []jobTask         `json:"tasksList"`
	Bag        map[string]string `json:"propertyBag"`
	Internal   map[string]string `json:"internalPropertyBag,omitempty"`
	Percentage float64           `json:"progressPercentage"`
	Remaining  string            `json:"estimatedRemainingDuration,omitempty"`
	Message    string            `json:"dynamicErrorMessage"` // why it failed
}

type jobTask struct {
	ID        string `json:"taskId"`
	StartTime string `json:"startTime,omitempty"`
	EndTime   string `json:"endTime,omitempty"`
	Duration  string `json:"duration"`
	Status    string `json:"status"`
	Details   string `json:"taskExecutionDetails,omitempty"`
}

// operationBody is the status of an asynchronous operation.
type operationBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	StartTime  string `json:"startTime"`
	EndTime    string `json:"endTime"`
	Properties any    `json:"properties,omitempty"` // *operationJob or *operationMount
}

type operationJob struct {
	ObjectType string `json:"objectType"`
	JobID      string `json:"jobId"`
}

// mountRequest is Azure's request for item level recovery, with what we add. What it says of iSCSI means nothing here.
type mountRequest struct {
	Properties struct {
		PointID string   `json:"recoveryPointId"`
		Disks   []string `json:"kluisDisks"`   // names; none: all
		Decrypt bool     `json:"kluisDecrypt"` // serve what is encrypted opened
	} `json:"properties"`
}

type revokeRequest struct {
	Properties struct {
		Mount string `json:"kluisMount"` // none: all of the recovery point
	} `json:"properties"`
}

// operationMount is what the operation that mounts a recovery point tells.
type operationMount struct {
	ObjectType string         `json:"objectType"`
	Target     recoveryTarget `json:"recoveryTarget"`
	Mount      mountBody      `json:"kluisMount"`
}

type recoveryTarget struct {
	Scripts []clientScript `json:"clientScripts"`
}

type clientScript struct {
	Content   []byte `json:"scriptContent"` // base64
	Extension string `json:"scriptExtension"`
	OSType    string `json:"osType"`
	URL       string `json:"url"`
	Suffix    string `json:"scriptNameSuffix"`
}

// mountBody is what a client that speaks NBD itself needs.
type mountBody struct {
	ID          string        `json:"id"`
	Expiry      string        `json:"expiryTime"`
	Decrypted   bool          `json:"decrypted"`
	Address     string        `json:"address"`
	Authority   string        `json:"authority"`
	Certificate string        `json:"certificate"`
	Key         string        `json:"key"`
	Disks       []mountedDisk `json:"disks"`
}

type mountedDisk struct {
	Name       string `json:"name"`
	Partition  int    `json:"partition,omitempty"`
	Export     string `json:"export"`
	Size       int64  `json:"size"`
	Encryption string `json:"encryption,omitempty"` // that was opened
}
