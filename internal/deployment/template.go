package deployment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"kluis/internal/armid"
)

// Template is a deployment template as it is written.
type Template struct {
	Schema         string                     `json:"$schema"`
	ContentVersion string                     `json:"contentVersion"`
	Metadata       json.RawMessage            `json:"metadata"`
	Parameters     map[string]Parameter       `json:"parameters"`
	Variables      map[string]json.RawMessage `json:"variables"`
	Resources      []json.RawMessage          `json:"resources"`
	Outputs        map[string]Output          `json:"outputs"`
}

// Parameter is what a template asks for.
type Parameter struct {
	Type          string            `json:"type"`
	Default       json.RawMessage   `json:"defaultValue"`
	AllowedValues []json.RawMessage `json:"allowedValues"`
	MinLength     *int              `json:"minLength"`
	MaxLength     *int              `json:"maxLength"`
	Metadata      json.RawMessage   `json:"metadata"`
}

// Output is what a deployment tells when it is done.
type Output struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

// Resource is one resource of a plan: an id and the document to create it with.
type Resource struct {
	ID         armid.ID
	APIVersion string
	Body       json.RawMessage
	dependsOn  []string
}

const (
	maxTemplate  = 4 << 20
	maxResources = 800
)

// parseTemplate reads a template; whatever stands in it that is not of a template is an error.
func parseTemplate(text []byte) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("the template has %d bytes; at most %d are taken", len(text), maxTemplate)
	}
	var t Template
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, fmt.Errorf("the template is not one: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the template")
	}
	if t.Schema == "" || t.ContentVersion == "" {
		return nil, errors.New("$schema and contentVersion are required")
	}
	if len(t.Resources) > maxResources {
		return nil, fmt.Errorf("the template has %d resources; at most %d are taken", len(t.Resources), maxResources)
	}
	return &t, nil
}

// bind gives each parameter its value: the one that is given, else its default.
func (t *Template) bind(s *scope, given map[string]any) error {
	for name := range given {
		if _, ok := lookupParameter(t.Parameters, name); !ok {
			return fmt.Errorf("the parameter %q is not one of the template's: %s", name, strings.Join(slices.Sorted(maps.Keys(t.Parameters)), ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		p := t.Parameters[name]
		value, ok := lookup(given, name)
		if !ok && p.Default == nil {
			return fmt.Errorf("the parameter %q has no default and is not given", name)
		}
		if !ok {
			var err error
			if value, err = s.evalJSON(p.Default); err != nil {
				return fmt.Errorf("default of parameter %q: %w", name, err)
			}
		}
		if err := p.check(value); err != nil {
			return fmt.Errorf("parameter %q: %w", name, err)
		}
		s.parameters[name] = value
	}
	return nil
}

func lookupParameter(m map[string]Parameter, name string) (Parameter, bool) {
	for k, p := range m {
		if strings.EqualFold(k, name) {
			return p, true
		}
	}
	return Parameter{}, false
}

func (p Parameter) check(v any) error {
	var ok bool
	switch strings.ToLower(p.Type) {
	case "string", "securestring":
		_, ok = v.(string)
	case "int":
		_, ok = v.(int64)
	case "bool":
		_, ok = v.(bool)
	case "array":
		_, ok = v.([]any)
	case "object", "secureobject":
		_, ok = v.(map[string]any)
	default:
		return fmt.Errorf("its type %q is not known", p.Type)
	}
	if !ok {
		return fmt.Errorf("the value is not of type %s", p.Type)
	}
	if n, has := size(v); has && (p.MinLength != nil && n < *p.MinLength || p.MaxLength != nil && n > *p.MaxLength) {
		return fmt.Errorf("a length of %d is not allowed", n)
	}
	if len(p.AllowedValues) == 0 {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	for _, a := range p.AllowedValues {
		var compact bytes.Buffer
		if json.Compact(&compact, a) == nil && bytes.Equal(compact.Bytes(), text) {
			return nil
		}
	}
	return errors.New("the value is not one of the allowed values")
}

// plan evaluates the whole template: the resources in an order in which each comes after what it
// depends on. Nothing is created, so a template with an error anywhere creates nothing.
func (t *Template) plan(s *scope) ([]Resource, error) {
	if err := t.evalVariables(s); err != nil {
		return nil, err
	}
	var plan []Resource
	for i, raw := range t.Resources {
		r, wanted, err := s.resource(raw)
		if err != nil {
			return nil, fmt.Errorf("resource %d: %w", i+1, err)
		}
		if !wanted {
			continue
		}
		if slices.ContainsFunc(plan, func(other Resource) bool { return other.ID.Equal(r.ID) }) {
			return nil, fmt.Errorf("resource %d: %s is defined twice", i+1, r.ID)
		}
		plan = append(plan, r)
	}
	return order(plan)
}

// evalVariables evaluates variables until none is left: they may refer to each other in any order.
func (t *Template) evalVariables(s *scope) error {
	left := slices.Sorted(maps.Keys(t.Variables))
	for len(left) > 0 {
		var failed []string
		var reason error
		for _, name := range left {
			v, err := s.evalJSON(t.Variables[name])
			if err != nil {
				failed, reason = append(failed, name), fmt.Errorf("variable %q: %w", name, err)
				continue
			}
			s.variables[name] = v
		}
		if len(failed) == len(left) {
			return reason
		}
		left = failed
	}
	return nil
}

// resource evaluates one resource. It is not wanted when its condition is false.
func (s *scope) resource(raw json.RawMessage) (r Resource, wanted bool, err error) {
	v, err := decodeValue(raw)
	if err != nil {
		return Resource{}, false, err
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return Resource{}, false, errors.New("it is not an object")
	}
	if _, has := doc["copy"]; has {
		return Resource{}, false, errors.New("copy loops are not supported here; write the resources out")
	}
	if condition, has := doc["condition"]; has {
		value, err := s.evalValue(condition, 0)
		if err != nil {
			return Resource{}, false, fmt.Errorf("condition: %w", err)
		}
		if b, ok := value.(bool); !ok {
			return Resource{}, false, errors.New("its condition is neither true nor false")
		} else if !b {
			return Resource{}, false, nil
		}
	}
	value, err := s.evalValue(doc, 0)
	if err != nil {
		return Resource{}, false, err
	}
	doc = value.(map[string]any)
	typ, _ := doc["type"].(string)
	name, _ := doc["name"].(string)
	version, _ := doc["apiVersion"].(string)
	if typ == "" || name == "" || version == "" {
		return Resource{}, false, errors.New("type, name and apiVersion are required")
	}
	if r.ID, err = s.id(typ, name); err != nil {
		return Resource{}, false, err
	}
	if r.dependsOn, err = s.dependencies(doc["dependsOn"]); err != nil {
		return Resource{}, false, err
	}
	for _, word := range []string{"type", "name", "apiVersion", "dependsOn", "condition", "comments", "metadata"} {
		delete(doc, word)
	}
	r.APIVersion = version
	r.Body, err = json.Marshal(doc)
	return r, true, err
}

// id makes the id of a resource of the template: a name has a part for each segment of the type.
func (s *scope) id(typ, name string) (armid.ID, error) {
	types, names := strings.Split(typ, "/"), strings.Split(name, "/")
	if len(types) < 2 || len(names) != len(types)-1 {
		return armid.ID{}, fmt.Errorf("the name %q does not fit the type %q", name, typ)
	}
	id := armid.ID{Subscription: s.group.Subscription, ResourceGroup: s.group.ResourceGroup, Provider: types[0]}
	for i, n := range names {
		id = id.Child(types[i+1], n)
	}
	if _, err := armid.Parse(id.String()); err != nil {
		return armid.ID{}, err
	}
	return id, nil
}

func (s *scope) dependencies(v any) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("dependsOn is not a list")
	}
	var all []string
	for _, d := range list {
		name, ok := d.(string)
		if !ok {
			return nil, errors.New("dependsOn holds what is no string")
		}
		all = append(all, name)
	}
	return all, nil
}

// order sorts a plan so that each resource comes after those it depends on, otherwise as written. What a
// resource depends on that is not in the template exists already, or its creation will say so.
func order(plan []Resource) ([]Resource, error) {
	index := map[string]int{}
	for i, r := range plan {
		for _, name := range []string{r.ID.Key(), strings.ToLower(r.ID.Type() + "/" + r.ID.Name()), strings.ToLower(r.ID.Name())} {
			if _, taken := index[name]; !taken {
				index[name] = i
			}
		}
	}
	var sorted []Resource
	state := make([]int, len(plan)) // 0 new, 1 being visited, 2 placed
	var visit func(i int) error
	visit = func(i int) error {
		switch state[i] {
		case 1:
			return fmt.Errorf("%s depends on itself, by way of others", plan[i].ID)
		case 2:
			return nil
		}
		state[i] = 1
		for _, d := range plan[i].dependsOn {
			if j, ok := index[strings.ToLower(d)]; ok {
				if err := visit(j); err != nil {
					return err
				}
			}
		}
		state[i] = 2
		sorted = append(sorted, plan[i])
		return nil
	}
	for i := range plan {
		if err := visit(i); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

func (s *scope) evalJSON(raw json.RawMessage) (any, error) {
	v, err := decodeValue(raw)
	if err != nil {
		return nil, err
	}
	return s.evalValue(v, 0)
}

// evalValue evaluates every expression in a value.
func (s *scope) evalValue(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case string:
		if !isExpression(v) {
			return unescape(v), nil
		}
		n, err := parseExpression(v)
		if err != nil {
			return nil, fmt.Errorf("expression %.100q: %w", v, err)
		}
		value, err := s.eval(n)
		if err != nil {
			return nil, fmt.Errorf("expression %.100q: %w", v, err)
		}
		return value, nil
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			value, err := s.evalValue(e, depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = value
		}
		return list, nil
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			value, err := s.evalValue(e, depth+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			m[k] = value
		}
		return m, nil
	}
	return v, nil
}

// decodeValue reads JSON; whole numbers become int64, others float64.
func decodeValue(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: something follows the value")
	}
	return numbers(v)
}

func numbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = numbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
