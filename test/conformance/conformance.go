// Package conformance says what of Azure's API is here, and which clients have called it: docs/conformance.md, which its
// test writes and compares.
//
// An operation is named by its method and the types on its path: "GET Microsoft.RecoveryServices/vaults/{}/backupJobs/{}".
// The same name is made of three things, so that they can be laid side by side: of a path in a published description
// (ofPath), of a row in the tables of the doors (ofRow), and of a line in the server's log (Trace). The log is the witness
// of what a client has called: a test that lets a client play its story compares what the log names with the list that
// is kept of that client (Compare), and the report reads the list.
package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
)

// Trace names the operations that a server's log says were answered well.
func Trace(log string) []string {
	called := map[string]bool{}
	for line := range strings.Lines(log) {
		fields := attributes(line)
		if fields["msg"] != "request" || fields["status"] == "" || fields["status"] >= "400" || fields["operation"] == "" {
			continue
		}
		if name := ofLog(fields["method"], fields["operation"], fields["resource"]); name != "" {
			called[strings.ToLower(name)] = true
		}
	}
	return slices.Sorted(maps.Keys(called))
}

// Compare reports whether a client has called what the list at the path says; update writes the list anew.
func Compare(path, log string, update bool) error {
	got := []byte(strings.Join(Trace(log), "\n") + "\n")
	if update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			return err
		}
	}
	want, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("the client has called other operations than are listed; -update lists them, and docs/conformance.md is to be made anew")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// attributes reads a line of slog's text.
func attributes(line string) map[string]string {
	fields := map[string]string{}
	for field := range strings.FieldsSeq(line) {
		if name, value, ok := strings.Cut(field, "="); ok {
			fields[name] = strings.Trim(value, `"`)
		}
	}
	return fields
}

// ofLog: the log has the operation as roles name it, type/verb, and the resource it was done to; for a list that is the
// one it is a list of.
func ofLog(method, operation, resource string) string {
	cut := strings.LastIndexByte(operation, '/')
	id, err := armid.Parse(resource)
	if err != nil || cut < 0 {
		return ""
	}
	typ, of := operation[:cut], kind(id)
	switch {
	case strings.EqualFold(typ, of):
		return method + " " + named(typ) + "/{}"
	case of != "" && len(typ) > len(of) && strings.EqualFold(typ[:len(of)], of):
		return method + " " + named(of) + "/{}" + typ[len(of):]
	}
	return method + " " + named(typ) // listed in a scope
}

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

// ofRow names what a row of a door's table answers.
func ofRow(r arm.Resource) (all []string) {
	collection := named(r.Type)
	one := collection + "/{}"
	for method, handler := range map[string]arm.Handler{"GET": r.Get, "PUT": r.Put, "PATCH": r.Patch, "DELETE": r.Delete} {
		if handler != nil {
			all = append(all, method+" "+one)
		}
	}
	if r.Get != nil || r.Head != nil {
		all = append(all, "HEAD "+one)
	}
	if r.List != nil {
		all = append(all, "GET "+collection)
	}
	if !strings.Contains(r.Type, "/") && strings.Contains(r.Type, ".") { // the namespace itself carries actions
		one = collection
	}
	for action := range r.Actions {
		all = append(all, "POST "+one+"/"+action)
	}
	for action := range r.GetActions {
		all = append(all, "GET "+one+"/"+strings.ReplaceAll(action, "*", "{}"))
	}
	return all
}

// ofPath names the operation of a method on a path, as a description writes it. Whether a type is in a group or in a
// subscription makes no other operation of it. Outside of subscriptions there is nothing but the operations of providers,
// so what descriptions have there keeps its path for a name.
func ofPath(method, path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	i := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, "providers") })
	if i >= 0 && i+1 < len(parts) && strings.Contains(parts[i+1], ".") {
		inside := strings.EqualFold(parts[0], "subscriptions") || len(parts) == 3 && parts[2] == "operations"
		if !inside || slices.Contains(parts[i+1:], "providers") {
			return method + " " + path
		}
		return method + " " + strings.Join(append([]string{parts[i+1]}, nameless(parts[i+2:])...), "/")
	}
	if len(parts) > 2 && strings.EqualFold(parts[0], "subscriptions") && !strings.EqualFold(parts[2], "locations") {
		parts = parts[2:]
	}
	return method + " " + strings.Join(nameless(parts), "/")
}

func nameless(parts []string) (words []string) {
	for i, part := range parts {
		if i%2 == 1 || strings.HasPrefix(part, "{") {
			part = "{}"
		}
		words = append(words, part)
	}
	return words
}
