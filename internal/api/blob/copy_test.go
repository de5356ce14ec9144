package blob_test

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"kluis/internal/storage"
)

// Blobs and blocks are copied from a URL: of the same account, of another one with a signature, and of a disk.
func TestFromURL(t *testing.T) {
	d := open(t, sqlite(t))
	two := storage.Account{ID: group.Resource("Microsoft.Storage/storageAccounts", "two"), Location: "westeurope", Kind: "StorageV2", SKU: "Standard_LRS"}
	if _, _, err := d.s.PutAccount(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	host := "Host: two." + suffix
	d.want(201, "", d.send("PUT", "/box?restype=container", "", host))
	d.want(201, "", d.put("from", "0123456789", host, "X-Ms-Blob-Content-Type: text/plain", "X-Ms-Meta-Colour: red"))
	sas, err := d.s.ListServiceSAS(t.Context(), two.ID, storage.SAS{Resource: "b", Permissions: "r", Expiry: "2026-03-02"}, "/blob/two/box/from", "")
	if err != nil {
		t.Fatal(err)
	}
	from := "X-Ms-Copy-Source: https://two." + suffix + "/box/from?" + sas
	d.want(202, "", d.send("PUT", "/box/copy", "", from))
	d.want(201, "", d.send("PUT", "/box/put", "", from, "X-Ms-Blob-Type: BlockBlob", "X-Ms-Blob-Cache-Control: no-store"))
	d.want(201, "", d.send("PUT", "/box/blocks?comp=block&blockid=AAAA", "", from, "X-Ms-Source-Range: bytes=2-4"))
	d.want(201, "", d.send("PUT", "/box/blocks?comp=block&blockid=BBBB", "", from, "X-Ms-Source-Range: bytes=8-9"))
	d.want(201, "", d.send("PUT", "/box/blocks?comp=blocklist", "<BlockList><Latest>BBBB</Latest><Latest>AAAA</Latest></BlockList>"))
	for name, want := range map[string]string{"copy": "0123456789", "put": "0123456789", "blocks": "89234"} {
		if a := d.want(200, "", d.send("GET", "/box/"+name, "")); a.body != want {
			t.Errorf("%s is %q", name, a.body)
		}
	}
	if h := d.send("HEAD", "/box/copy", "").Header; h.Get("Content-Type") != "text/plain" || !metaIs(h, "red") {
		t.Errorf("the copy has %v", h)
	}
	if h := d.send("HEAD", "/box/put", "").Header; h.Get("Content-Type") != "text/plain" || h.Get("Cache-Control") != "no-store" || !metaIs(h, "") {
		t.Errorf("what was put has %v", h)
	}
	other := strings.Replace(from, "/box/from", "/box/other", 1)
	d.want(403, "AuthenticationFailed", d.send("PUT", "/box/copy", "", other))
	d.want(202, "", d.send("PUT", "/box/copy", "", from))
	const block = "/box/blocks?comp=block&blockid=CCCC"
	d.want(400, "InvalidHeaderValue", d.send("PUT", block, "body", from))
	d.want(400, "InvalidHeaderValue", d.send("PUT", block, "", from, "X-Ms-Source-Range: bytes=x"))
	d.want(416, "InvalidRange", d.send("PUT", block, "", from, "X-Ms-Source-Range: bytes=11-12"))
	d.want(400, "Md5Mismatch", d.send("PUT", block, "", from, "X-Ms-Source-Content-Md5: AAAAAAAAAAAAAAAAAAAAAA=="))
	d.want(404, "BlobNotFound", d.send("PUT", block, "", "X-Ms-Copy-Source: https://one."+suffix+"/box/nothing"))
}

// metaIs reports whether a blob has that colour; "" is none. The header is in lower case, as az wants it.
func metaIs(h http.Header, want string) bool {
	for name, values := range h {
		if name == "x-ms-meta-colour" {
			return values[0] == want
		}
	}
	return want == ""
}

func TestBlobFromADisk(t *testing.T) {
	c := show(t)
	d := openWith(t, sqlite(t), c.s)
	d.want(202, "", d.send("PUT", "/box/disk.vhd", "", "X-Ms-Copy-Source: "+c.url.String()))
	if a := d.want(206, "", d.send("GET", "/box/disk.vhd", "", "Range: bytes=0-8388607")); a.body != string(c.content) {
		t.Error("the blob is not the disk")
	}
	wrong := *c.url
	wrong.RawQuery = url.Values{"si": {c.url.Query().Get("si")}, "sig": {"AAAA"}}.Encode()
	d.want(403, "AuthenticationFailed", d.send("PUT", "/box/disk.vhd", "", "X-Ms-Copy-Source: "+wrong.String()))
}

func TestLeases(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("b", "x"))
	const mine, theirs = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	for _, path := range []string{"/box/b?", "/box?restype=container&"} {
		do := func(verb string, headers ...string) answer {
			return d.send("PUT", path+"comp=lease", "", append(headers, "X-Ms-Lease-Action: "+verb)...)
		}
		a := d.want(201, "", do("acquire", "X-Ms-Lease-Duration: -1", "X-Ms-Proposed-Lease-Id: "+mine))
		if a.Header.Get("X-Ms-Lease-Id") != mine {
			t.Errorf("%s: lease %s", path, a.Header.Get("X-Ms-Lease-Id"))
		}
		if h := d.send("HEAD", path, "").Header; h.Get("X-Ms-Lease-State") != "leased" || h.Get("X-Ms-Lease-Status") != "locked" || h.Get("X-Ms-Lease-Duration") != "infinite" {
			t.Errorf("%s: %v", path, h)
		}
		d.want(409, "LeaseAlreadyPresent", do("acquire", "X-Ms-Lease-Duration: 15"))
		d.want(412, "LeaseIdMissing", d.send("DELETE", path, ""))
		d.want(200, "", do("renew", "X-Ms-Lease-Id: "+mine))
		if a := d.want(200, "", do("change", "X-Ms-Lease-Id: "+mine, "X-Ms-Proposed-Lease-Id: "+theirs)); a.Header.Get("X-Ms-Lease-Id") != theirs {
			t.Errorf("%s: changed to %s", path, a.Header.Get("X-Ms-Lease-Id"))
		}
		if a := d.want(202, "", do("break", "X-Ms-Lease-Break-Period: 10")); a.Header.Get("X-Ms-Lease-Time") != "10" {
			t.Errorf("%s: broken in %s", path, a.Header.Get("X-Ms-Lease-Time"))
		}
		d.want(200, "", do("release", "X-Ms-Lease-Id: "+theirs))
		d.want(201, "", do("acquire", "X-Ms-Lease-Duration: 60", "X-Ms-Proposed-Lease-Id: "+mine))
	}
	if a := d.want(200, "", d.send("GET", "/box?restype=container&comp=list", "")); !strings.Contains(a.body, "<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState><LeaseDuration>fixed</LeaseDuration>") {
		t.Errorf("list: %s", a.body)
	}
	d.want(412, "LeaseIdMissing", d.put("b", "y"))
	d.want(412, "LeaseIdMismatchWithBlobOperation", d.put("b", "y", "X-Ms-Lease-Id: "+theirs))
	d.want(201, "", d.put("b", "y", "X-Ms-Lease-Id: "+mine))
	d.want(412, "LeaseIdMismatchWithContainerOperation", d.send("GET", "/box?restype=container", "", "X-Ms-Lease-Id: "+theirs))
	d.want(202, "", d.send("DELETE", "/box?restype=container", "", "X-Ms-Lease-Id: "+mine))
}

// The policies of a container come back as they were set.
func TestContainerACL(t *testing.T) {
	d := open(t, sqlite(t))
	const one = `<SignedIdentifier><Id>MTIz</Id><AccessPolicy><Start>2026-03-01T12:00:00.0000000Z</Start><Expiry>2026-03-02</Expiry><Permission>rwd</Permission></AccessPolicy></SignedIdentifier>`
	set := func(body string) answer {
		return d.send("PUT", "/box?restype=container&comp=acl", `<?xml version="1.0"?><SignedIdentifiers>`+body+`</SignedIdentifiers>`)
	}
	d.want(200, "", set(one))
	if a := d.want(200, "", d.send("GET", "/box?restype=container&comp=acl", "")); !strings.Contains(a.body, one) {
		t.Errorf("policies %s", a.body)
	}
	d.want(400, "InvalidXmlDocument", set(one+one))
	d.want(400, "InvalidXmlDocument", set("<SignedIdentifier>"))
	d.want(200, "", set(""))
	if a := d.want(200, "", d.send("GET", "/box?restype=container&comp=acl", "")); strings.Contains(a.body, "Id") && strings.Contains(a.body, "MTIz") {
		t.Errorf("policies %s", a.body)
	}
}

func TestUserDelegationKey(t *testing.T) {
	d := open(t, sqlite(t))
	ask := func(body string, headers ...string) answer {
		return d.send("POST", "/?restype=service&comp=userdelegationkey", body, append(headers, "X-Ms-Version: 2021-08-06")...)
	}
	a := d.want(200, "", ask("<KeyInfo><Start>2026-03-01T12:00:00Z</Start><Expiry>2026-03-02T12:00:00Z</Expiry></KeyInfo>"))
	var k struct {
		XMLName                                                                              xml.Name `xml:"UserDelegationKey"`
		SignedOid, SignedTid, SignedStart, SignedExpiry, SignedService, SignedVersion, Value string
	}
	if err := xml.Unmarshal([]byte(a.body), &k); err != nil || k.SignedOid != "o" || k.SignedTid != "t" || k.SignedExpiry != "2026-03-02T12:00:00Z" || k.SignedVersion != "2021-08-06" || k.Value == "" {
		t.Errorf("%+v, %v: %s", k, err, a.body)
	}
	d.want(400, "InvalidXmlNodeValue", ask("<KeyInfo><Expiry>2027-01-01</Expiry></KeyInfo>"))
	d.want(400, "InvalidXmlDocument", ask("<KeyInfo>"))
	d.denied = "generateUserDelegationKey/action"
	if a := ask("<KeyInfo><Expiry>2026-03-02</Expiry></KeyInfo>"); a.StatusCode != 403 {
		t.Errorf("without the right to it: %d", a.StatusCode)
	}
}
