package client

import (
	"context"

	"kluis/internal/armid"
)

// Alert is something that somebody should look at: a backup that failed, a recovery point that does not open.
type Alert = Resource[AlertProperties]

// AlertProperties say what happened and what to do.
type AlertProperties struct {
	CreatedTime     string `json:"createdTime"`
	Severity        string `json:"severity"` // Critical or Warning
	ProtectedItemID string `json:"protectedItemId"`
	RecoveryPointID string `json:"recoveryPointId"`
	JobID           string `json:"jobId"`
	Code            string `json:"code"`
	Message         string `json:"message"`
	Recommendation  string `json:"recommendation"`
}

// Alerts lists the alerts of a vault, newest first.
func (c *Client) Alerts(ctx context.Context, vault armid.ID) ([]Alert, error) {
	return listResources[AlertProperties](ctx, c, vault.String()+"/monitoringAlerts", versionBackup, "")
}
