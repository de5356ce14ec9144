package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/identity"
	"kluis/internal/resources"
)

// bodies are sent where a door must read a body before it can ask whether the caller may; elsewhere {} does. GROUP is the
// id of a resource group.
var bodies = map[string]string{
	"PUT Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems": `{"properties":{"protectedItemType":"Microsoft.Compute/virtualMachines",
		"policyId":"GROUP/providers/Microsoft.RecoveryServices/vaults/none/backupPolicies/none","sourceResourceId":"GROUP/providers/Microsoft.Compute/virtualMachines/none"}}`,
	"POST Microsoft.RecoveryServices/locations backupStatus": `{"resourceType":"VM","resourceId":"GROUP/providers/Microsoft.Compute/virtualMachines/none"}`,
	"POST Microsoft.RecoveryServices/locations backupPreValidateProtection": `{"resourceType":"VM","resourceId":"GROUP/providers/Microsoft.Compute/virtualMachines/none",
		"vaultId":"GROUP/providers/Microsoft.RecoveryServices/vaults/none"}`,
}

// open are the routes that need a token but no role: they show a caller what is his, or nothing.
var open = map[string]string{
	"LIST tenants":       "the tenant that the token names already",
	"LIST subscriptions": "those in which the caller has a role",
	"LIST Microsoft.RecoveryServices/operations": "what actions there are, the same everywhere",
}

// instead are actions that do as well: whoever sees resource groups sees the subscription that they are in.
var instead = map[string]string{"Microsoft.Resources/subscriptions/read": "Microsoft.Resources/subscriptions/resourceGroups/read"}

var refusal = regexp.MustCompile(`to perform action '([^']+)' over scope`)

// desk is a whole server, spoken to without a network.
type desk struct {
	*parts
	t *testing.T
}

// token makes a principal with a role for the subscription, or with none, and signs it in.
func (d desk) token(role string) string {
	d.t.Helper()
	p, secret, err := d.identity.CreatePrincipal(d.t.Context(), "has "+role)
	if err != nil {
		d.t.Fatal(err)
	}
	if role != "" {
		if err := d.identity.Assign(d.t.Context(), p.ObjectID, role, armid.Subscription(d.install.SubscriptionID)); err != nil {
			d.t.Fatal(err)
		}
	}
	token, err := d.identity.ClientCredentials(d.t.Context(), p.AppID, secret, d.base)
	if err != nil {
		d.t.Fatal(err)
	}
	return token.AccessToken
}

// answer is what a request came to; action is the one that was refused.
type answer struct {
	status       int
	code, action string
	empty        bool
}

func (d desk) ask(r arm.Route, token string) answer {
	d.t.Helper()
	body := bodies[name(r)]
	if body == "" {
		body = "{}"
	}
	body = strings.ReplaceAll(body, "GROUP", armid.Subscription(d.install.SubscriptionID).Group("prod").String())
	req := httptest.NewRequest(r.Method, d.base+d.path(r)+"?api-version="+r.Version, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	d.door.ServeHTTP(w, req)
	var v struct {
		Error struct{ Code, Message string }
		Value []json.RawMessage
	}
	_ = json.Unmarshal(w.Body.Bytes(), &v) // not every answer is an object
	a := answer{status: w.Code, code: v.Error.Code, empty: w.Code == http.StatusOK && len(v.Value) == 0}
	if m := refusal.FindStringSubmatch(v.Error.Message); w.Code == http.StatusForbidden && a.code == "AuthorizationFailed" && m != nil {
		a.action = m[1]
	}
	return a
}

func name(r arm.Route) string {
	method := r.Method
	if r.List {
		method = "LIST"
	}
	return strings.TrimSpace(method + " " + r.Type + " " + r.Action)
}

// path is an id of the type, of something that isn't there, so that nothing comes of what is allowed.
func (d desk) path(r arm.Route) string {
	sub := "/subscriptions/" + d.install.SubscriptionID
	segments := strings.Split(r.Type, "/")
	var path string
	switch {
	case r.Type == "tenants" || r.Type == "subscriptions" && r.List:
		return "/" + r.Type
	case r.Type == "subscriptions":
		path = sub
	case r.Type == "resourceGroups" && !r.List:
		path = sub + "/resourceGroups/none"
	case r.Type == "providers" && !r.List:
		path = sub + "/providers/Microsoft.Compute"
	case !strings.Contains(segments[0], "."):
		path = sub + "/" + r.Type
	default:
		path = sub + "/resourceGroups/prod/providers/" + segments[0]
		if len(segments) == 1 {
			path = sub + "/providers/" + segments[0]
		}
		for i, s := range segments[1:] {
			path += "/" + s
			if !r.List || i < len(segments)-2 {
				path += "/none"
			}
		}
	}
	if r.Action != "" {
		path += "/" + r.Action
	}
	return path
}

// Every route of Resource Manager, by nobody, by somebody without a role, and by the holder of each role: 401, 403
// AuthorizationFailed, and allowed exactly where the role has the action that the route asks for. The routes are those
// of the running server, so that a new one is in here by itself. With -artifacts the matrix is written down.
func TestAuthorizationMatrix(t *testing.T) {
	d := newDesk(t)
	stranger := d.token("")
	roles, tokens := identity.Roles(), map[string]string{}
	for _, role := range roles {
		tokens[role.Name] = d.token(role.Name)
	}
	slices.SortFunc(d.routes, func(a, b arm.Route) int { return strings.Compare(a.Type+name(a), b.Type+name(b)) })
	if len(d.routes) < 80 {
		t.Fatalf("there are only %d routes", len(d.routes))
	}
	var matrix strings.Builder
	for _, r := range d.routes {
		if a := d.ask(r, ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", name(r), a.status)
		}
		asked := d.ask(r, stranger)
		if asked.action == "" {
			if why := open[name(r)]; why == "" && !nothingForAnybody(asked, d.ask(r, tokens["Owner"])) {
				t.Errorf("%s needs no role: %+v (%s)", name(r), asked, d.path(r))
			}
			continue
		}
		var may []string
		for _, role := range roles {
			got := d.ask(r, tokens[role.Name])
			other := instead[asked.action]
			allowed := role.Allows(asked.action) || other != "" && role.Allows(other)
			if allowed {
				may = append(may, role.Name)
			}
			if allowed == (got.action == asked.action) || got.action != "" && role.Allows(got.action) || got.status == http.StatusInternalServerError {
				t.Errorf("%s by %s: %+v, and it needs %s", name(r), role.Name, got, asked.action)
			}
		}
		fmt.Fprintf(&matrix, "| %s | %s | %s |\n", name(r), asked.action, strings.Join(may, ", "))
	}
	text := "| operation | action | roles that have it |\n|---|---|---|\n" + matrix.String()
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "authorization.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nothingForAnybody: what is not done here is refused to all alike, and what can't be there is absent, or a list of
// none, for all alike.
func nothingForAnybody(stranger, owner answer) bool {
	same := stranger.status == owner.status && stranger.code == owner.code
	return same && (strings.HasSuffix(stranger.code, "NotSupported") || stranger.status == http.StatusNotFound || stranger.empty)
}

func newDesk(t *testing.T) desk {
	t.Helper()
	c := defaults()
	c.Data = t.TempDir()
	c.Requests, c.Export = 0, exportNothing
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.bind(flags)
	if err := c.resolve(flags, "", func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	p, err := build(t.Context(), c, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	d := desk{parts: p, t: t}
	admin, _, _, err := p.identity.Bootstrap(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.resources.PutGroup(identity.With(t.Context(), admin), resources.Group{Name: "prod", Location: "westeurope"}); err != nil {
		t.Fatal(err)
	}
	return d
}
