// Package armid is the resource id of Azure Resource Manager as a parsed value.
//
//	/subscriptions/{s}/resourceGroups/{g}/providers/{namespace}/{type}/{name}/{type}/{name}…
//
// Ids are compared without regard to case but shown as they were first written, so an ID keeps the
// case it was given and Key folds it. Tables keep both. It is a leaf because every service and every
// door speaks of resources by id, and none of them may import another for it.
package armid

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Segment is one {type}/{name} pair after the provider namespace.
type Segment struct{ Type, Name string }

// ID names a subscription, a resource group or a resource. The zero value is the tenant root, "/".
// It is immutable: methods that change something return a new ID.
type ID struct {
	Subscription  string
	ResourceGroup string
	Provider      string // namespace, e.g. "Microsoft.Compute"; empty for a subscription or group
	Segments      []Segment
}

// Limits of what is taken for an id; Azure's own names are far below.
const (
	maxLength  = 2048
	maxSegment = 260
)

// Parse reads an id. It accepts any case of the fixed words, with or without a trailing slash, and
// refuses whatever is not a whole id: empty segments, "." and "..", control characters, a type without a name.
func Parse(s string) (ID, error) {
	id, rest, err := ParsePath(s)
	if err != nil {
		return ID{}, err
	}
	if rest != "" {
		return ID{}, fmt.Errorf("resource id %q ends in a type without a name", clip(s))
	}
	return id, nil
}

// ParsePath reads a request path: an id, optionally followed by one more segment, which is a
// collection ("…/vaults") or an action ("…/backup"). The caller decides which.
func ParsePath(path string) (id ID, rest string, err error) {
	if len(path) > maxLength {
		return ID{}, "", fmt.Errorf("resource id longer than %d characters", maxLength)
	}
	if !strings.HasPrefix(path, "/") {
		return ID{}, "", fmt.Errorf("resource id %q does not begin with a slash", clip(path))
	}
	path = strings.TrimSuffix(path[1:], "/")
	if path == "" {
		return ID{}, "", nil
	}
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if err := checkSegment(p); err != nil {
			return ID{}, "", err
		}
	}
	if strings.EqualFold(parts[0], "subscriptions") {
		if len(parts) == 1 {
			return ID{}, parts[0], nil
		}
		id.Subscription = parts[1]
		parts = parts[2:]
		if len(parts) > 0 && strings.EqualFold(parts[0], "resourceGroups") {
			if len(parts) == 1 {
				return id, parts[0], nil
			}
			id.ResourceGroup = parts[1]
			parts = parts[2:]
		}
	}
	if len(parts) == 0 {
		return id, "", nil
	}
	if !strings.EqualFold(parts[0], "providers") {
		if len(parts) == 1 {
			return id, parts[0], nil
		}
		return ID{}, "", fmt.Errorf("resource id %q: %q where providers was expected", clip(path), clip(parts[0]))
	}
	if len(parts) == 1 {
		return id, parts[0], nil
	}
	id.Provider = parts[1]
	parts = parts[2:]
	for len(parts) >= 2 {
		id.Segments = append(id.Segments, Segment{parts[0], parts[1]})
		parts = parts[2:]
	}
	if len(parts) == 1 {
		rest = parts[0]
	}
	return id, rest, nil
}

func checkSegment(p string) error {
	if p == "" || p == "." || p == ".." {
		return fmt.Errorf("resource id has the segment %q", p)
	}
	if len(p) > maxSegment {
		return fmt.Errorf("resource id has a segment longer than %d characters", maxSegment)
	}
	for _, r := range p {
		if r < 0x20 || r == 0x7f || r == '\\' || r == utf8.RuneError {
			return fmt.Errorf("resource id has a segment with the character %q", r)
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// Must parses an id that is a constant of the program; it panics on a malformed one.
func Must(s string) ID {
	id, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return id
}

// Subscription returns the id of a subscription.
func Subscription(name string) ID { return ID{Subscription: name} }

// Group returns the id of a resource group of the same subscription.
func (id ID) Group(name string) ID {
	return ID{Subscription: id.Subscription, ResourceGroup: name}
}

// Resource returns the id of a top-level resource in the same group or subscription.
// The type is written "Microsoft.Compute/virtualMachines".
func (id ID) Resource(typ, name string) ID {
	namespace, kind, _ := strings.Cut(typ, "/")
	return ID{id.Subscription, id.ResourceGroup, namespace, []Segment{{kind, name}}}
}

// Child returns the id one {type}/{name} deeper.
func (id ID) Child(typ, name string) ID {
	segments := make([]Segment, len(id.Segments), len(id.Segments)+1)
	copy(segments, id.Segments)
	id.Segments = append(segments, Segment{typ, name})
	return id
}

// extension is where the last "providers" stands among the segments, or -1. What follows it is a resource
// that extends the one before it, as tags and locks do:
//
//	…/providers/Microsoft.Compute/virtualMachines/web/providers/Microsoft.Resources/tags/default
func (id ID) extension() int {
	for i := len(id.Segments) - 1; i >= 0; i-- {
		if strings.EqualFold(id.Segments[i].Type, "providers") {
			return i
		}
	}
	return -1
}

// Extended returns what the id extends: the resource before its last "providers", or the scope of a
// resource that extends none.
func (id ID) Extended() ID {
	i := id.extension()
	if i < 0 {
		return id.Scope()
	}
	id.Segments = id.Segments[:i]
	return id
}

// Extends reports whether the id is that of a resource that extends another one, and not of one that only lies in a
// subscription or group.
func (id ID) Extends() bool { return id.extension() >= 0 }

// Extension returns the id of a resource that extends this one, or lies in this subscription or group.
// The type is written "Microsoft.Authorization/locks".
func (id ID) Extension(typ, name string) ID {
	if id.Provider == "" {
		return id.Resource(typ, name)
	}
	namespace, kind, _ := strings.Cut(typ, "/")
	return id.Child("providers", namespace).Child(kind, name)
}

// Namespace returns the provider that the id's type belongs to.
func (id ID) Namespace() string {
	if i := id.extension(); i >= 0 {
		return id.Segments[i].Name
	}
	return id.Provider
}

// Parent returns the id one level up: the parent resource, the extended one, the group, the subscription, the root.
func (id ID) Parent() ID {
	switch {
	case len(id.Segments) > 1 && id.extension() >= len(id.Segments)-2:
		return id.Extended()
	case len(id.Segments) > 1:
		id.Segments = id.Segments[:len(id.Segments)-1]
		return id
	case id.Provider != "":
		id.Segments, id.Provider = nil, ""
		return id
	case id.ResourceGroup != "":
		id.ResourceGroup = ""
		return id
	}
	return ID{}
}

// Scope returns the resource group of the id, or its subscription when it has no group.
func (id ID) Scope() ID { return ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup} }

// Type returns the full resource type, "Microsoft.Compute/virtualMachines", or "" for a scope.
func (id ID) Type() string {
	if id.Provider == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(id.Namespace())
	for _, s := range id.Segments[id.extension()+1:] {
		b.WriteByte('/')
		b.WriteString(s.Type)
	}
	return b.String()
}

// Is reports whether the id names a resource of this type, in any case.
func (id ID) Is(typ string) bool { return strings.EqualFold(id.Type(), typ) }

// Name returns the last name: of the resource, else the group, else the subscription.
func (id ID) Name() string {
	switch {
	case len(id.Segments) > 0:
		return id.Segments[len(id.Segments)-1].Name
	case id.ResourceGroup != "":
		return id.ResourceGroup
	}
	return id.Subscription
}

// NameOf returns the name that follows the given type segment, or "".
func (id ID) NameOf(typ string) string {
	for _, s := range id.Segments {
		if strings.EqualFold(s.Type, typ) {
			return s.Name
		}
	}
	return ""
}

// IsZero reports whether the id is the tenant root.
func (id ID) IsZero() bool {
	return id.Subscription == "" && id.ResourceGroup == "" && id.Provider == ""
}

// String returns the id in Azure's canonical spelling of the fixed words.
func (id ID) String() string {
	var b strings.Builder
	if id.Subscription != "" {
		b.WriteString("/subscriptions/" + id.Subscription)
	}
	if id.ResourceGroup != "" {
		b.WriteString("/resourceGroups/" + id.ResourceGroup)
	}
	if id.Provider != "" {
		b.WriteString("/providers/" + id.Provider)
	}
	for _, s := range id.Segments {
		b.WriteString("/" + s.Type + "/" + s.Name)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// Key returns the folded form under which equal ids are equal strings.
func (id ID) Key() string { return strings.ToLower(id.String()) }

// Equal reports whether two ids name the same resource.
func (id ID) Equal(other ID) bool { return id.Key() == other.Key() }

// Within reports whether the id is the scope itself or lies below it.
func (id ID) Within(scope ID) bool {
	if scope.IsZero() {
		return true
	}
	key, prefix := id.Key(), scope.Key()
	return key == prefix || strings.HasPrefix(key, prefix+"/")
}

// MarshalText writes the id as a string.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText reads an id; the empty string is the zero ID.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := Parse(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
