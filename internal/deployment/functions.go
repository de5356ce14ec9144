package deployment

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"

	"kluis/internal/armid"
)

type function func(s *scope, args []any) (any, error)

// functions are those that a restore's template and the templates of ordinary users need, by name in lower
// case; "if" is scope.choose. What an error says of an argument is which one, never its value.
var functions map[string]function

func init() { // the table refers to functions that evaluate with it
	functions = map[string]function{
		"parameters": named(func(s *scope) names { return s.parameters }),
		"variables":  named(func(s *scope) names { return s.variables }),
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
		"first":        first,
		"last":         last,
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
		"coalesce":     coalesce,
		"createarray":  func(_ *scope, args []any) (any, error) { return slices.Clone(args), nil },
		"createobject": createObject,
		"union":        union,
		"uniquestring": uniqueString,
		"add":          arithmetic((*big.Int).Add, false),
		"sub":          arithmetic((*big.Int).Sub, false),
		"mul":          arithmetic((*big.Int).Mul, false),
		"div":          arithmetic((*big.Int).Quo, true),
		"mod":          arithmetic((*big.Int).Rem, true),
		"true":         func(_ *scope, args []any) (any, error) { return true, count(args, 0, 0) },
		"false":        func(_ *scope, args []any) (any, error) { return false, count(args, 0, 0) },
		"null":         func(_ *scope, args []any) (any, error) { return nil, count(args, 0, 0) },
	}
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

func named(of func(*scope) names) function {
	return func(s *scope, args []any) (any, error) {
		name, err := stringArgs(args, 1, 1)
		if err != nil {
			return nil, err
		}
		return of(s).get(name[0])
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
		return nil, errors.New("no argument is a resource type")
	}
	subscription, group := s.group.Subscription, s.group.ResourceGroup
	if at == 2 {
		subscription = words[0]
	}
	if at >= 1 {
		group = words[at-1]
	}
	typ, given := strings.Split(words[at], "/"), words[at+1:]
	if len(given) != len(typ)-1 {
		return nil, fmt.Errorf("the type needs %d names, %d are given", len(typ)-1, len(given))
	}
	id := armid.ID{Subscription: subscription, ResourceGroup: group, Provider: typ[0]}
	for i, name := range given {
		id = id.Child(typ[i+1], name)
	}
	if parsed, err := armid.Parse(id.String()); err != nil || !parsed.Equal(id) {
		return nil, errors.New("a part of the id is empty, too long, or not a name")
	}
	return id.String(), nil
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
		return nil, errors.New("the value is neither true nor false")
	}
	return !b, nil
}

// all is "and" (one false decides) or "or" (one true decides).
func all(decides bool) function {
	return func(_ *scope, args []any) (any, error) {
		if err := count(args, 2, -1); err != nil {
			return nil, err
		}
		result := !decides
		for i, a := range args {
			b, ok := a.(bool)
			if !ok {
				return nil, fmt.Errorf("argument %d is neither true nor false", i+1)
			}
			if b == decides {
				result = decides
			}
		}
		return result, nil
	}
}

// arithmetic calculates with room to spare, and refuses what does not fit a whole number of 64 bits.
func arithmetic(f func(z, a, b *big.Int) *big.Int, divides bool) function {
	return func(_ *scope, args []any) (any, error) {
		if err := count(args, 2, 2); err != nil {
			return nil, err
		}
		a, ok := args[0].(int64)
		b, also := args[1].(int64)
		if !ok || !also {
			return nil, errors.New("two whole numbers are needed")
		}
		if divides && b == 0 {
			return nil, errors.New("division by zero")
		}
		z := f(new(big.Int), big.NewInt(a), big.NewInt(b))
		if !z.IsInt64() {
			return nil, errors.New("the number becomes too large")
		}
		return z.Int64(), nil
	}
}
