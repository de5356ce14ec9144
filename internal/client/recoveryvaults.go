package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"kluis/internal/armid"
)

// RecoveryVault is a Recovery Services vault: it owns policies, protected items and recovery points.
type RecoveryVault = Resource[RecoveryVaultProperties]

// RecoveryVaultProperties are the settings of a Recovery Services vault that we read and write.
type RecoveryVaultProperties struct {
	ProvisioningState   string               `json:"provisioningState,omitempty"`
	PublicNetworkAccess string               `json:"publicNetworkAccess,omitempty"`
	Redundancy          *RedundancySettings  `json:"redundancySettings,omitempty"`
	Security            *VaultSecurityDigest `json:"securitySettings,omitempty"`
}

// RedundancySettings says how the vault's storage is replicated.
type RedundancySettings struct {
	StandardTierStorageRedundancy string `json:"standardTierStorageRedundancy"`
}

// VaultSecurityDigest is the part of a vault's security settings that tables show.
type VaultSecurityDigest struct {
	SoftDelete *SoftDeleteSettings `json:"softDeleteSettings,omitempty"`
}

// SoftDeleteSettings say what becomes of recovery points that are deleted.
type SoftDeleteSettings struct {
	State string `json:"softDeleteState,omitempty"` // Enabled, Disabled, AlwaysON
	Days  int    `json:"softDeleteRetentionPeriodInDays,omitempty"`
}

const typeRecoveryVault = "Microsoft.RecoveryServices/vaults"

// RecoveryVaultID is the id of a Recovery Services vault.
func (c *Client) RecoveryVaultID(group, name string) armid.ID {
	return c.ResourceID(group, typeRecoveryVault, name)
}

// PutRecoveryVault creates a Recovery Services vault. Redundancy is LocallyRedundant, GeoRedundant or
// ZoneRedundant; empty leaves it to the server.
func (c *Client) PutRecoveryVault(ctx context.Context, id armid.ID, location, redundancy string) (RecoveryVault, error) {
	v := RecoveryVault{Location: location, SKU: &SKU{Name: "Standard"}}
	v.Properties.PublicNetworkAccess = "Enabled"
	if redundancy != "" {
		v.Properties.Redundancy = &RedundancySettings{redundancy}
	}
	return putResource(ctx, c, id, versionBackup, v)
}

// UpdateRecoveryVault changes what is given of a Recovery Services vault: redundancy if it is not empty, soft delete if it is
// not nil.
func (c *Client) UpdateRecoveryVault(ctx context.Context, id armid.ID, redundancy string, soft *SoftDeleteSettings) (RecoveryVault, error) {
	var p RecoveryVaultProperties
	if redundancy != "" {
		p.Redundancy = &RedundancySettings{redundancy}
	}
	if soft != nil {
		p.Security = &VaultSecurityDigest{SoftDelete: soft}
	}
	if err := c.do(ctx, http.MethodPatch, id.String(), versionBackup, map[string]any{"properties": p}, nil); err != nil {
		return RecoveryVault{}, err
	}
	return c.RecoveryVault(ctx, id)
}

// RecoveryVault reads a Recovery Services vault.
func (c *Client) RecoveryVault(ctx context.Context, id armid.ID) (RecoveryVault, error) {
	return getResource[RecoveryVaultProperties](ctx, c, id, versionBackup)
}

// RecoveryVaults lists the Recovery Services vaults of a scope.
func (c *Client) RecoveryVaults(ctx context.Context, scope armid.ID) ([]RecoveryVault, error) {
	return listResources[RecoveryVaultProperties](ctx, c, collection(scope, typeRecoveryVault), versionBackup, "")
}

// DeleteRecoveryVault deletes a Recovery Services vault that protects nothing any more.
func (c *Client) DeleteRecoveryVault(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionBackup)
}

// Policy is a backup policy: when, and how long.
type Policy = Resource[PolicyProperties]

// PolicyProperties are the settings of a policy for VMs.
type PolicyProperties struct {
	BackupManagementType          string          `json:"backupManagementType"`
	PolicyType                    string          `json:"policyType,omitempty"`
	InstantRPDetails              json.RawMessage `json:"instantRPDetails,omitempty"`
	SchedulePolicy                SchedulePolicy  `json:"schedulePolicy"`
	RetentionPolicy               RetentionPolicy `json:"retentionPolicy"`
	InstantRpRetentionRangeInDays int             `json:"instantRpRetentionRangeInDays,omitempty"`
	TimeZone                      string          `json:"timeZone,omitempty"`
	ProtectedItemsCount           int             `json:"protectedItemsCount,omitempty"`
}

// SchedulePolicy says when backups run; of the times only hour and minute count.
type SchedulePolicy struct {
	Type         string   `json:"schedulePolicyType"`
	RunFrequency string   `json:"scheduleRunFrequency,omitempty"`
	RunDays      []string `json:"scheduleRunDays,omitempty"`
	RunTimes     []string `json:"scheduleRunTimes,omitempty"`

	// Those of an enhanced policy.
	Hourly *HourlySchedule `json:"hourlySchedule,omitempty"`
	Daily  *RunSchedule    `json:"dailySchedule,omitempty"`
	Weekly *RunSchedule    `json:"weeklySchedule,omitempty"`
}

// HourlySchedule runs every few hours of a window.
type HourlySchedule struct {
	Interval int    `json:"interval"`
	Start    string `json:"scheduleWindowStartTime"`
	Window   int    `json:"scheduleWindowDuration"`
}

// RunSchedule names days and times.
type RunSchedule struct {
	Days  []string `json:"scheduleRunDays,omitempty"`
	Times []string `json:"scheduleRunTimes,omitempty"`
}

// RetentionPolicy says how long recovery points are kept.
type RetentionPolicy struct {
	Type   string             `json:"retentionPolicyType"`
	Daily  *RetentionSchedule `json:"dailySchedule,omitempty"`
	Weekly *RetentionSchedule `json:"weeklySchedule,omitempty"`
}

// RetentionSchedule is one line of a retention policy.
type RetentionSchedule struct {
	DaysOfTheWeek []string          `json:"daysOfTheWeek,omitempty"`
	Times         []string          `json:"retentionTimes,omitempty"`
	Duration      RetentionDuration `json:"retentionDuration"`
}

// RetentionDuration is a number of Days, Weeks, Months or Years.
type RetentionDuration struct {
	Count int    `json:"count"`
	Type  string `json:"durationType"`
}

// DailyPolicy makes the settings of a policy that runs every day at a time of day ("22:00") in a time zone ("" is UTC) and
// keeps what it made for a number of days.
func DailyPolicy(timeOfDay, timeZone string, days int) PolicyProperties {
	at := []string{"2026-01-01T" + timeOfDay + ":00Z"}
	return PolicyProperties{
		BackupManagementType: "AzureIaasVM",
		SchedulePolicy:       SchedulePolicy{Type: "SimpleSchedulePolicy", RunFrequency: "Daily", RunTimes: at},
		RetentionPolicy: RetentionPolicy{Type: "LongTermRetentionPolicy", Daily: &RetentionSchedule{
			Times: at, Duration: RetentionDuration{days, "Days"},
		}},
		InstantRpRetentionRangeInDays: 2,
		TimeZone:                      cmp.Or(timeZone, "UTC"),
	}
}

const typePolicy = "backupPolicies"

// PutPolicy creates or changes a policy of a vault.
func (c *Client) PutPolicy(ctx context.Context, vault armid.ID, name string, p PolicyProperties) (Policy, error) {
	return putResource(ctx, c, vault.Child(typePolicy, name), versionBackup, Policy{Properties: p})
}

// PutPolicyDocument creates or changes a policy as a document says that has Azure's form: what Policy has read, or the
// properties alone.
func (c *Client) PutPolicyDocument(ctx context.Context, vault armid.ID, name string, document json.RawMessage) (Policy, error) {
	var whole struct {
		Properties json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(document, &whole); err != nil {
		return Policy{}, fmt.Errorf("the policy is not a JSON document: %w", err)
	}
	if whole.Properties == nil {
		whole.Properties = document
	}
	id := vault.Child(typePolicy, name)
	if err := c.do(ctx, http.MethodPut, id.String(), versionBackup, whole, nil); err != nil {
		return Policy{}, err
	}
	return c.Policy(ctx, vault, name)
}

// Policy reads a policy.
func (c *Client) Policy(ctx context.Context, vault armid.ID, name string) (Policy, error) {
	return getResource[PolicyProperties](ctx, c, vault.Child(typePolicy, name), versionBackup)
}

// Policies lists the policies of a vault that are for VMs.
func (c *Client) Policies(ctx context.Context, vault armid.ID) ([]Policy, error) {
	return listResources[PolicyProperties](ctx, c, vault.String()+"/"+typePolicy, versionBackup, forVMs)
}

// DeletePolicy deletes a policy that protects nothing.
func (c *Client) DeletePolicy(ctx context.Context, vault armid.ID, name string) error {
	return c.delete(ctx, vault.Child(typePolicy, name), versionBackup)
}
