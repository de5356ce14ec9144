package deployment

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kluis/internal/armid"
)

// scope is what an expression can refer to.
type scope struct {
	group      armid.ID
	location   string // of the resource group
	tenant     string
	name       string // of the deployment
	parameters names
	variables  names

	left int // of what evaluation may still make
}

// Bounds on what a template may be made into. A few lines can double a value again and again, so every
// value that an expression makes is weighed, and all of them together.
const (
	maxValue = 4 << 20
	maxWork  = 64 << 20
)

func newScope(deployment armid.ID, location, tenant string) *scope {
	return &scope{group: deployment.Scope(), location: location, tenant: tenant, name: deployment.Name(),
		parameters: newNames("parameter"), variables: newNames("variable"), left: maxWork}
}

// names are a template's parameters or its variables. Each gets its value when it is asked for the first
// time, so they may refer to each other in any order.
type names struct {
	kind   string
	make   map[string]func() (any, error) // by name in lower case, as values
	values map[string]any
	making map[string]bool
}

func newNames(kind string) names {
	return names{kind, map[string]func() (any, error){}, map[string]any{}, map[string]bool{}}
}

func (n names) define(name string, value func() (any, error)) error {
	key := strings.ToLower(name)
	if n.make[key] != nil {
		return fmt.Errorf("the %s %q is there twice", n.kind, name)
	}
	n.make[key] = func() (any, error) {
		v, err := value()
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", n.kind, name, err)
		}
		return v, nil
	}
	return nil
}

func (n names) get(name string) (any, error) {
	key := strings.ToLower(name)
	if v, ok := n.values[key]; ok {
		return v, nil
	}
	value := n.make[key]
	if value == nil {
		return nil, fmt.Errorf("there is no such %s", n.kind)
	}
	if n.making[key] {
		return nil, fmt.Errorf("the %s refers to itself", n.kind)
	}
	n.making[key] = true
	v, err := value()
	if err == nil {
		n.values[key] = v
	}
	return v, err
}

// all evaluates every name.
func (n names) all() error {
	for _, name := range slices.Sorted(maps.Keys(n.make)) {
		if _, err := n.get(name); err != nil {
			return err
		}
	}
	return nil
}

// eval gives an expression its value.
func (s *scope) eval(n *node) (any, error) {
	v, err := s.evalNode(n)
	if err == nil {
		err = s.spend(v)
	}
	return v, err
}

func (s *scope) evalNode(n *node) (any, error) {
	if n.call == "" {
		return n.literal, nil
	}
	v, err := s.call(n)
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

func (s *scope) call(n *node) (any, error) {
	name := strings.ToLower(n.call)
	if name == "if" {
		return s.choose(n.args)
	}
	f, ok := functions[name]
	if !ok {
		return nil, errors.New("the function is not known here")
	}
	args := make([]any, len(n.args))
	for i, a := range n.args {
		v, err := s.eval(a)
		if err != nil {
			return nil, err
		}
		args[i] = v
	}
	return f(s, args)
}

// choose is the function "if". What is not chosen is not evaluated: it may refer to what is not there.
func (s *scope) choose(args []*node) (any, error) {
	if len(args) != 3 {
		return nil, fmt.Errorf("%d arguments are given, it takes 3", len(args))
	}
	v, err := s.eval(args[0])
	if err != nil {
		return nil, err
	}
	condition, ok := v.(bool)
	if !ok {
		return nil, errors.New("the condition is neither true nor false")
	}
	if condition {
		return s.eval(args[1])
	}
	return s.eval(args[2])
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
			return nil, errors.New("a property is asked of what is no object")
		}
		value, ok := lookup(m, k)
		if !ok {
			return nil, errors.New("there is no such property")
		}
		return value, nil
	case int64:
		a, ok := v.([]any)
		if !ok {
			return nil, errors.New("an element is asked of what is no array")
		}
		if k < 0 || k >= int64(len(a)) {
			return nil, fmt.Errorf("there is no such element in an array of %d", len(a))
		}
		return a[k], nil
	}
	return nil, errors.New("an index is neither a name nor a whole number")
}

// lookup finds a name in any case.
func lookup(m map[string]any, name string) (any, bool) {
	if v, ok := m[name]; ok {
		return v, true
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.EqualFold(k, name) {
			return m[k], true
		}
	}
	return nil, false
}

func (s *scope) spend(v any) error {
	weight := maxValue - weigh(v, maxValue)
	if weight > maxValue {
		return errors.New("the value becomes too large")
	}
	if s.left -= weight; s.left < 0 {
		return errors.New("the template becomes too large")
	}
	return nil
}

// weigh takes the weight of a value from what is left. It stops when nothing is: a value that refers to
// another many times can be far larger than the memory it takes.
func weigh(v any, left int) int {
	left -= 16
	switch v := v.(type) {
	case string:
		left -= len(v)
	case []any:
		for _, e := range v {
			if left = weigh(e, left); left < 0 {
				break
			}
		}
	case map[string]any:
		for k, e := range v {
			if left = weigh(e, left-16-len(k)); left < 0 {
				break
			}
		}
	}
	return left
}

// maxDepth bounds the nesting of values and of expressions.
const maxDepth = 40

// evalValue evaluates every expression in a value.
func (s *scope) evalValue(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case string:
		return s.evalString(v)
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
		for _, k := range slices.Sorted(maps.Keys(v)) {
			value, err := s.evalValue(v[k], depth+1)
			if err == nil && isLoop(k, v[k]) {
				err = errors.New("copy loops are not supported here; write the elements out")
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			m[k] = value
		}
		return m, nil
	}
	return v, nil
}

func (s *scope) evalString(text string) (any, error) {
	if !isExpression(text) {
		return unescape(text), nil
	}
	n, err := parseExpression(text)
	var v any
	if err == nil {
		v, err = s.eval(n)
	}
	if err != nil {
		return nil, fmt.Errorf("expression %.100q: %w", text, err)
	}
	return v, nil
}

// isLoop tells the member that repeats a property: "copy": [{"name": …, "count": …, "input": …}].
func isLoop(name string, v any) bool {
	list, _ := v.([]any)
	if !strings.EqualFold(name, "copy") || len(list) == 0 {
		return false
	}
	first, _ := list[0].(map[string]any)
	_, has := lookup(first, "count")
	return has
}

func (s *scope) evalJSON(raw []byte) (any, error) {
	v, err := decodeValue(raw)
	if err != nil {
		return nil, err
	}
	return s.evalValue(v, 0)
}
