package blob_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kluis/internal/database/databasetest"
	"kluis/internal/storage"
)

// signed is an Authorization header over a text.
func (d *door) signed(text string) string {
	d.t.Helper()
	keys, err := d.s.ListKeys(d.t.Context(), group.Resource("Microsoft.Storage/storageAccounts", "one"))
	if err != nil {
		d.t.Fatal(err)
	}
	m := hmac.New(sha256.New, keys[1].Value.Reveal())
	m.Write([]byte(text))
	return "Authorization: SharedKey one:" + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// The texts are written out as "Authorize with Shared Key" has them.
func TestSharedKey(t *testing.T) {
	d := open(t, sqlite(t))
	const date = "Sun, 01 Mar 2026 12:10:00 GMT"
	const common = "x-ms-blob-type:BlockBlob\nx-ms-date:" + date + "\nx-ms-meta-colour:red\nx-ms-version:2021-08-06\n"
	put := func(text string, headers ...string) answer {
		return d.put("a%20b", "content", append([]string{d.signed(text), "X-Ms-Date: " + date, "X-Ms-Version: 2021-08-06", "X-Ms-Meta-Colour:  red ",
			"Content-Type: text/plain"}, headers...)...)
	}
	right := "PUT\n\n\n7\n\ntext/plain\n\n\n\n\n\n\n" + common + "/one/box/a%20b"
	if a := d.want(201, "", put(right)); a.Header.Get("X-Ms-Version") != "2021-08-06" {
		t.Errorf("the answer is of version %s", a.Header.Get("X-Ms-Version"))
	}
	const list = "GET\n\n\n\n\n\n\n\n\n\n\nbytes=0-3\nx-ms-date:" + date + "\n/one/box\ncomp:list\nprefix:a \nrestype:container"
	d.want(200, "", d.send("GET", "/box?restype=container&comp=list&prefix=a%20", "", d.signed(list), "X-Ms-Date: "+date, "Range: bytes=0-3"))

	for name, a := range map[string]answer{
		"another length":    put(strings.Replace(right, "\n7\n", "\n8\n", 1)),
		"another verb":      put(strings.Replace(right, "PUT", "GET", 1)),
		"another header":    put(right, "X-Ms-Meta-Colour: green"),
		"one header more":   put(right, "X-Ms-Client-Request-Id: 1"),
		"an old date":       put(strings.ReplaceAll(right, "12:10", "11:40"), "X-Ms-Date: Sun, 01 Mar 2026 11:40:00 GMT"),
		"a date to come":    put(strings.ReplaceAll(right, "12:10", "12:20"), "X-Ms-Date: Sun, 01 Mar 2026 12:20:00 GMT"),
		"no signature":      put(right, "Authorization: SharedKey one"),
		"a short one":       put(right, "Authorization: SharedKey one:AAAA"),
		"another account":   put(right, strings.Replace(d.signed(right), "one:", "two:", 1)),
		"no account at all": d.send("GET", "/box/b", "", d.signed(right), "X-Ms-Date: "+date, "Host: none."+suffix),
	} {
		if a.StatusCode != http.StatusForbidden || a.Header.Get("X-Ms-Error-Code") != "AuthenticationFailed" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
}

// A signature in the query is used in place of a token, and may say how a blob is served.
func TestSignedURL(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("b", "content", "X-Ms-Blob-Content-Type: text/html"))
	id := group.Resource("Microsoft.Storage/storageAccounts", "one")
	query, err := d.s.ListServiceSAS(t.Context(), id, storage.SAS{Resource: "b", Permissions: "r", Expiry: "2026-03-02", Override: [5]string{"no-store", "", "", "", "text/plain"}},
		"/blob/one/box/b", "")
	if err != nil {
		t.Fatal(err)
	}
	const nobody = "Authorization: "
	a := d.want(200, "", d.send("GET", "/box/b?"+query, "", nobody))
	if a.body != "content" || a.Header.Get("Content-Type") != "text/plain" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%q with %v", a.body, a.Header)
	}
	d.want(200, "", d.send("GET", "/blob/one/box/b?"+query, "", nobody, "Host: localhost:8443"))
	d.want(403, "AuthorizationPermissionMismatch", d.send("DELETE", "/box/b?"+query, "", nobody))
	d.want(403, "AuthenticationFailed", d.send("GET", "/box/b?"+query+"x", "", nobody))
	if strings.Contains(d.log.String(), "sig=") || strings.Contains(d.log.String(), "2026-03-02") {
		t.Errorf("the signature is in the log: %s", &d.log)
	}
	d.want(202, "", d.send("PUT", "/box/copy", "", "X-Ms-Copy-Source: https://one."+suffix+"/box/b?"+query))
	if a := d.want(200, "", d.send("GET", "/box/copy", "")); a.body != "content" {
		t.Errorf("the copy is %q", a.body)
	}
}

func FuzzSharedKey(f *testing.F) {
	d := open(f, databasetest.Open(f, "sqlite:"+f.TempDir()+"/kluis.db"))
	f.Add("SharedKey one:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "comp=list&restype=container", "bytes=0-1")
	f.Fuzz(func(t *testing.T, authorization, query, header string) {
		if authorization == bearer {
			return
		}
		r := httptest.NewRequest("GET", "https://one."+suffix+"/box/b", nil)
		r.URL.RawQuery = query
		r.Header = http.Header{"Authorization": {authorization}, "X-Ms-Date": {"Sun, 01 Mar 2026 12:00:00 GMT"}, "X-Ms-Range": {header}, "X-Ms-Version": {"2021-08-06"}}
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden && w.Code != http.StatusUnauthorized {
			t.Errorf("%q got %d", authorization, w.Code)
		}
	})
}

func FuzzBlockList(f *testing.F) {
	d := open(f, databasetest.Open(f, "sqlite:"+f.TempDir()+"/kluis.db"))
	f.Add(`<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>QQ==</Latest><Committed>QQ==</Committed></BlockList>`)
	f.Add(`<BlockList><Uncommitted><x/></Uncommitted>`)
	f.Fuzz(func(t *testing.T, list string) {
		r := httptest.NewRequest("PUT", "https://one."+suffix+"/box/b?comp=blocklist", strings.NewReader(list))
		r.Header.Set("Authorization", bearer)
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%q got %d %s", list, w.Code, w.Body)
		}
	})
}
