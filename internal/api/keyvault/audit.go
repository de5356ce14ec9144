package keyvault

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/keyvault"
	"kluis/internal/keyvault/audit"
)

// The log of uses, in the shape in which Azure exports a key vault's diagnostic logs: one AuditEvent an entry. The
// paths are ours; Azure has none for it.

type auditEvent struct {
	Time            string          `json:"time"`
	ResourceID      string          `json:"resourceId"`
	OperationName   string          `json:"operationName"`
	Category        string          `json:"category"`
	ResultType      string          `json:"resultType"`
	ResultSignature string          `json:"resultSignature"`
	CorrelationID   string          `json:"correlationId"`
	Identity        auditIdentity   `json:"identity"`
	Properties      auditProperties `json:"properties"`
}

type auditIdentity struct {
	Claim map[string]string `json:"claim"`
}

type auditProperties struct {
	ID       string `json:"id,omitempty"` // URL of the key or secret
	Vault    string `json:"vault"`
	Sequence int64  `json:"sequence"`
	Hash     string `json:"hash"` // of the chain up to this entry
}

// objectIDClaim is the name under which Azure's logs give a caller's object id.
const objectIDClaim = "http://schemas.microsoft.com/identity/claims/objectidentifier"

func (h management) auditEvent(e keyvault.Event) auditEvent {
	out := auditEvent{
		Time: e.At.UTC().Format("2006-01-02T15:04:05.0000000Z"), OperationName: e.Operation, Category: "AuditEvent",
		ResultType: "Success", ResultSignature: "OK", CorrelationID: e.Correlation,
		Identity:   auditIdentity{map[string]string{objectIDClaim: e.Principal.ObjectID, "appid": e.Principal.AppID, "tid": e.Principal.TenantID}},
		Properties: auditProperties{Vault: e.Vault, Sequence: e.Seq, Hash: e.Hash},
	}
	if e.VaultID.Subscription != "" {
		out.ResourceID = strings.ToUpper(e.VaultID.String())
	}
	if e.Result != out.ResultType {
		out.ResultType, out.ResultSignature = "Failed", e.Result
	}
	switch {
	case e.Name == "":
	case e.Kind == string(keyvault.Secrets):
		out.Properties.ID = h.s.SecretURL(keyvault.SecretID{Vault: e.Vault, Name: e.Name, Version: e.Version})
	default:
		out.Properties.ID = h.s.KeyURL(keyvault.KeyID{Vault: e.Vault, Name: e.Name, Version: e.Version})
	}
	return out
}

const auditPage = 500

// listAudit is GET {subscription}/providers/Microsoft.KeyVault/auditEvents, with after=N for what comes after entry N.
func (h management) listAudit(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var after int64
	if s := r.Query.Get("after"); s != "" {
		var err error
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return nil, badParameter("after", "it is not the sequence of an entry")
		}
	}
	events, err := h.s.Audit(ctx, r.ID, after, auditPage)
	if err != nil {
		return nil, err
	}
	page := arm.Page[auditEvent]{Value: make([]auditEvent, len(events))}
	for i, e := range events {
		page.Value[i] = h.auditEvent(e)
	}
	if len(events) == auditPage {
		last := strconv.FormatInt(events[len(events)-1].Seq, 10)
		page.NextLink = r.URL(r.ID.String()+"/providers/Microsoft.KeyVault/auditEvents", "after", last)
	}
	return answer(arm.OK(page)), nil
}

type verifyBody struct {
	Intact    bool            `json:"intact"`
	Entries   int64           `json:"entries"`
	Unchained int64           `json:"unchained"`
	Head      string          `json:"head"` // to be noted, and given the next time
	Findings  []audit.Finding `json:"findings"`
}

// verifyAudit is POST {subscription}/providers/Microsoft.KeyVault/verifyAudit, with {"head"} noted earlier or without.
func (h management) verifyAudit(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Head string `json:"head"`
	}
	if r.HTTP.ContentLength != 0 {
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
	}
	report, err := h.s.VerifyAudit(ctx, r.ID.Scope(), body.Head)
	if err != nil {
		return nil, err
	}
	return &arm.Reply{Status: http.StatusOK, Body: verifyBody{len(report.Findings) == 0, report.Entries, report.Unchained, report.Head.String(),
		append([]audit.Finding{}, report.Findings...)}}, nil
}
