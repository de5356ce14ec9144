package deployment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Resource is one resource of a plan: an id and the document to create it with.
type Resource struct {
	ID         armid.ID
	APIVersion string
	Body       json.RawMessage
	dependsOn  []string   // as the template names them
	needs      []armid.ID // those of them that are in the plan
}

// Bounds on a template; but for the first they are Azure's.
const (
	maxTemplate = 4 << 20

	maxParameters = 256
	maxVariables  = 256
	maxResources  = 800
	maxOutputs    = 64
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
	for _, part := range []struct {
		name       string
		have, most int
	}{
		{"parameters", len(t.Parameters), maxParameters}, {"variables", len(t.Variables), maxVariables},
		{"resources", len(t.Resources), maxResources}, {"outputs", len(t.Outputs), maxOutputs},
	} {
		if part.have > part.most {
			return nil, fmt.Errorf("the template has %d %s; at most %d are taken", part.have, part.name, part.most)
		}
	}
	return &t, nil
}

// evaluated is what a template comes to with its parameters.
type evaluated struct {
	parameters map[string]TypedValue // but for the values of secure ones
	secure     bool                  // there are secure ones
	plan       []Resource
	hash       string
	outputs    map[string]TypedValue
}

// evaluate evaluates the whole template. Nothing is created, so a template with an error anywhere
// creates nothing. There is no function that asks for what a resource became, so the outputs are known too.
func (t *Template) evaluate(s *scope, given map[string]ParameterValue) (e evaluated, err error) {
	if e.parameters, err = t.bind(s, given); err != nil {
		return e, err
	}
	for _, p := range t.Parameters {
		e.secure = e.secure || types[strings.ToLower(p.Type)].secure
	}
	for name, raw := range t.Variables {
		if strings.EqualFold(name, "copy") {
			return e, errors.New("variables: copy loops are not supported here; write the elements out")
		}
		if err := s.variables.define(name, func() (any, error) { return s.evalJSON(raw) }); err != nil {
			return e, err
		}
	}
	if err := s.variables.all(); err != nil {
		return e, err
	}
	if e.plan, err = t.plan(s); err != nil {
		return e, err
	}
	e.outputs, err = t.evalOutputs(s)
	return e, err
}

// plan evaluates the resources, in an order in which each comes after what it depends on.
func (t *Template) plan(s *scope) ([]Resource, error) {
	var plan []Resource
	seen := map[string]bool{}
	for i, raw := range t.Resources {
		r, wanted, err := s.resource(raw)
		if err != nil {
			return nil, fmt.Errorf("resource %d: %w", i+1, err)
		}
		if !wanted {
			continue
		}
		if seen[r.ID.Key()] {
			return nil, fmt.Errorf("resource %d: %s is defined twice", i+1, r.ID)
		}
		seen[r.ID.Key()] = true
		plan = append(plan, r)
	}
	return order(plan)
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
	if err := checkMembers(doc); err != nil {
		return Resource{}, false, err
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

// checkMembers refuses what would change which resources there are, or where, and is not done here.
func checkMembers(doc map[string]any) error {
	for _, m := range []struct{ name, advice string }{
		{"copy", "write the resources out"},
		{"resources", "write child resources beside their parent"},
		{"scope", "deploy into the resource group of the resource"},
		{"resourceGroup", "deploy into that resource group"},
		{"subscriptionId", "deploy into that subscription"},
	} {
		v, has := lookup(doc, m.name)
		if n, sized := size(v); has && (!sized || n != 0) {
			return fmt.Errorf("%q is not supported here; %s", m.name, m.advice)
		}
	}
	return nil
}

// id makes the id of a resource of the template: a name has a part for each segment of the type.
func (s *scope) id(typ, name string) (armid.ID, error) {
	words, parts := strings.Split(typ, "/"), strings.Split(name, "/")
	if len(words) < 2 || len(parts) != len(words)-1 {
		return armid.ID{}, fmt.Errorf("the name %.100q does not fit the type %.100q", name, typ)
	}
	id := armid.ID{Subscription: s.group.Subscription, ResourceGroup: s.group.ResourceGroup, Provider: words[0]}
	for i, part := range parts {
		id = id.Child(words[i+1], part)
	}
	if parsed, err := armid.Parse(id.String()); err != nil || !parsed.Equal(id) {
		return armid.ID{}, fmt.Errorf("the name %.100q is not one", name)
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
				plan[i].needs = append(plan[i].needs, plan[j].ID)
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
