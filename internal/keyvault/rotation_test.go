package keyvault_test

import (
	"bytes"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/keyvault"
	"kluis/internal/secret"
)

const day = 24 * time.Hour

// A rotated KEK still opens what it has closed, and closes what is new with its new version.
func TestRotatedKeyOpensWhatItHasClosed(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		for _, sort := range sorts {
			old, err := r.CreateKey(r.alice, "kv-one", sort.name, sort.new)
			if err != nil {
				t.Fatal(err)
			}
			rotated, err := r.RotateKey(r.alice, "kv-one", sort.name)
			if err != nil {
				t.Fatal(err)
			}
			if rotated.ID.Version == old.ID.Version || rotated.Type != old.Type || rotated.Curve != old.Curve || len(rotated.N) != len(old.N) || len(rotated.Operations) != len(old.Operations) {
				t.Errorf("%s became %+v", sort.name, rotated)
			}
			for _, alg := range sort.wraps {
				_, wrapped, err := r.WrapKey(r.alice, old.ID, alg, secret.New([]byte("sixteen bytes in")))
				if err != nil {
					t.Fatal(err)
				}
				if _, got, err := r.UnwrapKey(r.alice, old.ID, alg, wrapped); err != nil || string(got.Reveal()) != "sixteen bytes in" {
					t.Errorf("%s: %v", alg, err)
				}
				if _, got, err := r.UnwrapKey(r.alice, rotated.ID, alg, wrapped); err == nil && bytes.Equal(got.Reveal(), []byte("sixteen bytes in")) {
					t.Errorf("%s: the new version opens what the old one closed", alg)
				}
			}
		}
	})
}

func TestKeysAreRotatedByTheirPolicies(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		names := map[string]keyvault.RotationPolicy{
			"after":    {Rotate: keyvault.Trigger{AfterCreate: "P30D"}, Expiry: "P1Y"},
			"before":   {Rotate: keyvault.Trigger{BeforeExpiry: "P10D"}, Expiry: "P40D"},
			"disabled": {Rotate: keyvault.Trigger{AfterCreate: "P30D"}},
			"deleted":  {Rotate: keyvault.Trigger{AfterCreate: "P30D"}},
			"none":     {Notify: keyvault.Trigger{BeforeExpiry: "P30D"}, Expiry: "P1Y"},
		}
		for name, p := range names {
			c := keyvault.Change{Enabled: new(name != "disabled"), Expires: new(r.clock.Now().Add(40 * day))}
			if _, err := r.CreateKey(r.alice, "kv-one", name, keyvault.NewKey{Type: "EC", Change: c}); err != nil {
				t.Fatal(err)
			}
			put, _, err := r.PutRotationPolicy(r.alice, "kv-one", name, p)
			if err != nil || put.Created == 0 || put.Updated == 0 {
				t.Fatalf("%s: %+v, %v", name, put, err)
			}
			if got, id, err := r.RotationPolicy(r.alice, "kv-one", name); err != nil || got != put || id.Name != name {
				t.Errorf("%s: the policy is %+v, %v", name, got, err)
			}
		}
		if _, err := r.DeleteKey(r.alice, "kv-one", "deleted"); err != nil {
			t.Fatal(err)
		}
		versions := func(name string) []keyvault.Key {
			t.Helper()
			list, _, err := r.KeyVersions(r.alice, "kv-one", name, keyvault.Page{})
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		rotate := func(after time.Duration, want map[string]int) {
			t.Helper()
			r.clock.forward(after)
			for range 2 { // the second time nothing is due any more
				if err := r.RotateDue(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for name, n := range want {
				if got := len(versions(name)); got != n {
					t.Errorf("%s has %d versions, want %d", name, got, n)
				}
			}
		}
		rotate(30*day-time.Second, map[string]int{"after": 1, "before": 1, "disabled": 1, "none": 1})
		rotate(time.Second, map[string]int{"after": 2, "before": 2, "disabled": 1, "none": 1})
		rotate(30*day, map[string]int{"after": 3, "before": 3, "disabled": 1, "none": 1})

		newest, err := r.Key(r.alice, keyvault.KeyID{Vault: "kv-one", Name: "before"})
		if err != nil || !newest.Attributes.Expires.Equal(r.clock.Now().AddDate(0, 0, 40).Truncate(time.Second)) {
			t.Errorf("the new version expires at %v, %v", newest.Attributes.Expires, err)
		}
		uses, err := r.Uses(r.alice, vaultID("kv-one"), "", 100)
		if err != nil {
			t.Fatal(err)
		}
		rotations := 0
		for _, u := range uses {
			if u.Operation == "KeyRotateIfDue" && u.Result == "Success" && u.Principal.ObjectID != "" && u.Version != "" {
				rotations++
			}
		}
		if rotations != 4 {
			t.Errorf("%d rotations are in the record, want 4", rotations)
		}
	})
}

func TestRotationPolicyTravelsWithTheBackup(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	r.putVault("kv-two")
	k, err := r.CreateKey(r.alice, "kv-one", "k", keyvault.NewKey{Type: "EC"})
	if err != nil {
		t.Fatal(err)
	}
	policy, _, err := r.PutRotationPolicy(r.alice, "kv-one", "k", keyvault.RotationPolicy{Rotate: keyvault.Trigger{AfterCreate: "P90D"}})
	if err != nil {
		t.Fatal(err)
	}
	blob, err := r.BackUpKey(r.alice, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RestoreKey(r.alice, "kv-two", blob); err != nil {
		t.Fatal(err)
	}
	if got, _, err := r.RotationPolicy(r.alice, "kv-two", "k"); err != nil || got != policy {
		t.Errorf("the policy came back as %+v, %v; it was %+v", got, err, policy)
	}
}

func TestRotationPoliciesThatMakeNoSenseAreRefused(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	if _, err := r.CreateKey(r.alice, "kv-one", "k", keyvault.NewKey{Type: "EC"}); err != nil {
		t.Fatal(err)
	}
	rotate := func(t keyvault.Trigger, expiry string) keyvault.RotationPolicy {
		return keyvault.RotationPolicy{Rotate: t, Expiry: expiry}
	}
	for name, p := range map[string]keyvault.RotationPolicy{
		"expiry is no duration":         rotate(keyvault.Trigger{}, "1 year"),
		"expiry is short":               rotate(keyvault.Trigger{}, "P27D"),
		"trigger is no duration":        rotate(keyvault.Trigger{AfterCreate: "30"}, ""),
		"trigger is early":              rotate(keyvault.Trigger{AfterCreate: "P6D"}, ""),
		"two triggers":                  rotate(keyvault.Trigger{AfterCreate: "P30D", BeforeExpiry: "P30D"}, "P1Y"),
		"before an expiry there is not": rotate(keyvault.Trigger{BeforeExpiry: "P30D"}, ""),
		"after the expiry":              rotate(keyvault.Trigger{AfterCreate: "P30D"}, "P30D"),
		"notify after creation":         {Notify: keyvault.Trigger{AfterCreate: "P30D"}, Expiry: "P1Y"},
	} {
		if _, _, err := r.PutRotationPolicy(r.alice, "kv-one", "k", p); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantCode(t, err, "BadParameter")
		}
	}
	if p, _, err := r.RotationPolicy(r.alice, "kv-one", "k"); err != nil || p.Created != 0 {
		t.Errorf("the policy is %+v, %v", p, err)
	}
	_, _, err := r.RotationPolicy(r.alice, "kv-one", "none")
	wantCode(t, err, "KeyNotFound")
}
