package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// AuditEvent is one use of a key or a secret, as it stands in the server's log. Raw is the entry as the server sent it.
type AuditEvent struct {
	Time            string          `json:"time"`
	OperationName   string          `json:"operationName"`
	ResultSignature string          `json:"resultSignature"`
	Identity        AuditIdentity   `json:"identity"`
	Properties      AuditProperties `json:"properties"`
	Raw             json.RawMessage `json:"-"`
}

// AuditIdentity is who did it, by the claims of the token.
type AuditIdentity struct {
	Claim map[string]string `json:"claim"`
}

// AuditProperties say to what it was done, and where in the log the entry stands.
type AuditProperties struct {
	ID       string `json:"id"`
	Vault    string `json:"vault"`
	Sequence int64  `json:"sequence"`
}

// UnmarshalJSON reads the entry and keeps it in Raw.
func (e *AuditEvent) UnmarshalJSON(data []byte) error {
	type plain AuditEvent
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	e.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// AuditReport is what the server found when it checked its log. Head is to be noted: given to a later check, it finds
// a log that was put back.
type AuditReport struct {
	Intact    bool           `json:"intact"`
	Entries   int64          `json:"entries"`
	Unchained int64          `json:"unchained"`
	Head      string         `json:"head"`
	Findings  []AuditFinding `json:"findings"`
}

// AuditFinding is something that is wrong at a place of the log.
type AuditFinding struct {
	Sequence int64  `json:"sequence"`
	What     string `json:"what"`
}

// AuditEvents lists the log after an entry.
func (c *Client) AuditEvents(ctx context.Context, after int64) ([]AuditEvent, error) {
	query := url.Values{"after": {strconv.FormatInt(after, 10)}}
	return list[AuditEvent](ctx, c, c.armPipeline(), c.armURL(collection(c.Subscription(), "Microsoft.KeyVault/auditEvents"), versionKeyVault, query))
}

// VerifyAudit lets the server check its log. head is one from an earlier report, or empty.
func (c *Client) VerifyAudit(ctx context.Context, head string) (AuditReport, error) {
	var r AuditReport
	err := c.do(ctx, http.MethodPost, collection(c.Subscription(), "Microsoft.KeyVault")+"/verifyAudit", versionKeyVault, map[string]string{"head": head}, &r)
	return r, err
}
