package conformance

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kluis/internal/armid"
)

// Trace names the operations that a server's log says were answered well to those whose agent is wanted.
func Trace(log string, wanted func(agent string) bool) []string {
	called := map[string]bool{}
	for line := range strings.Lines(log) {
		fields := attributes(line)
		if !wanted(fields["agent"]) || fields["status"] >= "400" || fields["code"] != "" || fields["error"] != "" {
			continue
		}
		if name := strings.ToLower(ofLine(fields)); name != "" && !polled.MatchString(name) {
			called[name] = true
		}
	}
	return slices.Sorted(maps.Keys(called))
}

// polled are the operations by which a client asks whether another one is over. Whether it must ask is a matter of
// time, so no list has them.
var polled = regexp.MustCompile(`^get .*/[a-z]*operations?(status(es)?|results?)?/\{\}(` + wide + `)?$`)

// ofLine names the operation of a line; "" if it tells of none. Each door has lines of its own.
func ofLine(fields map[string]string) string {
	operation := fields["operation"]
	switch fields["msg"] {
	case "request":
		return ofRequest(fields["method"], operation, fields["resource"])
	case "key vault request":
		return newest(parameter.ReplaceAllString(operation, "{}"))
	case "graph request", "blob request":
		return operation
	}
	return ""
}

var parameter = regexp.MustCompile(`\{[^/}]*\}`)

// newest: where a version may be left out, which means the newest one, descriptions have the path with a version only.
func newest(operation string) string { return unversioned.ReplaceAllString(operation, "$1/{}$2") }

var unversioned = regexp.MustCompile(`^((?:GET|PATCH) (?:keys|secrets)/\{\}|POST keys/\{\})(|/encrypt|/decrypt|/sign|/verify|/wrapkey|/unwrapkey|/release)$`)

// ofRequest: the log has the operation as roles name it, type/verb, and the resource it was done to; for a list that is
// the one it is a list of.
func ofRequest(method, operation, resource string) string {
	cut := strings.LastIndexByte(operation, '/')
	id, err := armid.Parse(resource)
	if err != nil || cut < 0 {
		return ""
	}
	typ, of := operation[:cut], kind(id)
	if strings.EqualFold(typ, id.Provider) {
		return method + " providers/{}"
	}
	if id.Provider != "" && len(id.Segments) == 0 {
		of = "" // a namespace alone is no resource
	}
	name := method + " " + named(typ) // listed in a scope, or an action of the namespace
	switch {
	case strings.EqualFold(typ, of):
		name += "/{}"
	case of != "" && len(typ) > len(of) && strings.EqualFold(typ[:len(of)], of):
		name = method + " " + named(of) + "/{}" + typ[len(of):]
	}
	if id.Subscription != "" && id.ResourceGroup == "" && strings.Contains(typ, ".") {
		name += wide
	}
	return name
}

// attributes reads a line of slog's text: name=value, and the value in quotes where it needs them.
func attributes(line string) map[string]string {
	fields := map[string]string{}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		name, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		value, quoted := rest, false
		if text, err := strconv.QuotedPrefix(rest); err == nil {
			value, _ = strconv.Unquote(text)
			rest, quoted = rest[len(text):], true
		}
		if !quoted {
			value, rest, _ = strings.Cut(rest, " ")
		}
		fields[name], line = value, rest
	}
	return fields
}
