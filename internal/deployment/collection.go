package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// The functions that make and take apart arrays and objects. Many take strings too, as arrays of
// characters.

func length(_ *scope, args []any) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	n, ok := size(args[0])
	if !ok {
		return nil, errors.New("the value has no length")
	}
	return int64(n), nil
}

func size(v any) (int, bool) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), true
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
	return nil, errors.New("the first argument holds nothing")
}

func first(_ *scope, args []any) (any, error) {
	return end(args, func(a []any) any { return a[0] }, func(s string) string {
		_, n := utf8.DecodeRuneInString(s)
		return s[:n]
	})
}

func last(_ *scope, args []any) (any, error) {
	return end(args, func(a []any) any { return a[len(a)-1] }, func(s string) string {
		_, n := utf8.DecodeLastRuneInString(s)
		return s[len(s)-n:]
	})
}

// end takes an end of an array or of a string; of an empty one that is null or the empty string.
func end(args []any, ofArray func([]any) any, ofString func(string) string) (any, error) {
	if err := count(args, 1, 1); err != nil {
		return nil, err
	}
	switch v := args[0].(type) {
	case []any:
		if len(v) == 0 {
			return nil, nil
		}
		return ofArray(v), nil
	case string:
		return ofString(v), nil
	}
	return nil, errors.New("the value is neither an array nor a string")
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
		return nil, errors.New("a name has no value")
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

// union is one object with the members of all, the last ones winning, or one array with the values of all.
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
	values := []any{}
	seen := map[string]bool{}
	for i, a := range args {
		part, ok := a.([]any)
		if !ok {
			return nil, fmt.Errorf("argument %d is not an array", i+1)
		}
		for _, v := range part {
			text, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			if key := string(text); !seen[key] {
				seen[key] = true
				values = append(values, v)
			}
		}
	}
	return values, nil
}
