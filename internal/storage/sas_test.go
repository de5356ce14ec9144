package storage_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/seal"
	"kluis/internal/storage"
)

func TestKeys(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		keys, err := w.ListKeys(ctx, id("one"))
		if err != nil || len(keys) != 2 || keys[0].Name() != "key1" || keys[1].Name() != "key2" || keys[0].Value.Len() != 64 ||
			bytes.Equal(keys[0].Value.Reveal(), keys[1].Value.Reveal()) {
			t.Fatalf("keys %v: %v", keys, err)
		}
		again, err := w.RegenerateKey(ctx, id("one"), "key2")
		if err != nil || !bytes.Equal(again[0].Value.Reveal(), keys[0].Value.Reveal()) || bytes.Equal(again[1].Value.Reveal(), keys[1].Value.Reveal()) {
			t.Errorf("key2 anew: %v", err)
		}
		_, err = w.RegenerateKey(ctx, id("one"), "key3")
		wantCode(t, err, "InvalidValuesForRequestParameters")
		_, err = w.ListKeys(ctx, subscription.Group("other").Resource(accountType, "one"))
		wantCode(t, err, "StorageAccountNotFound")
		if _, err := w.DeleteAccount(ctx, id("one")); err != nil {
			t.Fatal(err)
		}
		w.account("one")
		if fresh, err := w.ListKeys(ctx, id("one")); err != nil || bytes.Equal(fresh[0].Value.Reveal(), keys[0].Value.Reveal()) {
			t.Errorf("an account of the same name has the old keys: %v", err)
		}
		for action, do := range map[string]func() error{
			"listKeys":      func() error { _, err := w.ListKeys(ctx, id("one")); return err },
			"regenerateKey": func() error { _, err := w.RegenerateKey(ctx, id("one"), "key1"); return err },
			"listAccountSas": func() error {
				_, err := w.ListAccountSAS(ctx, id("one"), storage.SAS{}, "")
				return err
			},
			"listServiceSas": func() error {
				_, err := w.ListServiceSAS(ctx, id("one"), storage.SAS{}, "", "")
				return err
			},
		} {
			w.denied = accountType + "/" + action + "/action"
			wantCode(t, do(), "AuthorizationFailed")
		}
	})
}

// The database never has a key in plain, and a new root key takes over.
func TestKeysAreSealed(t *testing.T) {
	file := t.TempDir() + "/kluis.db"
	db := databasetest.Open(t, "sqlite:"+file)
	w := newWorld(t, db, nil)
	w.account("one")
	keys, err := w.ListKeys(t.Context(), id("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.root.Rotate(); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Reseal(t.Context(), w.root.Mark()); err != nil || n != 2 {
		t.Errorf("%d keys were sealed anew: %v", n, err)
	}
	if n, err := w.Reseal(t.Context(), w.root.Mark()); err != nil || n != 0 {
		t.Errorf("%d keys were sealed anew again: %v", n, err)
	}
	if again, err := w.ListKeys(t.Context(), id("one")); err != nil || !bytes.Equal(again[0].Value.Reveal(), keys[0].Value.Reveal()) {
		t.Errorf("after the rotation: %v", err)
	}
	for _, name := range []string{file, file + "-wal"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if bytes.Contains(content, k.Value.Reveal()) || bytes.Contains(content, []byte(base64.StdEncoding.EncodeToString(k.Value.Reveal()))) {
				t.Errorf("%s holds %s", name, k.Name())
			}
		}
	}
}

var elsewhere = netip.MustParseAddr("192.0.2.7")

// use redeems a query for a container and blob, and does something with it.
func (w *world) use(query, container, blob string, do func(storage.Grant) error) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := storage.ParseSAS(q)
	if err != nil {
		return err
	}
	g, err := w.Redeem(w.t.Context(), v, "one", container, blob, elsewhere, true)
	if err != nil {
		return err
	}
	return do(g)
}

// A signature is good for what it says, and for nothing else.
func TestSignatures(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	w.account("two")
	if err := w.put("b", "x"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	w.denied = "" // roles are not asked
	read := func(g storage.Grant) error {
		_, err := w.Blob(storage.WithGrant(ctx, g), "one", "container", "b")
		return err
	}
	write := func(name string) func(storage.Grant) error {
		return func(g storage.Grant) error {
			_, err := w.PutBlob(storage.WithGrant(ctx, g), "one", "container", name, text(1, ""), strings.NewReader("y"))
			return err
		}
	}
	list := func(g storage.Grant) error {
		_, _, err := w.ListBlobs(storage.WithGrant(ctx, g), "one", "container", storage.Listing{Most: 1})
		return err
	}
	create := func(g storage.Grant) error {
		_, err := w.CreateContainer(storage.WithGrant(ctx, g), "one", "another", nil)
		return err
	}
	other := func(g storage.Grant) error {
		_, err := w.Containers(storage.WithGrant(ctx, g), "two", "")
		return err
	}
	hour := start.Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	account := func(types, letters string) storage.SAS {
		return storage.SAS{Services: "b", Types: types, Permissions: letters, Expiry: hour}
	}
	service := func(kind, letters string) storage.SAS {
		return storage.SAS{Resource: kind, Permissions: letters, Expiry: hour}
	}
	for _, c := range []struct {
		name  string
		sas   storage.SAS
		of    string // resource of a service SAS
		do    func(storage.Grant) error
		code  string
		after time.Duration
	}{
		{name: "read with an account SAS", sas: account("o", "r"), do: read},
		{name: "containers are not objects", sas: account("c", "r"), do: read, code: "AuthorizationResourceTypeMismatch"},
		{name: "to write is not to read", sas: account("o", "w"), do: read, code: "AuthorizationPermissionMismatch"},
		{name: "list with an account SAS", sas: account("c", "l"), do: list},
		{name: "create a container", sas: account("c", "c"), do: create},
		{name: "another account", sas: account("sco", "rwdlac"), do: other, code: "AuthorizationFailure"},
		{name: "create a blob", sas: account("o", "c"), do: write("new")},
		{name: "to create is not to overwrite", sas: account("o", "c"), do: write("b"), code: "UnauthorizedBlobOverwrite"},
		{name: "expired", sas: account("o", "r"), do: read, after: time.Hour, code: "AuthenticationFailed"},
		{name: "not yet", sas: storage.SAS{Services: "b", Types: "o", Permissions: "r", Start: hour, Expiry: "2026-03-02"}, do: read, code: "AuthenticationFailed"},
		{name: "of another service", sas: storage.SAS{Services: "q", Types: "o", Permissions: "r", Expiry: hour}, do: read, code: "AuthorizationServiceMismatch"},
		{name: "from the right address", sas: storage.SAS{Services: "b", Types: "o", Permissions: "r", Expiry: hour, Addresses: "192.0.2.1-192.0.2.9"}, do: read},
		{name: "from another address", sas: storage.SAS{Services: "b", Types: "o", Permissions: "r", Expiry: hour, Addresses: "192.0.2.8-192.0.2.9"}, do: read, code: "AuthorizationSourceIPMismatch"},
		{name: "https alone", sas: storage.SAS{Services: "b", Types: "o", Permissions: "r", Expiry: hour, Protocol: "https"}, do: read},
		{name: "a blob", sas: service("b", "r"), of: "/container/b", do: read},
		{name: "another blob", sas: service("b", "r"), of: "/container/other", do: read, code: "AuthenticationFailed"},
		{name: "a container's blob", sas: service("c", "r"), of: "/container", do: read},
		{name: "another container", sas: service("c", "r"), of: "/another", do: read, code: "AuthenticationFailed"},
		{name: "a container's list", sas: service("c", "l"), of: "/container", do: list},
		{name: "a blob is no list", sas: service("b", "rl"), of: "/container/b", do: list, code: "AuthorizationFailure"},
		{name: "a container is not to create", sas: service("c", "cw"), of: "/container", do: create, code: "AuthorizationFailure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.now = start
			var query string
			var err error
			if c.of == "" {
				query, err = w.ListAccountSAS(ctx, id("one"), c.sas, "")
			} else {
				query, err = w.ListServiceSAS(ctx, id("one"), c.sas, "/blob/one"+c.of, "key2")
			}
			if err != nil {
				t.Fatal(err)
			}
			w.now = start.Add(c.after)
			if err = w.use(query, "container", "b", c.do); c.code != "" {
				wantCode(t, err, c.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	w.now = start
}

// Whatever is changed of a signature, or of the key, makes it void.
func TestChangedSignatures(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	if err := w.put("b", "x"); err != nil {
		t.Fatal(err)
	}
	query, err := w.ListAccountSAS(t.Context(), id("one"), storage.SAS{Services: "b", Types: "o", Permissions: "r", Start: "2026-02-01", Expiry: "2026-04-01",
		Addresses: "192.0.2.7", Protocol: "https"}, "")
	if err != nil {
		t.Fatal(err)
	}
	read := func(g storage.Grant) error {
		_, err := w.Blob(storage.WithGrant(t.Context(), g), "one", "container", "b")
		return err
	}
	if err := w.use(query, "container", "b", read); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"sp": "rw", "srt": "oc", "ss": "bq", "st": "2026-01-01", "se": "2027-04-01", "sip": "", "spr": "https,http", "sv": "2021-08-06",
		"sig": base64.StdEncoding.EncodeToString(make([]byte, 32)), "si": "policy", "skoid": "x", "ses": "x", "sdd": "1"} {
		q, _ := url.ParseQuery(query)
		q.Set(name, value)
		wantCode(t, w.use(q.Encode(), "container", "b", read), "AuthenticationFailed")
		q, _ = url.ParseQuery(query)
		q.Add(name, value)
		wantCode(t, w.use(q.Encode(), "container", "b", read), "AuthenticationFailed")
	}
	if _, err := w.RegenerateKey(t.Context(), id("one"), "key1"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.use(query, "container", "b", read), "AuthenticationFailed")
	if _, err := w.ChangeAccount(t.Context(), id("one"), func(a *storage.Account) { a.NoSharedKeys = true }); err != nil {
		t.Fatal(err)
	}
	query, err = w.ListAccountSAS(t.Context(), id("one"), storage.SAS{Services: "b", Types: "o", Permissions: "r", Expiry: "2026-04-01"}, "")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.use(query, "container", "b", read), "KeyBasedAuthenticationNotPermitted")
}

func FuzzSAS(f *testing.F) {
	db := databasetest.Open(f, "sqlite:"+f.TempDir()+"/kluis.db")
	w := newWorld(f, db, nil)
	w.account("one")
	f.Add("sv=2022-11-02&ss=b&srt=sco&sp=rwdl&se=2027-01-01&sig=" + strings.Repeat("A", 43) + "%3D")
	f.Add("sv=2022-11-02&sr=b&sp=r&st=2026-01-01T00:00Z&se=2027-01-01T00:00:00Z&sip=1.2.3.4-1.2.3.5&spr=https&rsct=text/html&sig=x")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		v, err := storage.ParseSAS(q)
		if err != nil {
			return
		}
		if _, err := w.Redeem(t.Context(), v, "one", "container", "b", elsewhere, true); err == nil {
			t.Errorf("%q is taken for a signature of a key that nobody knows", query)
		}
	})
}

// newRoot makes a root key.
func newRoot(t testing.TB) *seal.Root {
	t.Helper()
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return root
}
