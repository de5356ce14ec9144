package recoveryservices

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
)

// Alerts are ours: Azure keeps them in another service. They lie under the type that Azure's roles allow
// readers of a vault to read.

type alertProperties struct {
	CreatedTime     string `json:"createdTime"`
	Severity        string `json:"severity"`
	ProtectedItemID string `json:"protectedItemId"`
	RecoveryPointID string `json:"recoveryPointId,omitempty"`
	JobID           string `json:"jobId,omitempty"`
	Code            string `json:"code"`
	Message         string `json:"message"`
	Recommendation  string `json:"recommendation"`
}

func encodeAlert(vault armid.ID, a backup.Alert) resource[alertProperties] {
	p := alertProperties{CreatedTime: azureTime(a.Time), Severity: string(a.Severity), ProtectedItemID: a.Item.String(), JobID: a.Job,
		Code: a.Code, Message: a.Message, Recommendation: a.Advice}
	if a.Point != "" {
		p.RecoveryPointID = a.Item.Child("recoveryPoints", a.Point).String()
	}
	return resource[alertProperties]{vault.Child("monitoringAlerts", a.ID).String(), a.ID, alerts, p}
}

// listAlerts lists a vault's alerts, newest first.
func (d *door) listAlerts(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vault := vaultOf(r.ID)
	all, err := d.s.Alerts(ctx, vault)
	if err != nil {
		return nil, err
	}
	bodies := make([]resource[alertProperties], len(all))
	for i, a := range all {
		bodies[i] = encodeAlert(vault, a)
	}
	return arm.List(r, bodies), nil
}
