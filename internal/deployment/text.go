package deployment

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The functions that make and take apart strings.

// maxString bounds what a function makes, before it makes it.
const maxString = 1 << 20

var errTooLong = fmt.Errorf("the string has more than %d bytes", maxString)

func bounded(s string) (any, error) {
	if len(s) > maxString {
		return nil, errTooLong
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
	return "", errors.New("a null has no text")
}

// concat joins strings, or arrays.
func concat(_ *scope, args []any) (any, error) {
	if err := count(args, 1, -1); err != nil {
		return nil, err
	}
	if _, isArray := args[0].([]any); isArray {
		joined := []any{}
		for _, a := range args {
			part, ok := a.([]any)
			if !ok {
				return nil, errors.New("arrays and other values are mixed")
			}
			joined = append(joined, part...)
		}
		return joined, nil
	}
	return join(nil, []any{args, ""})
}

func join(_ *scope, args []any) (any, error) {
	if err := count(args, 2, 2); err != nil {
		return nil, err
	}
	values, ok := args[0].([]any)
	separator, isString := args[1].(string)
	if !ok || !isString {
		return nil, errors.New("an array and a string are needed")
	}
	var b strings.Builder
	for i, v := range values {
		text, err := asText(v)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", i+1, err)
		}
		if i > 0 {
			b.WriteString(separator)
		}
		if b.WriteString(text); b.Len() > maxString {
			return nil, errTooLong
		}
	}
	return b.String(), nil
}

// format replaces {0}, {1} … by arguments.
func format(_ *scope, args []any) (any, error) {
	if err := count(args, 1, -1); err != nil {
		return nil, err
	}
	pattern, ok := args[0].(string)
	if !ok {
		return nil, errors.New("the pattern is not a string")
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
			return nil, errors.New("a brace of the pattern does not name an argument")
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

func split(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 2, 2)
	if err != nil {
		return nil, err
	}
	parts := []any{}
	for _, p := range strings.Split(s[0], s[1]) {
		parts = append(parts, p)
	}
	return parts, nil
}

func replace(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 3, 3)
	if err != nil {
		return nil, err
	}
	if s[1] == "" {
		return nil, errors.New("the string to replace is empty")
	}
	if strings.Count(s[0], s[1])*len(s[2]) > maxString {
		return nil, errTooLong
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
		return nil, errors.New("a string and numbers are needed")
	}
	if start < 0 || length < 0 || start > int64(len(runes)) || length > int64(len(runes))-start {
		return nil, fmt.Errorf("%d characters from %d are not in a string of %d", length, start, len(runes))
	}
	return string(runes[start : start+length]), nil
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
	return nil, errors.New("the value is not a whole number")
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
	return nil, errors.New("the value is neither true nor false")
}

func parseJSON(_ *scope, args []any) (any, error) {
	s, err := stringArgs(args, 1, 1)
	if err != nil {
		return nil, err
	}
	return decodeValue([]byte(s[0]))
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
