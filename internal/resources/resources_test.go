package resources_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/resources"
)

const subscription = "11111111-2222-3333-4444-555555555555"

var (
	root = armid.Subscription(subscription)
	ctx  = context.Background()
)

// grants are what the caller may do: an action at a scope and below it. "*" is every action.
type grants map[string]armid.ID

func (g grants) Authorize(_ context.Context, action string, scope armid.ID) error {
	for pattern, at := range g {
		if (pattern == "*" || strings.EqualFold(pattern, action)) && scope.Within(at) {
			return nil
		}
	}
	return problem.New(problem.Denied, "AuthorizationFailed", "no %s at %s", action, scope)
}

var everything = grants{"*": {}}

func open(db *database.DB, may resources.Authorizer) *resources.Service {
	return resources.New(resources.Options{DB: db, Authorizer: may, TenantID: "tenant", SubscriptionID: subscription, SubscriptionName: "Kluis",
		Now: func() time.Time { return time.Unix(0, 0) }})
}

func wantCode(t *testing.T, err error, kind problem.Kind, code string) *problem.Error {
	t.Helper()
	p := problem.Of(err)
	if p == nil || p.Kind != kind || p.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	if p.Message == "" || p.Advice == "" && kind != problem.Denied {
		t.Errorf("%s says %q and advises %q", code, p.Message, p.Advice)
	}
	return p
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func putGroup(t *testing.T, s *resources.Service, name string) {
	t.Helper()
	if _, _, err := s.PutGroup(ctx, resources.Group{Name: name, Location: "westeurope"}); err != nil {
		t.Fatal(err)
	}
}

func TestGroups(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		p := wantCode(t, s.GroupExists(ctx, "Web"), problem.NotFound, "ResourceGroupNotFound")
		if p.Message != "Resource group 'Web' could not be found." {
			t.Errorf("message %q is not Azure's", p.Message)
		}
		g, created, err := s.PutGroup(ctx, resources.Group{Name: "Web", Location: "West Europe", Tags: map[string]string{"a": "1"}})
		if err != nil || !created || g.Location != "westeurope" {
			t.Fatalf("created %v %v: %v", g, created, err)
		}
		g, created, err = s.PutGroup(ctx, resources.Group{Name: "WEB", Location: "westeurope", Tags: map[string]string{"b": "2"}})
		want := resources.Group{Name: "Web", Location: "westeurope", Tags: map[string]string{"b": "2"}}
		if err != nil || created || cmp.Diff(want, g) != "" {
			t.Fatalf("put again: %v created %v, %v", g, created, err)
		}
		if got := must[resources.Group](t)(s.Group(ctx, "wEB")); cmp.Diff(want, got) != "" {
			t.Errorf("group is %v", got)
		}
		_, _, err = s.PutGroup(ctx, resources.Group{Name: "web", Location: "north"})
		wantCode(t, err, problem.Conflict, "InvalidResourceGroupLocation")

		if g := must[resources.Group](t)(s.TagGroup(ctx, "web", map[string]string{"c": "3"})); g.Name != "Web" || g.Tags["c"] != "3" || len(g.Tags) != 1 {
			t.Errorf("tagged: %v", g)
		}
		_, err = s.TagGroup(ctx, "gone", nil)
		wantCode(t, err, problem.NotFound, "ResourceGroupNotFound")

		putGroup(t, s, "_first")
		putGroup(t, s, "a-b")
		putGroup(t, s, "a.b")
		var names []string
		for _, g := range must[[]resources.Group](t)(s.Groups(ctx)) {
			names = append(names, g.Name)
		}
		if want := []string{"_first", "a-b", "a.b", "Web"}; !slices.Equal(names, want) {
			t.Errorf("groups %v, want %v", names, want)
		}
	})
}

func TestBadGroups(t *testing.T) {
	many := map[string]string{}
	for i := range 51 {
		many[strings.Repeat("x", i+1)] = ""
	}
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		for _, c := range []struct {
			group resources.Group
			code  string
		}{
			{resources.Group{Name: "ends.", Location: "x"}, "InvalidResourceGroup"},
			{resources.Group{Name: "", Location: "x"}, "InvalidResourceGroup"},
			{resources.Group{Name: "a b", Location: "x"}, "InvalidResourceGroup"},
			{resources.Group{Name: strings.Repeat("a", 91), Location: "x"}, "InvalidResourceGroup"},
			{resources.Group{Name: "g"}, "LocationRequired"},
			{resources.Group{Name: "g", Location: "<script>"}, "LocationNotAvailableForResourceGroup"},
			{resources.Group{Name: "g", Location: strings.Repeat("a", 61)}, "LocationNotAvailableForResourceGroup"},
			{resources.Group{Name: "g", Location: "x", Tags: many}, "TooManyTags"},
			{resources.Group{Name: "g", Location: "x", Tags: map[string]string{"t": strings.Repeat("v", 257)}}, "InvalidTag"},
		} {
			_, _, err := s.PutGroup(ctx, c.group)
			wantCode(t, err, problem.Invalid, c.code)
		}
		if groups := must[[]resources.Group](t)(s.Groups(ctx)); len(groups) != 0 {
			t.Errorf("a refused group is there: %v", groups)
		}
	})
}

// tenants are a service with resources in groups.
type tenants map[string]int

var errLook = errors.New("look")

func (n tenants) CountIn(_ context.Context, group armid.ID) (int, error) {
	if n[group.Key()] < 0 {
		return 0, errLook
	}
	return n[group.Key()], nil
}

// Deletable implements resources.Keeper: a group with seven resources is kept.
func (n tenants) Deletable(_ context.Context, group armid.ID) error {
	if n[group.Key()] == 7 {
		return problem.New(problem.Conflict, "NotEmpty", "There is something in it.").WithTarget("the seventh").WithAdvice("Take it out.")
	}
	return nil
}

// shelf is what lies in a group, in the order in which it is listed; what is deleted is noted.
type shelf struct {
	ids     []armid.ID
	deleted []string
	delete  func(id armid.ID) error
}

func (s *shelf) In(context.Context, armid.ID) ([]armid.ID, error) { return s.ids, nil }

func (s *shelf) Delete(_ context.Context, id armid.ID) error {
	s.deleted = append(s.deleted, id.Name())
	return s.delete(id)
}

func TestDeleteGroup(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		may := grants{"*": {}}
		s := open(db, may)
		other := tenants{}
		s.Occupy(other)
		putGroup(t, s, "web")
		putGroup(t, s, "web2") // begins alike
		web := root.Group("web")
		address := root.Group("web2").Resource("Microsoft.Network/publicIPAddresses", "ip")
		put(t, s, address)
		mine := web.Resource("Microsoft.Network/publicIPAddresses", "ip")
		put(t, s, mine)
		all := &shelf{delete: func(id armid.ID) error {
			if id.Equal(mine) {
				_, err := s.DeleteDocument(ctx, id)
				return err
			}
			return nil
		}, ids: []armid.ID{web.Resource("Microsoft.KeyVault/vaults", "keys"), web.Resource("Microsoft.Compute/disks", "disk"), mine,
			web.Resource("Microsoft.Compute/virtualMachines", "vm"), web.Resource("Microsoft.RecoveryServices/vaults", "vault")}}

		other[web.Key()] = 7
		p := wantCode(t, s.DeleteGroup(ctx, "Web", all), problem.Conflict, "ResourceGroupDeletionBlocked")
		if !strings.Contains(p.Message, "the seventh") || len(p.Details) != 1 || p.Details[0].Code != "NotEmpty" || !strings.Contains(p.Advice, "Take it out.") {
			t.Errorf("the reason is missing: %+v", p)
		}
		other[web.Key()] = -1
		if err := s.DeleteGroup(ctx, "web", &shelf{}); !errors.Is(err, errLook) {
			t.Errorf("a group that cannot be looked into: %v", err)
		}
		other[web.Key()] = 0
		delete(may, "*") // all may be deleted but the disk
		for _, action := range []string{"Microsoft.Resources/subscriptions/resourceGroups/delete", "Microsoft.RecoveryServices/vaults/delete",
			"Microsoft.Compute/virtualMachines/delete", "Microsoft.Network/publicIPAddresses/delete", "Microsoft.KeyVault/vaults/delete"} {
			may[action] = root
		}
		wantCode(t, s.DeleteGroup(ctx, "web", all), problem.Conflict, "ResourceGroupDeletionBlocked")
		if len(all.deleted) != 0 || s.GroupExists(ctx, "web") != nil {
			t.Fatalf("a refused deletion has deleted %v", all.deleted)
		}
		may["*"] = armid.ID{}
		wantCode(t, s.DeleteGroup(ctx, "web", &shelf{}), problem.Conflict, "ResourceGroupDeletionBlocked") // one came in between
		if err := s.DeleteGroup(ctx, "Web", all); err != nil {
			t.Fatal(err)
		}
		if want := []string{"vault", "vm", "ip", "disk", "keys"}; !slices.Equal(all.deleted, want) {
			t.Errorf("deleted %v, want %v", all.deleted, want)
		}
		wantCode(t, s.GroupExists(ctx, "web"), problem.NotFound, "ResourceGroupNotFound")
		wantCode(t, s.DeleteGroup(ctx, "web", all), problem.NotFound, "ResourceGroupNotFound")
		if d := must[resources.Document](t)(s.Document(ctx, address)); !d.ID.Equal(address) {
			t.Error("the neighbour's resource is gone")
		}
	})
}

func TestTagDocument(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		putGroup(t, s, "web")
		address := root.Group("web").Resource("Microsoft.Network/publicIPAddresses", "ip")
		_, err := s.TagDocument(ctx, address, nil)
		wantCode(t, err, problem.NotFound, "ResourceNotFound")
		put(t, s, address)
		_, err = s.TagDocument(ctx, address, map[string]string{"": "x"})
		wantCode(t, err, problem.Invalid, "InvalidTag")
		must[resources.Document](t)(s.TagDocument(ctx, address, map[string]string{"a": "b"}))
		for range 2 { // nil changes nothing
			d := must[resources.Document](t)(s.TagDocument(ctx, address, nil))
			if !strings.Contains(string(d.Body), `"tags":{"a":"b"}`) || !strings.Contains(string(d.Body), `"location":"westeurope"`) {
				t.Errorf("tagged: %s", d.Body)
			}
		}
	})
}

func put(t *testing.T, s *resources.Service, id armid.ID) {
	t.Helper()
	if _, _, err := s.PutDocument(ctx, id, json.RawMessage(`{"location":"westeurope"}`)); err != nil {
		t.Fatal(err)
	}
}

func TestDocuments(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		putGroup(t, s, "web")
		network := armid.Must(root.String() + "/resourceGroups/web/providers/microsoft.network/virtualnetworks/VNet")
		d, created, err := s.PutDocument(ctx, network, json.RawMessage(
			`{"location":"westeurope","id":"mine","properties":{"big":12345678901234567890,"subnets":[{"name":"default"}],"provisioningState":"Odd"}}`))
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		id := root.String() + "/resourceGroups/web/providers/Microsoft.Network/virtualNetworks/VNet"
		want := `{"id":"` + id + `","location":"westeurope","name":"VNet",` +
			`"properties":{"big":12345678901234567890,"provisioningState":"Succeeded","subnets":[` +
			`{"id":"` + id + `/subnets/default","name":"default","properties":{"provisioningState":"Succeeded"},"type":"Microsoft.Network/virtualNetworks/subnets"}]},"type":"Microsoft.Network/virtualNetworks"}`
		if string(d.Body) != want {
			t.Errorf("document\n%s\nwant\n%s", d.Body, want)
		}
		upper := armid.Must(strings.ToUpper(root.String()) + "/resourceGroups/WEB/providers/Microsoft.Network/virtualNetworks/VNET")
		if d := must[resources.Document](t)(s.Document(ctx, upper)); string(d.Body) != want {
			t.Errorf("read back: %s", d.Body)
		}
		d, created, err = s.PutDocument(ctx, upper, json.RawMessage(`{"location":"westeurope","properties":null}`))
		if err != nil || created || d.ID.String() != id || !strings.Contains(string(d.Body), id) {
			t.Errorf("the id must keep its first spelling: created %v, %s, %v", created, d.Body, err)
		}

		put(t, s, root.Group("web").Resource("Microsoft.Network/networkInterfaces", "nic"))
		putGroup(t, s, "web2")
		put(t, s, root.Group("web2").Resource("Microsoft.Network/virtualNetworks", "other"))
		for scope, want := range map[string]int{root.String(): 2, root.Group("Web").String(): 1, root.Group("web2").String(): 1} {
			if all := must[[]resources.Document](t)(s.Documents(ctx, armid.Must(scope), "Microsoft.Network/virtualNetworks")); len(all) != want {
				t.Errorf("%d networks in %s, want %d", len(all), scope, want)
			}
		}
		_, err = s.Documents(ctx, root.Group("gone"), "Microsoft.Network/virtualNetworks")
		wantCode(t, err, problem.NotFound, "ResourceGroupNotFound")

		if existed, err := s.DeleteDocument(ctx, upper); !existed || err != nil {
			t.Fatalf("existed %v, %v", existed, err)
		}
		if existed, err := s.DeleteDocument(ctx, network); existed || err != nil {
			t.Fatalf("existed %v, %v", existed, err)
		}
		_, err = s.Document(ctx, network)
		wantCode(t, err, problem.NotFound, "ResourceNotFound")
		_, err = s.Document(ctx, root.Group("gone").Resource("Microsoft.Network/virtualNetworks", "n"))
		wantCode(t, err, problem.NotFound, "ResourceGroupNotFound")
	})
}

func TestBadDocuments(t *testing.T) {
	good := `{"location":"westeurope"}`
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		putGroup(t, s, "web")
		const nic = "Microsoft.Network/networkInterfaces"
		in := root.Group("web").Resource(nic, "n")
		for _, c := range []struct {
			name string
			id   armid.ID
			body string
			kind problem.Kind
			code string
		}{
			{"array", in, `[]`, problem.Invalid, "InvalidRequestContent"},
			{"null", in, `null`, problem.Invalid, "InvalidRequestContent"},
			{"cut", in, `{"location":`, problem.Invalid, "InvalidRequestContent"},
			{"properties", in, `{"location":"x","properties":3}`, problem.Invalid, "InvalidRequestContent"},
			{"not UTF-8", in, "{\"location\":\"x\",\"properties\":{\"a\":\"\xff\"}}", problem.Invalid, "InvalidRequestContent"},
			{"no location", in, `{}`, problem.Invalid, "LocationRequired"},
			{"location", in, `{"location":{}}`, problem.Invalid, "LocationRequired"},
			{"no group", root.Group("gone").Resource(nic, "n"), good, problem.NotFound, "ResourceGroupNotFound"},
			{"outside of groups", root.Resource(nic, "n"), good, problem.Invalid, "InvalidResourceGroup"},
			{"foreign", armid.Subscription("other").Group("web").Resource(nic, "n"), good, problem.NotFound, "SubscriptionNotFound"},
			{"type", root.Group("web").Resource("Microsoft.Network/loadBalancers", "n"), good, problem.Unsupported, "ResourceTypeNotSupported"},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, _, err := s.PutDocument(ctx, c.id, json.RawMessage(c.body))
				wantCode(t, err, c.kind, c.code)
			})
		}
		if all := must[[]resources.Document](t)(s.Documents(ctx, root, "")); len(all) != 0 {
			t.Errorf("a refused document is there: %v", all)
		}
		// What only looks odd is kept: a NUL in JSON is an escape, not a byte.
		if _, _, err := s.PutDocument(ctx, in, json.RawMessage(`{"location":"x","properties":{"a":"\u0000\ud800"}}`)); err != nil {
			t.Error(err)
		}
	})
}

// Who may do one thing must not get another.
func TestAuthorization(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		owner := open(db, everything)
		putGroup(t, owner, "mine")
		putGroup(t, owner, "theirs")
		id := root.Group("mine").Resource("Microsoft.Network/virtualNetworks", "n")
		put(t, owner, id)

		nobody := open(db, grants{})
		calls := map[string]func() error{
			"PutGroup":        func() error { _, _, err := nobody.PutGroup(ctx, resources.Group{Name: "x", Location: "y"}); return err },
			"TagGroup":        func() error { _, err := nobody.TagGroup(ctx, "mine", nil); return err },
			"Group":           func() error { _, err := nobody.Group(ctx, "mine"); return err },
			"Groups":          func() error { _, err := nobody.Groups(ctx); return err },
			"DeleteGroup":     func() error { return nobody.DeleteGroup(ctx, "mine", &shelf{}) },
			"Subscription":    func() error { _, err := nobody.Subscription(ctx, subscription); return err },
			"TagSubscription": func() error { return nobody.TagSubscription(ctx, subscription, nil) },
			"PutDocument": func() error {
				_, _, err := nobody.PutDocument(ctx, id, json.RawMessage(`{"location":"x"}`))
				return err
			},
			"Document":       func() error { _, err := nobody.Document(ctx, id); return err },
			"Documents":      func() error { _, err := nobody.Documents(ctx, root.Group("mine"), id.Type()); return err },
			"DeleteDocument": func() error { _, err := nobody.DeleteDocument(ctx, id); return err },
		}
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			t.Run(name, func(t *testing.T) { wantCode(t, calls[name](), problem.Denied, "AuthorizationFailed") })
		}
		if all, err := nobody.Subscriptions(ctx); len(all) != 0 || err != nil {
			t.Errorf("nobody sees %v, %v", all, err)
		}

		// A role on one group shows that group, and the subscription that it lies in.
		guest := open(db, grants{"Microsoft.Resources/subscriptions/resourceGroups/read": root.Group("mine")})
		if all := must[[]resources.Group](t)(guest.Groups(ctx)); len(all) != 1 || all[0].Name != "mine" {
			t.Errorf("the guest sees the groups %v", all)
		}
		if all := must[[]resources.Subscription](t)(guest.Subscriptions(ctx)); len(all) != 1 {
			t.Errorf("the guest sees the subscriptions %v", all)
		}
		_, err := guest.Group(ctx, "theirs")
		wantCode(t, err, problem.Denied, "AuthorizationFailed")

		one := must[resources.Subscription](t)(owner.Subscription(ctx, strings.ToUpper(subscription)))
		if diff := cmp.Diff(resources.Subscription{ID: subscription, TenantID: "tenant", Name: "Kluis"}, one); diff != "" {
			t.Errorf("subscription (-want +got):\n%s", diff)
		}
		_, err = owner.Subscription(ctx, "other")
		wantCode(t, err, problem.NotFound, "SubscriptionNotFound")
	})
}

type broken struct{}

func (broken) Authorize(context.Context, string, armid.ID) error { return errLook }

// A database that is away is not an empty list.
func TestSubscriptionsTellsFailure(t *testing.T) {
	s := open(databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), broken{})
	if _, err := s.Subscriptions(ctx); !errors.Is(err, errLook) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Groups(ctx); !errors.Is(err, errLook) {
		t.Errorf("got %v", err)
	}
}

// A group that is being deleted while something is created in it ends with both or with neither.
func TestDeleteGroupRace(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, everything)
		for range 20 {
			putGroup(t, s, "g")
			id := root.Group("g").Resource("Microsoft.Network/virtualNetworks", "n")
			var deleted, created error
			var wait sync.WaitGroup
			wait.Go(func() { deleted = s.DeleteGroup(ctx, "g", &shelf{}) })
			wait.Go(func() { _, _, created = s.PutDocument(ctx, id, json.RawMessage(`{"location":"x"}`)) })
			wait.Wait()
			if (deleted == nil) == (created == nil) {
				t.Fatalf("delete: %v; create: %v", deleted, created)
			}
			if created == nil {
				if _, err := s.DeleteDocument(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// Whatever JSON object is put comes back with its members.
func TestDocumentKeepsMembers(t *testing.T) {
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	s := open(db, everything)
	putGroup(t, s, "g")
	id := root.Group("g").Resource("Microsoft.Network/virtualNetworks", "n")
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "properties")
		delete(sent, "provisioningState")
		body, err := json.Marshal(map[string]any{"location": "x", "properties": sent})
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := s.PutDocument(ctx, id, body)
		if err != nil {
			t.Fatal(err)
		}
		var got, want struct{ Properties map[string]string }
		if err := errors.Join(json.Unmarshal(d.Body, &got), json.Unmarshal(body, &want)); err != nil {
			t.Fatal(err)
		}
		delete(got.Properties, "provisioningState")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
