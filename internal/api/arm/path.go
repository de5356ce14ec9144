package arm

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"kluis/internal/armid"
)

// readPath parses the path of a request. A slash inside a name would change what the path means once decoded, so
// it is refused; slashes doubled at the front come from endpoints that were configured with one.
func (t *table) readPath(u *url.URL) (armid.ID, string, error) {
	if strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return armid.ID{}, "", errors.New("a name contains an encoded slash")
	}
	path := "/" + strings.TrimLeft(noParent.ReplaceAllString(u.Path, "$1/"), "/")
	if m := short.FindStringSubmatch(path); m != nil && !strings.EqualFold(m[2], "providers") && !strings.EqualFold(m[2], "resourceGroups") {
		path = m[1] + "/providers/" + t.own + "/" + path[len(m[1])+1:]
	}
	return armid.ParsePath(path)
}

var (
	// noParent is how clients write the path of a generic resource that has no parent: with an empty segment for
	// the parent, between namespace and type, or with the type as the parent of an empty one.
	noParent = regexp.MustCompile(`(?i)(/providers/[^/]+(?:/[^/]+)?)//`)

	// short is how some of Resource Manager's own resources are written: without its namespace, as in
	// /subscriptions/{id}/tagNames/{name}.
	short = regexp.MustCompile(`(?i)^(/subscriptions/[^/]+(?:/resourceGroups/[^/]+)?)/([^/]+)/[^/]+`)
)
