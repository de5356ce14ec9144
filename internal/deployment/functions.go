package deployment

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"kluis/internal/armid"
)

// scope is what an expression can refer to.
type scope struct {
	group      armid.ID
	location   string // of the resource group
	tenant     string
	name       string // of the deployment
	parameters map[string]any
	variables  map[string]any
}

// maxString bounds what an expression may make of a template.
const maxString = 1 << 20

type function func(s *scope, args []any) (any, error)

// functions are those that a restore's template and the templates of ordinary users need. Names are
// compared in lower case, as Azure does.
var functions map[string]function

func init() { // the table refers to functions that evaluate with it
	functions = map[string]function{
		"parameters": named("parameter", func(s *scope) map[string]any { return s.parameters }),
		"variables":  named("variable", func(s *scope) map[string]any { return s.variables }),
		"resourcegroup": func(s *scope, args []any) (any, error) {
			return map[string]any{"id": s.group.String(), "name": s.group.Name(), "location": s.location}, count(args, 0, 0)
		},
		"subscription": func(s *scope, args []any) (any, error) {
			return map[string]any{"id": armid.Subscription(s.group.Subscription).String(), "subscriptionId": s.group.Subscription, "tenantId": s.tenant}, count(args, 0, 0)
		},
		"deployment": func(s *scope, args []any) (any, error) {
			return map[string]any{"name": s.name}, count(args, 0, 0)
		},
		"resourceid":   resourceID,
		"concat":       concat,
		"format":       format,
		"tolower":      onString(strings.ToLower),
		"toupper":      onString(strings.ToUpper),
		"trim":         onString(strings.TrimSpace),
		"string":       toString,
		"int":          toInt,
		"bool":         toBool,
		"json":         parseJSON,
		"length":       length,
		"empty":        empty,
		"contains":     contains,
		"first":        end(0),
		"last":         end(-1),
		"split":        split,
		"join":         join,
		"replace":      replace,
		"substring":    substring,
		"startswith":   compareStrings(func(a, b string) bool { return strings.HasPrefix(strings.ToLower(a), strings.ToLower(b)) }),
		"endswith":     compareStrings(func(a, b string) bool { return strings.HasSuffix(strings.ToLower(a), strings.ToLower(b)) }),
		"equals":       equals,
		"not":          not,
		"and":          all(false),
		"or":           all(true),
		"if":           choose,
		"coalesce":     coalesce,
		"createarray":  func(_ *scope, args []any) (any, error) { return slices.Clone(args), nil },
		"createobject": createObject,
		"union":        union,
		"uniquestring": uniqueString,
		"add":          arithmetic(func(a, b int64) (int64, error) { return a + b, nil }),
		"sub":          arithmetic(func(a, b int64) (int64, error) { return a - b, nil }),
		"mul":          arithmetic(func(a, b int64) (int64, error) { return a * b, nil }),
		"div":          arithmetic(divide(func(a, b int64) int64 { return a / b })),
		"mod":          arithmetic(divide(func(a, b int64) int64 { return a % b })),
		"true":         func(_ *scope, args []any) (any, error) { return true, count(args, 0, 0) },
		"false":        func(_ *scope, args []any) (any, error) { return false, count(args, 0, 0) },
		"null":         func(_ *scope, args []any) (any, error) { return nil, count(args, 0, 0) },
	}
}

// eval gives an expression its value.
func (s *scope) eval(n *node) (any, error) {
	if n.call == "" {
		return n.literal, nil
	}
	f, ok := functions[strings.ToLower(n.call)]
	if !ok {
		return nil, fmt.Errorf("the function %q is not known here", n.call)
	}
	args := make([]any, len(n.args))
	for i, a := range n.args {
		v, err := s.eval(a)
		if err != nil {
			return nil, err
		}
		args[i] = v
	}
	v, err := f(s, args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.call, err)
	}
	for _, st := range n.path {
		if v, err = s.take(v, st); err != nil {
			return nil, fmt.Errorf("%s: %w", n.call, err)
		}
	}
	return v, nil
}

func (s *scope) take(v any, st step) (any, error) {
	key := any(st.name)
	if st.index != nil {
		var err error
		if key, err = s.eval(st.index); err != nil {
			return nil, err
		}
	}
	switch k := key.(type) {
	case string:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("the property %q is asked of what is no object", k)
		}
		value, ok := lookup(m, k)
		if !ok {
			return nil, fmt.Errorf("there is no property %q; there are: %s", k, strings.Join(slices.Sorted(maps.Keys(m)), ", "))
		}
		return value, nil
	case int64:
		a, ok := v.([]any)
		if !ok || k < 0 || k >= int64(len(a)) {
			return nil, fmt.Errorf("there is no element %d", k)
		}
		return a[k], nil
	}
	return nil, fmt.Errorf("%v is neither a name nor an index", key)
}

// lookup finds a name in any case.
func lookup(m map[string]any, name string) (any, bool) {
	if v, ok := m[name]; ok {
		return v, true
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v, true
		}
	}
	return nil, false
}

func count(args []any, least, most int) error {
	if len(args) < least || most >= 0 && len(args) > most {
		return fmt.Errorf("%d arguments are given", len(args))
	}
	return nil
}

func stringArgs(args []any, least, most int) ([]string, error) {
	if err := count(args, least, most); err != nil {
		return nil, err
	}
	all := make([]string, len(args))
	for i, a := range args {
		s, ok := a.(string)
		if !ok {
			return nil, fmt.Errorf("argument %d is not a string", i+1)
		}
		all[i] = s
	}
	return all, nil
}

func named(kind string, of func(*scope) map[string]any) function {
	return func(s *scope, args []any) (any, error) {
		name, err := stringArgs(args, 1, 1)
		if err != nil {
			return nil, err
		}
		v, ok := lookup(of(s), name[0])
		if !ok {
			return nil, fmt.Errorf("there is no %s %q", kind, name[0])
		}
		return v, nil
	}
}

// resourceID makes an id: [subscription], [resource group], type, one name for each segment of the type.
func resourceID(s *scope, args []any) (any, error) {
	words, err := stringArgs(args, 2, -1)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(words, func(w string) bool { return strings.Contains(w, "/") })
	if at < 0 || at > 2 {
		return nil, fmt.Errorf("no argument is a resource type")
	}
	subscription, group := s.group.Subscription, s.group.ResourceGroup
	if at == 2 {
		subscription = words[0]
	}
	if at >= 1 {
		group = words[at-1]
	}
	types, names := strings.Split(words[at], "/"), words[at+1:]
	if len(names) != len(types)-1 {
		return nil, fmt.Errorf("the type %s needs %d names, %d are given", words[at], len(types)-1, len(names))
	}
	id := armid.ID{Subscription: subscription, ResourceGroup: group, Provider: types[0]}
	for i, name := range names {
		id = id.Child(types[i+1], name)
	}
	return id.String(), nil
}

func concat(_ *scope, args []any) (any, error) {
	if err := count(args, 1, -1); err != nil {
		return nil, err
	}
	if _, isArray := args[0].([]any); isArray {
		var joined []any
		for _, a := range args {
			part, ok := a.([]any)
			if !ok {
				return nil, fmt.Errorf("arrays and other values are mixed")
			}
			joined = append(joined, part...)
		}
		return joined, nil
	}
	var b strings.Builder
	for i, a := range args {
		text, err := asText(a)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		b.WriteString(text)
	}
	return bounded(b.String())
}

func bounded(s string) (any, error) {
	if len(s) > maxString {
		return nil, fmt.Errorf("the string has more than %d bytes", maxString)
	}
	return s, nil
}

// asText is how a value reads inside a string.
func asText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case map[string]any, []any, float64:
		b, err := json.Marshal(v)
		return string(b), err
	}
	return "", fmt.Errorf("a null has no text")
}

// format replaces {0}, {1} … by arguments.
func format(_ *scope, args []any) (any, error) {
	if err := count(args, 1, -1); err != nil {
		return nil, err
	}
	pattern, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("the pattern is not a string")
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(pattern, "{")
		b.WriteString(before)
		if !found {
			return bounded(b.String())
		}
		number, after, closed := strings.Cut(rest, "}")
		i, err := strconv.Atoi(number)
		if !closed || err != nil || i < 0 || i+1 >= len(args) {
			return nil, fmt.Errorf("{%.20s does not name an argument", rest)
		}
		text, err := asText(args[i+1])
		if err != nil {
			return nil, err
		}
		if b.WriteString(text); b.Len() > maxString {
			return bounded(b.String())
		}
		pattern = after
	}
}

func onString(f func(string) string) function {
	return func(_ *scope, args []any) (any, error) {
		s, err := stringArgs(args, 1, 1)
		if err != nil {
			return nil, err
		}
		return f(s[0]), nil
	}
}

func compareStrings(f func(a, b string) bool) function {
	return func(_ *scope, args []any) (any, error) {
		s, err := stringArgs(args, 2, 2)
		if err != nil {
			return nil, err
		}
		return f(s[0], s[1]), nil
	}
}

func toString(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	return asText(args[0])
}

func toInt(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	switch v := args[0].(type) {
	case int64:
		return v, nil
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%v is not a whole number", args[0])
}

func toBool(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	switch v := args[0].(type) {
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			return b, nil
		}
	case int64:
		return v != 0, nil
	}
	return nil, fmt.Errorf("%v is neither true nor false", args[0])
}

func parseJSON(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 1, 1)
	if err != nil {
		return nil, err
	}
	return decodeValue([]byte(s[0]))
}

func length(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	n, ok := size(args[0])
	if !ok {
		return nil, fmt.Errorf("the value has no length")
	}
	return int64(n), nil
}

func size(v any) (int, bool) {
	switch v := v.(type) {
	case string:
		return len([]rune(v)), true
	case []any:
		return len(v), true
	case map[string]any:
		return len(v), true
	case nil:
		return 0, true
	}
	return 0, false
}

func empty(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	n, ok := size(args[0])
	return ok && n == 0, nil
}

func contains(_ *scope, args []any) (any, error) {
	if err := count(args, 2, 2); err != nil {
		return nil, err
	}
	switch v := args[0].(type) {
	case string:
		part, ok := args[1].(string)
		return ok && strings.Contains(v, part), nil
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return reflect.DeepEqual(e, args[1]) }), nil
	case map[string]any:
		name, ok := args[1].(string)
		if !ok {
			return false, nil
		}
		_, found := lookup(v, name)
		return found, nil
	}
	return nil, fmt.Errorf("the first argument holds nothing")
}

// end takes the first (0) or the last (-1) of an array or a string.
func end(which int) function {
	return func(_ *scope, args []any) (any, error) {
		if err := count(args, 1, 1); err != nil {
			return nil, err
		}
		var values []any
		switch v := args[0].(type) {
		case []any:
			values = v
		case string:
			if v == "" {
				return "", nil
			}
			for _, r := range v {
				values = append(values, string(r))
			}
		default:
			return nil, fmt.Errorf("the value is neither an array nor a string")
		}
		if len(values) == 0 {
			return nil, nil
		}
		return values[(which+len(values))%len(values)], nil
	}
}

func split(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 2, 2)
	if err != nil {
		return nil, err
	}
	var parts []any
	for _, p := range strings.Split(s[0], s[1]) {
		parts = append(parts, p)
	}
	return parts, nil
}

func join(_ *scope, args []any) (any, error) {
	if err := count(args, 2, 2); err != nil {
		return nil, err
	}
	values, ok := args[0].([]any)
	separator, isString := args[1].(string)
	if !ok || !isString {
		return nil, fmt.Errorf("an array and a string are needed")
	}
	parts := make([]string, len(values))
	for i, v := range values {
		text, err := asText(v)
		if err != nil {
			return nil, err
		}
		parts[i] = text
	}
	return bounded(strings.Join(parts, separator))
}

func replace(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 3, 3)
	if err != nil {
		return nil, err
	}
	if s[1] == "" {
		return nil, fmt.Errorf("the string to replace is empty")
	}
	if strings.Count(s[0], s[1])*len(s[2]) > maxString {
		return nil, fmt.Errorf("the string has more than %d bytes", maxString)
	}
	return bounded(strings.ReplaceAll(s[0], s[1], s[2]))
}

func substring(_ *scope, args []any) (any, error) {
	if err := count(args, 2, 3); err != nil {
		return nil, err
	}
	s, ok := args[0].(string)
	start, isStart := args[1].(int64)
	runes := []rune(s)
	length := int64(len(runes)) - start
	isLength := true
	if len(args) == 3 {
		length, isLength = args[2].(int64)
	}
	if !ok || !isStart || !isLength {
		return nil, fmt.Errorf("a string and numbers are needed")
	}
	if start < 0 || length < 0 || start > int64(len(runes)) || length > int64(len(runes))-start {
		return nil, fmt.Errorf("%d characters from %d are not in a string of %d", length, start, len(runes))
	}
	return string(runes[start : start+length]), nil
}

func equals(_ *scope, args []any) (any, error) {
	if err := count(args, 2, 2); err != nil {
		return nil, err
	}
	return reflect.DeepEqual(args[0], args[1]), nil
}

func not(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	b, ok := args[0].(bool)
	if !ok {
		return nil, fmt.Errorf("the value is neither true nor false")
	}
	return !b, nil
}

// all is "and" (ends at the first false) or "or" (ends at the first true).
func all(until bool) function {
	return func(_ *scope, args []any) (any, error) {
		if err := count(args, 2, -1); err != nil {
			return nil, err
		}
		result := !until
		for i, a := range args {
			b, ok := a.(bool)
			if !ok {
				return nil, fmt.Errorf("argument %d is neither true nor false", i+1)
			}
			if b == until {
				result = until
			}
		}
		return result, nil
	}
}

func choose(_ *scope, args []any) (any, error) {
	if err := count(args, 3, 3); err != nil {
		return nil, err
	}
	b, ok := args[0].(bool)
	if !ok {
		return nil, fmt.Errorf("the condition is neither true nor false")
	}
	if b {
		return args[1], nil
	}
	return args[2], nil
}

func coalesce(_ *scope, args []any) (any, error) {
	for _, a := range args {
		if a != nil {
			return a, nil
		}
	}
	return nil, nil
}

func createObject(_ *scope, args []any) (any, error) {
	if len(args)%2 != 0 {
		return nil, fmt.Errorf("a name has no value")
	}
	m := map[string]any{}
	for i := 0; i < len(args); i += 2 {
		name, ok := args[i].(string)
		if !ok {
			return nil, fmt.Errorf("argument %d is not a name", i+1)
		}
		m[name] = args[i+1]
	}
	return m, nil
}

func union(_ *scope, args []any) (any, error) {
	if err := count(args, 1, -1); err != nil {
		return nil, err
	}
	if _, isObject := args[0].(map[string]any); isObject {
		m := map[string]any{}
		for i, a := range args {
			part, ok := a.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("argument %d is not an object", i+1)
			}
			maps.Copy(m, part)
		}
		return m, nil
	}
	var values []any
	for i, a := range args {
		part, ok := a.([]any)
		if !ok {
			return nil, fmt.Errorf("argument %d is not an array", i+1)
		}
		for _, v := range part {
			if !slices.ContainsFunc(values, func(e any) bool { return reflect.DeepEqual(e, v) }) {
				values = append(values, v)
			}
		}
	}
	return values, nil
}

// uniqueString makes 13 characters of its arguments, always the same of the same.
func uniqueString(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 1, -1)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(strings.Join(s, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:13], nil
}

func arithmetic(f func(a, b int64) (int64, error)) function {
	return func(_ *scope, args []any) (any, error) {
		if err := count(args, 2, 2); err != nil {
			return nil, err
		}
		a, ok := args[0].(int64)
		b, also := args[1].(int64)
		if !ok || !also {
			return nil, fmt.Errorf("two whole numbers are needed")
		}
		return f(a, b)
	}
}

func divide(f func(a, b int64) int64) func(a, b int64) (int64, error) {
	return func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, fmt.Errorf("division by zero")
		}
		return f(a, b), nil
	}
}
