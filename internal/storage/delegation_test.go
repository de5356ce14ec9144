package storage_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/storage"
)

const (
	alice     = "00000000-0000-4000-8000-0000000000aa"
	inAnHour  = "2026-03-01T13:00:00Z"
	thisHour  = "2026-03-01T12:00:00Z"
	inAWeek   = "2026-03-08T12:00:00Z"
	delegated = accountType + "/blobServices/generateUserDelegationKey/action"
)

// delegatedQuery is a signature for the container, made of the texts that "Create a user delegation SAS" lists for
// version 2020-12-06, and of what comes in newer ones.
func delegatedQuery(k storage.DelegationKey, version, letters string, more ...string) string {
	lines := []string{letters, "", inAnHour, "/blob/one/container", k.ObjectID, k.TenantID, k.Start, k.Expiry, k.Service, k.Version, "", "", ""}
	if version >= "2025-07-05" {
		lines = append(lines, "", "")
	}
	lines = append(lines, "", "https", version, "c", "", "")
	if version >= "2026-04-06" {
		lines = append(lines, "", "")
	}
	m := hmac.New(sha256.New, k.Value.Reveal())
	m.Write([]byte(strings.Join(append(lines, "", "", "", "", ""), "\n")))
	q := url.Values{"sv": {version}, "sr": {"c"}, "sp": {letters}, "se": {inAnHour}, "spr": {"https"}, "skoid": {k.ObjectID}, "sktid": {k.TenantID},
		"skt": {k.Start}, "ske": {k.Expiry}, "sks": {k.Service}, "skv": {k.Version}, "sig": {base64.StdEncoding.EncodeToString(m.Sum(nil))}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return q.Encode()
}

// A principal signs for others what it may do itself, until its roles, the key's time or the account end that.
func TestUserDelegation(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		if err := w.put("b", "x"); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		w.caller = alice
		k, err := w.UserDelegationKey(ctx, "one", thisHour, inAWeek, "2021-08-06")
		if err != nil || k.ObjectID != alice || k.Start != thisHour || k.Expiry != inAWeek || k.Service != "b" || k.Version != "2021-08-06" || k.Value.Len() != 32 {
			t.Fatalf("%+v, %v", k, err)
		}
		read := func(g storage.Grant) error {
			_, err := w.Blob(storage.WithGrant(ctx, g), "one", "container", "b")
			return err
		}
		write := func(g storage.Grant) error {
			_, err := w.PutBlob(storage.WithGrant(ctx, g), "one", "container", "b", text(1, ""), strings.NewReader("y"))
			return err
		}
		for _, version := range []string{"2020-12-06", "2022-11-02", "2025-07-05", "2026-06-06"} {
			if err := w.use(delegatedQuery(k, version, "r"), "container", "b", read); err != nil {
				t.Errorf("version %s: %v", version, err)
			}
		}
		if !slices.Contains(w.asked, "as "+alice) {
			t.Errorf("the principal's roles were not asked: %v", w.asked)
		}
		wantCode(t, w.use(delegatedQuery(k, "2022-11-02", "r"), "container", "b", write), "AuthorizationPermissionMismatch")
		for name, change := range map[string][]string{"principal": {"skoid", "00000000-0000-4000-8000-0000000000bb"}, "end of the key": {"ske", "2026-03-09T12:00:00Z"},
			"letters": {"sp", "rw"}, "version": {"skv", "2022-11-02"}} {
			if err := w.use(delegatedQuery(k, "2022-11-02", "r", change...), "container", "b", read); err == nil {
				t.Errorf("with another %s it is good as well", name)
			} else {
				wantCode(t, err, "AuthenticationFailed")
			}
		}
		for _, name := range []string{"saoid", "suoid", "sduoid", "srh", "srq", "sdd"} {
			wantCode(t, w.use(delegatedQuery(k, "2022-11-02", "r", name, "x"), "container", "b", read), "AuthenticationFailed")
		}
		w.denied = accountType + "/blobServices/containers/blobs/read"
		wantCode(t, w.use(delegatedQuery(k, "2022-11-02", "r"), "container", "b", read), "AuthorizationFailed")
		w.denied, w.gone = "", alice
		wantCode(t, w.use(delegatedQuery(k, "2022-11-02", "r"), "container", "b", read), "AuthorizationFailure")
		w.gone = ""

		// The account's own keys are as they were, and have nothing to do with it.
		if keys, err := w.ListKeys(ctx, id("one")); err != nil || len(keys) != 2 {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		if err := w.RevokeDelegationKeys(ctx, id("one")); err != nil {
			t.Fatal(err)
		}
		wantCode(t, w.use(delegatedQuery(k, "2022-11-02", "r"), "container", "b", read), "AuthenticationFailed")
		w.denied = accountType + "/revokeUserDelegationKeys/action"
		wantCode(t, w.RevokeDelegationKeys(ctx, id("one")), "AuthorizationFailed")
	})
}

func TestUserDelegationKeyRefused(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	ctx := t.Context()
	w.caller = alice
	for _, times := range [][2]string{{"", ""}, {"", "never"}, {"soon", inAnHour}, {"", thisHour}, {inAnHour, inAnHour}, {"", "2026-03-08T12:00:01Z"}} {
		_, err := w.UserDelegationKey(ctx, "one", times[0], times[1], "2021-08-06")
		wantCode(t, err, "InvalidXmlNodeValue")
	}
	w.denied = delegated
	_, err := w.UserDelegationKey(ctx, "one", "", inAnHour, "2021-08-06")
	wantCode(t, err, "AuthorizationFailed")
	w.denied, w.caller = "", ""
	_, err = w.UserDelegationKey(ctx, "one", "", inAnHour, "2021-08-06")
	wantCode(t, err, "AuthorizationFailure")
	w.caller = alice
	keys, err := w.ListKeys(ctx, id("one"))
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha256.New, keys[0].Value.Reveal())
	m.Write([]byte("text"))
	g, err := w.SignedBy(ctx, "one", "text", m.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.UserDelegationKey(storage.WithGrant(ctx, g), "one", "", inAnHour, "2021-08-06")
	wantCode(t, err, "AuthorizationFailure")
	_, err = w.UserDelegationKey(ctx, "none", "", inAnHour, "2021-08-06")
	wantCode(t, err, "StorageAccountNotFound")
}

// A signature that names a stored access policy is good for what that says, and no longer than it stands.
func TestStoredAccessPolicies(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		if err := w.put("b", "x"); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		set := func(policies ...storage.Policy) {
			t.Helper()
			if _, err := w.SetPolicies(ctx, "one", "container", policies); err != nil {
				t.Fatal(err)
			}
		}
		full := storage.Policy{ID: "readers", Start: thisHour, Expiry: inAnHour, Permissions: "r"}
		set(full, storage.Policy{ID: "empty"})
		if c, err := w.Policies(ctx, "one", "container"); err != nil || len(c.Policies) != 2 || c.Policies[0] != full {
			t.Errorf("%+v, %v", c, err)
		}
		sign := func(policy string, more ...string) string {
			t.Helper()
			keys, err := w.ListKeys(ctx, id("one"))
			if err != nil {
				t.Fatal(err)
			}
			q := url.Values{"sv": {"2022-11-02"}, "sr": {"c"}, "si": {policy}}
			for i := 0; i+1 < len(more); i += 2 {
				q.Set(more[i], more[i+1])
			}
			m := hmac.New(sha256.New, keys[0].Value.Reveal())
			m.Write([]byte(strings.Join([]string{q.Get("sp"), q.Get("st"), q.Get("se"), "/blob/one/container", policy, "", "", "2022-11-02", "c", "", "", "", "", "", "", ""}, "\n")))
			q.Set("sig", base64.StdEncoding.EncodeToString(m.Sum(nil)))
			return q.Encode()
		}
		read := func(g storage.Grant) error {
			_, err := w.Blob(storage.WithGrant(ctx, g), "one", "container", "b")
			return err
		}
		if err := w.use(sign("readers"), "container", "b", read); err != nil {
			t.Error(err)
		}
		if err := w.use(sign("empty", "sp", "r", "se", inAnHour), "container", "b", read); err != nil {
			t.Error(err)
		}
		wantCode(t, w.use(sign("readers", "sp", "rw"), "container", "b", read), "AuthenticationFailed")
		wantCode(t, w.use(sign("none", "sp", "r", "se", inAnHour), "container", "b", read), "AuthenticationFailed")
		wantCode(t, w.use(sign("empty", "se", inAnHour), "container", "b", read), "AuthorizationPermissionMismatch")
		wantCode(t, w.use(sign("readers"), "other", "b", read), "AuthenticationFailed")
		w.now = start.Add(time.Hour)
		wantCode(t, w.use(sign("readers"), "container", "b", read), "AuthenticationFailed")
		w.now = start
		set(storage.Policy{ID: "readers", Expiry: inAnHour, Permissions: "w"})
		wantCode(t, w.use(sign("readers"), "container", "b", read), "AuthorizationPermissionMismatch")
		set()
		wantCode(t, w.use(sign("readers"), "container", "b", read), "AuthenticationFailed")

		for _, wrong := range [][]storage.Policy{{{ID: ""}}, {{ID: strings.Repeat("x", 65)}}, {{ID: "a"}, {ID: "a"}}, {{ID: "a", Expiry: "never"}},
			{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}, {ID: "e"}, {ID: "f"}}} {
			_, err := w.SetPolicies(ctx, "one", "container", wrong)
			wantCode(t, err, "InvalidXmlDocument")
		}
		// Who comes with a signature changes no policy, and reads none.
		v, err := url.ParseQuery(must(w.ListAccountSAS(ctx, id("one"), storage.SAS{Services: "b", Types: "sco", Permissions: "rwdlac", Expiry: inAnHour}, "")))
		if err != nil {
			t.Fatal(err)
		}
		err = w.use(v.Encode(), "container", "", func(g storage.Grant) error {
			_, err := w.SetPolicies(storage.WithGrant(ctx, g), "one", "container", nil)
			return err
		})
		wantCode(t, err, "AuthorizationPermissionMismatch")
	})
}

func must(query string, err error) string {
	if err != nil {
		panic(err)
	}
	return query
}
