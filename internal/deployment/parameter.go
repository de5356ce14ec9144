package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Parameter is what a template asks for.
type Parameter struct {
	Type          string            `json:"type"`
	Default       json.RawMessage   `json:"defaultValue"`
	AllowedValues []json.RawMessage `json:"allowedValues"`
	MinLength     *int              `json:"minLength"`
	MaxLength     *int              `json:"maxLength"`
	MinValue      *int64            `json:"minValue"`
	MaxValue      *int64            `json:"maxValue"`
	Metadata      json.RawMessage   `json:"metadata"`
}

// Output is what a deployment tells when it is done.
type Output struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

// bind gives each parameter its value: the one that is given, else its default.
func (t *Template) bind(s *scope, given map[string]ParameterValue) (map[string]TypedValue, error) {
	values := map[string]json.RawMessage{}
	for name, v := range given {
		key := strings.ToLower(name)
		if _, twice := values[key]; twice {
			return nil, fmt.Errorf("the parameter %q is given twice", name)
		}
		if v.Value == nil {
			return nil, fmt.Errorf("the parameter %q is given without a value; references to key vaults are not supported here", name)
		}
		values[key] = v.Value
	}
	for name, p := range t.Parameters {
		value := values[strings.ToLower(name)]
		delete(values, strings.ToLower(name))
		if err := s.parameters.define(name, func() (any, error) { return s.value(p, value) }); err != nil {
			return nil, err
		}
	}
	for name := range given {
		if _, left := values[strings.ToLower(name)]; left {
			return nil, fmt.Errorf("the template has no parameter %q", name)
		}
	}
	if err := s.parameters.all(); err != nil {
		return nil, err
	}
	shown := map[string]TypedValue{}
	for name, p := range t.Parameters {
		shown[name] = typedValue(p.Type, s.parameters.values[strings.ToLower(name)])
	}
	return shown, nil
}

func (s *scope) value(p Parameter, given json.RawMessage) (v any, err error) {
	switch {
	case given != nil:
		v, err = decodeValue(given)
	case p.Default != nil:
		v, err = s.evalJSON(p.Default)
	default:
		err = errors.New("it has no default and is not given")
	}
	if err != nil {
		return nil, err
	}
	return v, p.check(v)
}

// types are the types of parameters and outputs by their names in lower case.
var types = map[string]struct {
	name   string
	secure bool
	fits   func(v any) bool
}{
	"string":       {"String", false, is[string]},
	"securestring": {"SecureString", true, is[string]},
	"int":          {"Int", false, is[int64]},
	"bool":         {"Bool", false, is[bool]},
	"array":        {"Array", false, is[[]any]},
	"object":       {"Object", false, is[map[string]any]},
	"secureobject": {"SecureObject", true, is[map[string]any]},
}

func is[T any](v any) bool { _, ok := v.(T); return ok }

func checkType(name string, v any) error {
	typ, ok := types[strings.ToLower(name)]
	if !ok {
		return fmt.Errorf("its type %q is not known", name)
	}
	if !typ.fits(v) {
		return fmt.Errorf("the value is not of type %s", name)
	}
	return nil
}

// typedValue is how a value is shown; one of a secure type is not.
func typedValue(name string, v any) TypedValue {
	typ := types[strings.ToLower(name)]
	if typ.secure {
		v = nil
	}
	return TypedValue{typ.name, v}
}

func (p Parameter) check(v any) error {
	if err := checkType(p.Type, v); err != nil {
		return err
	}
	if n, has := size(v); has && (p.MinLength != nil && n < *p.MinLength || p.MaxLength != nil && n > *p.MaxLength) {
		return fmt.Errorf("a length of %d is not allowed", n)
	}
	if n, is := v.(int64); is && (p.MinValue != nil && n < *p.MinValue || p.MaxValue != nil && n > *p.MaxValue) {
		return errors.New("the number is not in the allowed range")
	}
	for _, raw := range p.AllowedValues {
		allowed, err := decodeValue(raw)
		if err != nil {
			return err
		}
		if reflect.DeepEqual(v, allowed) {
			return nil
		}
	}
	if p.AllowedValues != nil {
		return errors.New("the value is not one of the allowed values")
	}
	return nil
}

// evalOutputs evaluates what a template tells at the end.
func (t *Template) evalOutputs(s *scope) (map[string]TypedValue, error) {
	outputs := map[string]TypedValue{}
	for name, o := range t.Outputs {
		v, err := s.evalJSON(o.Value)
		if err == nil {
			err = checkType(o.Type, v)
		}
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", name, err)
		}
		outputs[name] = typedValue(o.Type, v)
	}
	return outputs, nil
}
