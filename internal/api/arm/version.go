package arm

import (
	"regexp"
	"slices"
	"strings"
)

// Versions are the api-versions of a type that are known by name, newest first. Whatever date lies between
// the oldest and the newest is taken, stable or preview: clients send many that few lists have, and what
// they differ in here is not enough to turn one away. A date outside of them is refused, as Azure does,
// because its client expects what is not there yet, or is not there any more.
type Versions []string

// date is the part of an api-version that orders it.
const date = len("2024-04-01")

// Has reports whether a well-formed api-version is taken. Without a list any is.
func (v Versions) Has(version string) bool {
	if len(v) == 0 {
		return true
	}
	return v[len(v)-1][:date] <= version[:date] && version[:date] <= v[0][:date]
}

// VersionsOf returns the api-versions of a type of the provider, written with its namespace: its own, or else
// those of the nearest type above it that has some.
func (p Provider) VersionsOf(typ string) Versions {
	for at := typ; at != ""; at = above(at) {
		for name, versions := range p.Versions {
			if strings.EqualFold(name, at) {
				return versions
			}
		}
	}
	return p.Versions[p.Namespace]
}

func above(typ string) string {
	return typ[:max(0, strings.LastIndexByte(typ, '/'))]
}

var apiVersion = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(-preview)?$`)

// checkVersions finds, when the table is made, what would be a mistake in a list of api-versions.
func checkVersions(versions Versions) bool {
	for _, v := range versions {
		if !apiVersion.MatchString(v) {
			return false
		}
	}
	return slices.IsSortedFunc(versions, func(a, b string) int { return strings.Compare(b[:date], a[:date]) })
}

// version is the request's api-version, if it is one of those that the type has. Azure has three ways to say
// no: one for what is not an api-version, one for a resource that is to be created, and one for all others.
func (x *exchange) version(m match) error {
	sent, known := x.request.APIVersion, m.versions()
	switch {
	case !apiVersion.MatchString(sent):
		return invalidAPIVersion(sent, known)
	case known.Has(sent):
		return nil
	case !strings.Contains(m.typ(), "."):
		return invalidAPIVersion(sent, known)
	case x.r.Method == "PUT":
		return versionNotRegistered(m.typ(), sent, known)
	}
	return versionNotFound(m.typ(), sent, known)
}

// typ is the type that a path speaks of.
func (m match) typ() string {
	if m.collection != nil {
		return m.collection.Type
	}
	if m.resource != nil {
		return m.resource.Type
	}
	return ""
}

func (m match) versions() Versions {
	switch {
	case m.collection != nil:
		return m.collection.versions
	case m.resource != nil:
		return m.resource.versions
	}
	return nil
}
