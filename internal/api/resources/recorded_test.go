package resources_test

import (
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

// What the real service sent about groups and deployments is in our answers, too. The recorded deployment makes a VM of an
// image of Azure's marketplace, which nobody has here: its answer is compared with that of another template, with a
// secure parameter, and resources that need others.
func TestAnswersCoverTheRecordedOnes(t *testing.T) {
	d := open(t, sqlite(t))
	const groupBody = `{"location":"westeurope","tags":{"product":"p","cause":"c","test":"t","date":"d","module":"m"}}`
	d.want(200, "", d.send("PUT", group, groupBody))
	second := strings.Replace(network("second"), `"name":`, `"dependsOn":["first"],"name":`, 1)
	deployed := d.send("PUT", deployments+"/d", strings.ReplaceAll(template(`{"password":{"value":"x"}}`, network("first")+","+second), "password", "adminPassword"))
	recorded, shown := openapitest.Recordings(t), map[string]bool{}
	for name, a := range map[string]answer{
		"resourcegroup-get":            d.send("GET", group, ""),
		"deployment-put-201":           deployed,
		"deployment-operationstatuses": d.send("GET", strings.TrimPrefix(deployed.header.Get("Azure-AsyncOperation"), "https://localhost"), ""),
	} {
		shown[name] = true
		if rec := recorded[name]; a.status != rec.Response.Status {
			t.Errorf("%s: status %d, recorded %d: %s", name, a.status, rec.Response.Status, a.raw)
		}
		openapitest.Cover(t, nil, recorded[name].Response.Body, any(a.body))
	}
	for name, rec := range recorded {
		uri := strings.ToLower(rec.Request.URI)
		if ours := !strings.Contains(uri, "/providers/") || strings.Contains(uri, "/providers/microsoft.resources/"); ours && strings.Contains(uri, "/resourcegroups/") && !shown[name] {
			t.Errorf("%s is compared with nothing", name)
		}
	}
}
