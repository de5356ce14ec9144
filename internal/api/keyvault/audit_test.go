package keyvault_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

const provider = subscription + "/providers/Microsoft.KeyVault"

func TestAuditEvents(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := serve(t, db)
		s.putVault("kv-one")
		set := s.data("PUT", "kv-one", "/secrets/s", map[string]any{"value": "hush-hush"})
		s.data("GET", "kv-one", "/secrets/none", nil)
		got := s.manage("GET", provider+"/auditEvents", nil)
		events, _ := got.at("value").([]any)
		if len(events) != 2 || strings.Contains(got.raw, "hush-hush") {
			t.Fatalf("the log is %s", got.raw)
		}
		first, second := answer{body: events[0].(map[string]any)}, answer{body: events[1].(map[string]any)}
		for path, value := range map[string]any{"operationName": "SecretSet", "category": "AuditEvent", "resultType": "Success", "properties.id": set.at("id"),
			"resourceId": strings.ToUpper(vaults + "kv-one"), "properties.sequence": float64(1), "identity.claim.appid": owner.AppID} {
			if first.at(path) != value {
				t.Errorf("%s is %v, want %v", path, first.at(path), value)
			}
		}
		if id, _ := first.at("correlationId").(string); id != set.header.Get("X-Ms-Request-Id") {
			t.Errorf("the correlation id is %q, the request had %q", id, set.header.Get("X-Ms-Request-Id"))
		}
		if second.at("resultType") != "Failed" || second.at("resultSignature") != "SecretNotFound" {
			t.Errorf("the refusal is %v", second.body)
		}

		report := s.manage("POST", provider+"/verifyAudit", nil)
		want(t, report, 200, "intact", true, "entries", float64(2))
		want(t, s.manage("POST", provider+"/verifyAudit", map[string]any{"head": report.at("head")}), 200, "intact", true)
		want(t, s.manage("POST", provider+"/verifyAudit", map[string]any{"head": "2:" + strings.Repeat("0", 64)}), 200, "intact", false)
		want(t, s.manage("POST", provider+"/verifyAudit", map[string]any{"head": "nonsense"}), 400, "error.code", "BadParameter")
		err := db.InTx(t.Context(), func(tx *database.Tx) error {
			_, err := tx.ExecContext(t.Context(), `DELETE FROM keyvault_uses WHERE seq = 1`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want(t, s.manage("POST", provider+"/verifyAudit", nil), 200, "intact", false)
	})
}

func TestAuditEventsAreReadPageByPage(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	const uses = 620
	token := "https://" + s.suffix
	for n := range uses {
		s.send("GET", fmt.Sprintf("https://kv-one.%s/secrets/s%d?api-version=7.4", s.suffix, n), token, nil)
	}
	seen, pages := 0, 0
	for url := "https://localhost" + provider + "/auditEvents?api-version=2023-07-01"; url != ""; pages++ {
		page := s.send("GET", url, "arm", nil)
		want(t, page, http.StatusOK)
		for _, e := range page.at("value").([]any) {
			seen++
			if n := e.(map[string]any)["properties"].(map[string]any)["sequence"]; n != float64(seen) {
				t.Fatalf("entry %d has the sequence %v", seen, n)
			}
		}
		url, _ = page.at("nextLink").(string)
	}
	if seen != uses || pages != 2 {
		t.Errorf("%d entries on %d pages", seen, pages)
	}
}
