// Package conformance says what of Azure's API is here, and which clients have called it: docs/conformance.md, which its
// test writes and compares.
//
// An operation is named by its method and the types on its path: "GET Microsoft.RecoveryServices/vaults/{}/backupJobs/{}".
// The same name is made of three things, so that they can be laid side by side: of a path in a published description
// (ofPath), of a row in the tables of the doors (ofRow), and of a line in the server's log (Trace). Blobs have no such
// paths; their operations have the names that the reference of the Blob service gives them. What is asked of a subscription
// as a whole is another operation than what is asked of a group, but the rows of tables don't tell the two apart.
//
// The log is the witness of what a client has called: the test that lets a Client play its story compares what the log
// names with the list that is kept of that client, and the report reads the list. Only what the client itself sent counts,
// told by its User-Agent: Kluis's own client sets the stage.
package conformance

import (
	"regexp"
	"slices"
	"strings"

	"kluis/internal/armid"
)

// kind is the type of an id, with the names that tables have for those that have none.
func kind(id armid.ID) string {
	switch {
	case id.Provider != "":
		return id.Type()
	case id.ResourceGroup != "":
		return "resourceGroups"
	case id.Subscription != "":
		return "subscriptions"
	}
	return ""
}

// named puts a name behind each type but the last: "N/a/b" is "N/a/{}/b".
func named(typ string) string {
	words := strings.Split(typ, "/")
	if len(words) < 2 {
		return typ
	}
	return words[0] + "/" + strings.Join(words[1:], "/{}/")
}

// wide marks an operation on a subscription as a whole.
const wide = " of a subscription"

// ofPath names the operation of a method on a path, as a description writes it. Outside of subscriptions there is nothing
// but the operations of providers, so what descriptions have there keeps its path for a name.
func ofPath(method, path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if slices.Contains([]string{"keys", "deletedkeys", "secrets", "deletedsecrets"}, parts[0]) {
		return newest(method + " " + strings.Join(ofKeyVault(parts), "/"))
	}
	i := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, "providers") })
	if i >= 0 && i+1 < len(parts) && strings.Contains(parts[i+1], ".") {
		inside := strings.EqualFold(parts[0], "subscriptions") || len(parts) == 3 && parts[2] == "operations"
		if !inside || slices.Contains(parts[i+1:], "providers") {
			return method + " " + path
		}
		name := method + " " + strings.Join(append([]string{parts[i+1]}, nameless(parts[i+2:])...), "/")
		if inside && i == 2 {
			name += wide
		}
		return name
	}
	if len(parts) > 2 && strings.EqualFold(parts[0], "subscriptions") && !strings.EqualFold(parts[2], "locations") {
		parts = parts[2:]
	}
	return method + " " + strings.Join(nameless(parts), "/")
}

// ofKeyVault takes the names out of a path of a key vault's own host, where a version may stand behind a name.
func ofKeyVault(parts []string) []string {
	words := slices.Clone(parts)
	for i := 1; i < min(len(words), 3); i++ {
		if strings.HasPrefix(words[i], "{") || i == 1 && words[i] != "restore" || version.MatchString(words[i]) {
			words[i] = "{}"
		}
	}
	return words
}

var version = regexp.MustCompile(`^[0-9a-f]{32}$`)

func nameless(parts []string) (words []string) {
	for i, part := range parts {
		if i%2 == 1 || strings.HasPrefix(part, "{") {
			part = "{}"
		}
		words = append(words, part)
	}
	return words
}
