package resources_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/resources"
)

// Subnets are parts of their network and resources by themselves, and stay while an interface is in them.
func TestParts(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s, ctx := open(db, everything), t.Context()
		putGroup(t, s, "web")
		group := root.Group("web")
		network := group.Resource("Microsoft.Network/virtualNetworks", "net")
		if _, _, err := s.PutDocument(ctx, network, json.RawMessage(`{"location":"westeurope","properties":{"subnets":[{"name":"first","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`)); err != nil {
			t.Fatal(err)
		}
		subnet := func(name string) armid.ID { return network.Child("subnets", name) }
		for _, want := range []bool{true, false} {
			body, created, err := s.PutPart(ctx, subnet("second"), json.RawMessage(`{"properties":{"addressPrefix":"10.0.1.0/24","big":12345678901234567890}}`))
			if err != nil || created != want || !strings.Contains(string(body), `"id":"`+subnet("second").String()+`"`) || !strings.Contains(string(body), `12345678901234567890`) {
				t.Errorf("created %v, %s, %v", created, body, err)
			}
		}
		all, err := s.Parts(ctx, network, "Microsoft.Network/virtualNetworks/subnets")
		if err != nil || len(all) != 2 {
			t.Errorf("subnets %s, %v", all, err)
		}
		if d := must[resources.Document](t)(s.Document(ctx, network)); strings.Count(string(d.Body), "/subnets/") != 2 {
			t.Errorf("the network is %s", d.Body)
		}
		if body, err := s.Part(ctx, network.Child("subnets", "FIRST")); err != nil || !strings.Contains(string(body), "10.0.0.0/24") {
			t.Errorf("%s, %v", body, err)
		}
		_, err = s.Part(ctx, subnet("none"))
		wantKind(t, err, problem.NotFound)
		_, err = s.Parts(ctx, group.Resource("Microsoft.Network/virtualNetworks", "none"), "Microsoft.Network/virtualNetworks/subnets")
		wantKind(t, err, problem.NotFound)
		_, _, err = s.PutPart(ctx, subnet("third"), json.RawMessage(`[]`))
		wantKind(t, err, problem.Invalid)
		_, _, err = s.PutDocument(ctx, network, json.RawMessage(`{"location":"westeurope","properties":{"subnets":{"name":"first"}}}`))
		wantKind(t, err, problem.Invalid)

		nic := group.Resource("Microsoft.Network/networkInterfaces", "nic")
		d, _, err := s.PutDocument(ctx, nic, json.RawMessage(fmt.Sprintf(`{"location":"westeurope","properties":{"ipConfigurations":[{"name":"ip","properties":{"subnet":{"id":%q}}}]}}`, strings.ToUpper(subnet("first").String()))))
		if err != nil || !strings.Contains(string(d.Body), `"id":"`+nic.Child("ipConfigurations", "ip").String()+`"`) {
			t.Errorf("%s, %v", d.Body, err)
		}
		for _, id := range []armid.ID{subnet("first"), network} {
			var err error
			if id.Equal(network) {
				_, err = s.DeleteDocument(ctx, id)
			} else {
				_, err = s.DeletePart(ctx, id)
			}
			if !problem.Is(err, "InUseSubnetCannotBeDeleted") {
				t.Errorf("delete %s: %v", id.Name(), err)
			}
		}
		for _, want := range []bool{true, false} {
			if existed, err := s.DeletePart(ctx, subnet("second")); existed != want || err != nil {
				t.Errorf("deleted %v, %v", existed, err)
			}
		}
		if _, err := s.DeleteDocument(ctx, nic); err != nil {
			t.Error(err)
		}
		if existed, err := s.DeleteDocument(ctx, network); err != nil || !existed {
			t.Errorf("deleted %v, %v", existed, err)
		}
	})
}

func wantKind(t *testing.T, err error, kind problem.Kind) {
	t.Helper()
	if problem.KindOf(err) != kind || err == nil {
		t.Errorf("error %v, want kind %d", err, kind)
	}
}
