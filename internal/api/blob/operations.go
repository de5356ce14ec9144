package blob

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// operation is one of the Blob service's, under the name that its reference has for it. It is told by what it is done
// to, the method and comp, and some of them by headers beside that.
type operation struct {
	name, on, methods, comp, headers string
	answer                           func(*door, context.Context, http.ResponseWriter, request) error
}

// What an operation is done to.
const (
	onKind      = "account's kind" // restype=account
	onService   = "service"        // restype=service
	onAccount   = "account"
	onContainer = "container"
	onBlob      = "blob"
)

// operations are all that there are here. comp=metadata reads the metadata alone, which the properties tell as well.
var operations = []operation{
	{"Get Account Information", onKind, "GET HEAD", "properties", "", (*door).accountInformation},
	{"Get User Delegation Key", onService, "POST", "userdelegationkey", "", (*door).userDelegationKey},
	{"List Containers", onAccount, "GET", "list", "", (*door).listContainers},

	{"Create Container", onContainer, "PUT", "", "", (*door).createContainer},
	{"Get Container Properties", onContainer, "GET HEAD", "", "", (*door).containerProperties},
	{"Get Container Metadata", onContainer, "GET HEAD", "metadata", "", (*door).containerProperties},
	{"Set Container Metadata", onContainer, "PUT", "metadata", "", (*door).setContainerMetadata},
	{"Get Container ACL", onContainer, "GET HEAD", "acl", "", (*door).containerACL},
	{"Set Container ACL", onContainer, "PUT", "acl", "", (*door).setContainerACL},
	{"Lease Container", onContainer, "PUT", "lease", "", (*door).leaseContainer},
	{"Delete Container", onContainer, "DELETE", "", "", (*door).deleteContainer},
	{"List Blobs", onContainer, "GET", "list", "", (*door).listBlobs},

	{"Put Blob From URL", onBlob, "PUT", "", "X-Ms-Copy-Source X-Ms-Blob-Type", (*door).writeFromURL},
	{"Copy Blob", onBlob, "PUT", "", "X-Ms-Copy-Source", (*door).copyBlob},
	{"Put Blob", onBlob, "PUT", "", "", (*door).write},
	{"Get Blob", onBlob, "GET", "", "", (*door).read},
	{"Get Blob Properties", onBlob, "HEAD", "", "", (*door).head},
	{"Get Blob Metadata", onBlob, "GET", "metadata", "", (*door).read},
	{"Get Blob Metadata", onBlob, "HEAD", "metadata", "", (*door).head},
	{"Set Blob Properties", onBlob, "PUT", "properties", "", (*door).setHeaders},
	{"Set Blob Metadata", onBlob, "PUT", "metadata", "", (*door).setMetadata},
	{"Lease Blob", onBlob, "PUT", "lease", "", (*door).leaseBlob},
	{"Delete Blob", onBlob, "DELETE", "", "", (*door).delete},
	{"Put Block From URL", onBlob, "PUT", "block", "X-Ms-Copy-Source", (*door).putBlockFromURL},
	{"Put Block", onBlob, "PUT", "block", "", (*door).putBlock},
	{"Put Block List", onBlob, "PUT", "blocklist", "", (*door).commitBlocks},
	{"Get Block List", onBlob, "GET", "blocklist", "", (*door).listBlocks},
}

// Operations are the names of all that the door answers, in the reference's words.
func Operations() (names []string) {
	for _, o := range operations {
		names = append(names, o.name)
	}
	return slices.Compact(append(names, getPageRanges))
}

const getPageRanges = "Get Page Ranges"

// ofDisk names the operation that a disk is read by.
func (x request) ofDisk() string {
	switch {
	case x.query.Get("comp") == "pagelist":
		return getPageRanges
	case x.Method == http.MethodHead:
		return "Get Blob Properties"
	}
	return "Get Blob"
}

// find picks the operation, or says what it is that is not done here.
func (x request) find() (operation, error) {
	on, err := x.subject()
	if err != nil {
		return operation{}, err
	}
	comp, known := x.query.Get("comp"), false
	for _, o := range operations {
		if o.on != on || o.comp != comp {
			continue
		}
		known = true
		if slices.Contains(strings.Fields(o.methods), x.Method) && x.hasAll(o.headers) {
			return o, nil
		}
	}
	if comp != "" && !known {
		return operation{}, unsupported("comp=" + comp + " on this " + on)
	}
	return operation{}, unsupported(x.Method + " on this " + on)
}

func (x request) hasAll(headers string) bool {
	return !slices.ContainsFunc(strings.Fields(headers), func(name string) bool { return x.Header.Get(name) == "" })
}

// subject is what the request is about.
func (x request) subject() (string, error) {
	switch kind := x.query.Get("restype"); {
	case kind == "container" && x.container != "" && x.blob == "":
		return onContainer, x.refuse("conditions on containers", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
	case kind == "account":
		return onKind, nil
	case kind == "service":
		return onService, nil
	case kind != "":
		return "", unsupported("restype=" + kind)
	case x.container == "":
		return onAccount, nil
	case x.blob == "":
		return "", unsupported(x.Method + " on a container without restype=container")
	}
	for _, name := range []string{"snapshot", "versionid"} {
		if value := x.query.Get(name); value != "" {
			return "", unsupported(name + "=" + value)
		}
	}
	return onBlob, nil
}

// refuse refuses what one of the headers asks for.
func (x request) refuse(what string, headers ...string) error {
	if slices.ContainsFunc(headers, func(name string) bool { return x.Header.Get(name) != "" }) {
		return unsupported(what)
	}
	return nil
}
