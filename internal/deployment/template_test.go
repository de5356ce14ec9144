package deployment

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kluis/internal/armid"
)

var deploymentID = armid.Must("/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.Resources/deployments/d")

const network = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/"

// evaluateText evaluates a template as Deploy does.
func evaluateText(text string, parameters map[string]string) (evaluated, error) {
	t, err := parseTemplate([]byte(text))
	if err != nil {
		return evaluated{}, err
	}
	given := map[string]ParameterValue{}
	for name, value := range parameters {
		given[name] = ParameterValue{json.RawMessage(value)}
	}
	return t.evaluate(newScope(deploymentID, "westeurope", "tenant"), given)
}

// template is a template with these members beside the two that it must have.
func template(members string) string {
	return `{"$schema":"s","contentVersion":"1.0.0.0","resources":[]` + members + `}`
}

// value evaluates one expression.
func value(expression string) (any, error) {
	return newScope(deploymentID, "westeurope", "tenant").evalString(expression)
}

func TestExpressions(t *testing.T) {
	type object = map[string]any
	for expression, want := range map[string]any{
		"plain":      "plain",
		"[[escaped]": "[escaped]",
		"[open":      "[open",
		"['it''s']":  "it's",
		"[ -7 ]":     int64(-7),
		"[true()]":   true,
		"[null()]":   nil,

		"[resourceGroup().location]":                                 "westeurope",
		"[resourceGroup().NAME]":                                     "rg",
		"[resourceGroup()['location']]":                              "westeurope",
		"[subscription().subscriptionId]":                            "11111111-2222-3333-4444-555555555555",
		"[subscription().tenantId]":                                  "tenant",
		"[deployment().name]":                                        "d",
		"[createArray(1, 2, 3)[add(1, 1)]]":                          int64(3),
		"[createObject('a', createObject('b', 1)).a.b]":              int64(1),
		"[json('{\"a\":[1,2.5,null]}')]":                             object{"a": []any{int64(1), 2.5, nil}},
		"[resourceId('Microsoft.Network/virtualNetworks', 'n')]":     network + "n",
		"[resourceId('g', 'Microsoft.Network/networks/s', 'a','b')]": strings.Replace(network[:strings.Index(network, "virtual")], "/rg/", "/g/", 1) + "networks/a/s/b",

		"[concat('a', 1, true())]":                           "a1True",
		"[concat(createArray(1), createArray('b'))]":         []any{int64(1), "b"},
		"[format('{1}-{0}-{1}', 'a', 2)]":                    "2-a-2",
		"[toLower('AÜ')]":                                    "aü",
		"[toUpper('aü')]":                                    "AÜ",
		"[trim(' a ')]":                                      "a",
		"[string(createArray(1, 'x'))]":                      `[1,"x"]`,
		"[int('-12')]":                                       int64(-12),
		"[bool('TRUE')]":                                     true,
		"[bool(0)]":                                          false,
		"[length('äöü')]":                                    int64(3),
		"[length(createObject('a', 1))]":                     int64(1),
		"[empty('')]":                                        true,
		"[empty(createArray(0))]":                            false,
		"[contains('abc', 'b')]":                             true,
		"[contains(createArray(1, 2), 2)]":                   true,
		"[contains(createObject('Key', 1), 'KEY')]":          true,
		"[first('äb')]":                                      "ä",
		"[last(createArray(1, 2))]":                          int64(2),
		"[first('')]":                                        "",
		"[last(createArray())]":                              nil,
		"[split('a,b,', ',')]":                               []any{"a", "b", ""},
		"[join(createArray('a', 1), '+')]":                   "a+1",
		"[replace('aXbX', 'X', 'yy')]":                       "ayybyy",
		"[substring('äöüß', 1, 2)]":                          "öü",
		"[substring('abc', 3)]":                              "",
		"[startsWith('Hello', 'hE')]":                        true,
		"[endsWith('Hello', 'LO')]":                          true,
		"[equals(createArray(1, 'a'), createArray(1, 'a'))]": true,
		"[equals('a', 'A')]":                                 false,
		"[not(false())]":                                     true,
		"[and(true(), true(), false())]":                     false,
		"[or(false(), true())]":                              true,
		"[coalesce(null(), 'b', 'c')]":                       "b",
		"[union(createObject('a', 1, 'b', 1), createObject('b', 2))]": object{"a": int64(1), "b": int64(2)},
		"[union(createArray(1, 2), createArray(2, 3))]":               []any{int64(1), int64(2), int64(3)},
		"[add(2, -3)]":                     int64(-1),
		"[sub(2, 3)]":                      int64(-1),
		"[mul(-4, 3)]":                     int64(-12),
		"[div(-7, 2)]":                     int64(-3),
		"[mod(-7, 2)]":                     int64(-1),
		"[length(uniqueString('a', 'b'))]": int64(13),
		"[equals(uniqueString('a', 'b'), uniqueString('ab'))]": false,
		"[if(true(), 'yes', nowhere('is evaluated'))]":         "yes",
	} {
		got, err := value(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", expression, diff)
		}
	}
}

func TestExpressionsThatAreNone(t *testing.T) {
	for expression, says := range map[string]string{
		"[]":                            "ends too early",
		"[concat('a']":                  "missing",
		"['a' 'b']":                     "left over",
		"['a]":                          "not closed",
		"[name]":                        `"(" is missing`,
		"[1.5]":                         "left over",
		"[99999999999999999999]":        "not a whole number",
		"[-]":                           "not a whole number",
		"[f(,)]":                        "cannot stand here",
		"[resourceGroup().]":            "property name is missing",
		"[resourceGroup()[0]]":          "no array",
		"[resourceGroup().nothing]":     "no such property",
		"[createArray(1)[1]]":           "no such element",
		"[createArray(1)[-1]]":          "no such element",
		"[createArray(1).a]":            "no object",
		"[createArray(1)[true()]]":      "neither a name nor a whole number",
		"[reference('x')]":              "not known here",
		"[parameters('none')]":          "no such parameter",
		"[variables('none')]":           "no such variable",
		"[parameters()]":                "arguments",
		"[if(1, 2, 3)]":                 "neither true nor false",
		"[if(true(), 1)]":               "takes 3",
		"[concat()]":                    "arguments",
		"[concat(createArray(1), 'a')]": "mixed",
		"[concat('a', null())]":         "no text",
		"[format('{0}')]":               "does not name an argument",
		"[format('{', 'a')]":            "does not name an argument",
		"[format('{-1}', 'a')]":         "does not name an argument",
		"[int('twelve')]":               "not a whole number",
		"[bool('maybe')]":               "neither true nor false",
		"[length(1)]":                   "no length",
		"[first(1)]":                    "neither an array nor a string",
		"[replace('a', '', 'b')]":       "empty",
		"[substring('abc', 4)]":         "not in a string of 3",
		"[substring('abc', -1)]":        "not in a string of 3",
		"[substring('abc', 2, 2)]":      "not in a string of 3",
		"[substring('abc', 1, 9223372036854775807)]":        "not in a string of 3",
		"[createObject('a')]":                               "no value",
		"[createObject(1, 2)]":                              "not a name",
		"[union(createArray(1), createObject())]":           "not an array",
		"[and(true(), 1)]":                                  "neither true nor false",
		"[div(1, 0)]":                                       "division by zero",
		"[mod(1, 0)]":                                       "division by zero",
		"[add(9223372036854775807, 1)]":                     "too large",
		"[mul(9223372036854775807, 2)]":                     "too large",
		"[div(-9223372036854775808, -1)]":                   "too large",
		"[json('{')]":                                       "read JSON",
		"[json('1 2')]":                                     "follows",
		"[resourceId('nothing', 'n')]":                      "no argument is a resource type",
		"[resourceId('Microsoft.Network/virtualNetworks')]": "arguments",
		"[resourceId('Microsoft.Network/virtualNetworks', 'a', 'b')]":                "needs 1 names",
		"[resourceId('Microsoft.Network/virtualNetworks', 'a/../b')]":                "not a name",
		"[" + strings.Repeat("toLower(", 41) + "'a'" + strings.Repeat(")", 41) + "]": "nested deeper",
		"['" + strings.Repeat("a", maxExpression) + "']":                             "at most",
	} {
		if v, err := value(expression); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80s is %v, %v; want an error that says %q", expression, v, err, says)
		}
	}
}

// A few lines that double a value again and again are refused, whatever they double it with.
func TestBoundedValues(t *testing.T) {
	for name, first := range map[string]string{
		"text":    `"` + strings.Repeat("x", 1000) + `"`,
		"array":   `["x"]`,
		"objects": `{"a":{"b":"c"}}`,
	} {
		for how, double := range map[string]string{
			"text":    "[concat(string(variables('v%d')), string(variables('v%d')))]",
			"array":   "[createArray(variables('v%d'), variables('v%d'))]",
			"objects": "[createObject('a', variables('v%d'), 'b', variables('v%d'))]",
		} {
			variables := []string{`"v0":` + first}
			for i := range 60 {
				variables = append(variables, fmt.Sprintf(`"v%d":"%s"`, i+1, fmt.Sprintf(double, i, i)))
			}
			_, err := evaluateText(template(`,"variables":{`+strings.Join(variables, ",")+`}`), nil)
			if err == nil || !strings.Contains(err.Error(), "too large") && !strings.Contains(err.Error(), "more than") {
				t.Errorf("%s doubled as %s: %.200v", name, how, err)
			}
		}
	}
	big := strings.Repeat("x", 900<<10)
	many := slices.Repeat([]string{`"[string(variables('big'))]"`}, 100)
	_, err := evaluateText(template(`,"variables":{"big":"`+big+`","all":[`+strings.Join(many, ",")+`]}`), nil)
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a hundred large values: %.200v", err)
	}
}

func TestTemplatesThatAreNone(t *testing.T) {
	deep := strings.Repeat("[", 45) + strings.Repeat("]", 45)
	several := func(n int, format string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(all, ",")
	}
	resource := func(members string) string {
		return `{"$schema":"s","contentVersion":"1","resources":[{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"n"` + members + `}]}`
	}
	for text, says := range map[string]string{
		``:                                   "not one",
		`[]`:                                 "not one",
		`{}`:                                 "required",
		`{"$schema":"s"}`:                    "required",
		template(``) + `x`:                   "follows",
		template(`,"odd":1`):                 "odd",
		template(`,"functions":[]`):          "functions",
		template(`,"variables":{"copy":[]}`): "copy loops",
		template(`,"variables":{"a":{"copy":[{"name":"x","count":3,"input":1}]}}`):                                              "copy loops",
		template(`,"variables":{"a":1,"A":2}`):                                                                                  "twice",
		template(`,"variables":{"a":"[variables('b')]","b":"[variables('a')]"}`):                                                "refers to itself",
		template(`,"variables":{"a":` + deep + `}`):                                                                             "nested deeper",
		template(`,"parameters":{"p":{"type":"string"}}`):                                                                       "not given",
		template(`,"parameters":{"p":{"type":"colour","defaultValue":1}}`):                                                      "not known",
		template(`,"parameters":{"p":{"type":"int","defaultValue":1.5}}`):                                                       "not of type",
		template(`,"parameters":{"p":{"type":"int","defaultValue":9,"maxValue":8}}`):                                            "allowed range",
		template(`,"parameters":{"p":{"type":"string","defaultValue":"ab","minLength":3}}`):                                     "not allowed",
		template(`,"parameters":{"p":{"type":"string","defaultValue":"a","allowedValues":[]}}`):                                 "allowed values",
		template(`,"outputs":{"o":{"type":"int","value":"text"}}`):                                                              "not of type",
		template(`,"outputs":{"o":{"type":"int"}}`):                                                                             "output",
		template(`,"parameters":{` + several(maxParameters+1, `"p%d":{"type":"int","defaultValue":1}`) + `}`):                   "at most",
		template(`,"variables":{` + several(maxVariables+1, `"v%d":1`) + `}`):                                                   "at most",
		template(`,"outputs":{` + several(maxOutputs+1, `"o%d":{"type":"int","value":1}`) + `}`):                                "at most",
		`{"$schema":"s","contentVersion":"1","resources":[` + several(maxResources+1, `{"odd":%d}`) + `]}`:                      "at most",
		`{"$schema":"s","contentVersion":"1","resources":[7]}`:                                                                  "not an object",
		`{"$schema":"s","contentVersion":"1","resources":[{"type":"a/b"}]}`:                                                     "required",
		strings.Replace(resource(``), `"n"`, `"a/b"`, 1):                                                                        "does not fit",
		strings.Replace(resource(``), `"n"`, `"[concat('a', '/')]"`, 1):                                                         "does not fit",
		resource(`,"condition":"perhaps"`):                                                                                      "neither true nor false",
		resource(`,"copy":{"name":"c","count":3}`):                                                                              "copy",
		resource(`,"resources":[{}]`):                                                                                           "child resources",
		resource(`,"scope":"/"`):                                                                                                "scope",
		resource(`,"dependsOn":"n"`):                                                                                            "not a list",
		resource(`,"dependsOn":[7]`):                                                                                            "no string",
		resource(`,"dependsOn":["n"]`):                                                                                          "depends on itself",
		strings.Replace(resource(``), `}]}`, `},{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"N"}]}`, 1): "twice",
	} {
		if _, err := evaluateText(text, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.120s: %v; want an error that says %q", text, err, says)
		}
	}
}

func TestParameters(t *testing.T) {
	text := template(`,"parameters":{"Name":{"type":"string","defaultValue":"[concat('of ', parameters('size'))]"},"size":{"type":"int","allowedValues":[1,2]},
		"key":{"type":"secureString"},"bag":{"type":"secureObject","defaultValue":{"a":"hush"}}},
		"outputs":{"name":{"type":"string","value":"[parameters('NAME')]"},"key":{"type":"secureString","value":"[parameters('key')]"}}`)
	e, err := evaluateText(text, map[string]string{"SIZE": "2", "key": `"[hush]"`})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]TypedValue{"Name": {"String", "of 2"}, "size": {"Int", int64(2)}, "key": {"SecureString", nil}, "bag": {"SecureObject", nil}}
	if diff := cmp.Diff(want, e.parameters); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]TypedValue{"name": {"String", "of 2"}, "key": {"SecureString", nil}}, e.outputs); diff != "" {
		t.Error(diff)
	}
	for says, given := range map[string]map[string]string{
		"allowed values":          {"size": "3", "key": `"hush"`},
		"not of type int":         {"size": `"2"`, "key": `"hush"`},
		"not of type secureStrin": {"size": "2", "key": `{"a":"hush"}`},
		`no parameter "extra"`:    {"size": "2", "key": `"hush"`, "extra": "1"},
		"is given twice":          {"size": "2", "key": `"hush"`, "KEY": `"hush"`},
		"not given":               {"size": "2"},
		"without a value":         {"size": "2", "key": ""},
	} {
		if given["key"] == "" && len(given) == 2 {
			tmpl, _ := parseTemplate([]byte(text))
			_, err = tmpl.evaluate(newScope(deploymentID, "", ""), map[string]ParameterValue{"size": {json.RawMessage("2")}, "key": {}})
		} else {
			_, err = evaluateText(text, given)
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v; want an error that says %q", given, err, says)
		} else if strings.Contains(err.Error(), "hush") {
			t.Errorf("%v tells a secure value", err)
		}
	}
}

// What a template makes of a secure value goes into resources, and into no error.
func TestSecureValuesInErrors(t *testing.T) {
	for _, expression := range []string{"[int(parameters('key'))]", "[json(parameters('key'))]", "[bool(parameters('key'))]", "[parameters('key').a]",
		"[createObject('a', 1)[parameters('key')]]", "[parameters(parameters('key'))]", "[variables(parameters('key'))]", "[resourceId(parameters('key'), 'n')]",
		"[resourceId(concat(parameters('key'), '/x'), '')]", "[substring(parameters('key'), 99)]", "[format(concat(parameters('key'), '{'), 1)]",
		"[div(parameters('key'), 1)]", "[union(createArray(1), parameters('key'))]"} {
		text := template(`,"parameters":{"key":{"type":"secureString"}},"variables":{"v":"` + expression + `"}`)
		if _, err := evaluateText(text, map[string]string{"key": `"hush"`}); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func TestPlan(t *testing.T) {
	text := template(``)
	text = strings.Replace(text, `"resources":[]`, `"resources":[
		{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"c","dependsOn":["[resourceId('Microsoft.Network/virtualNetworks','b')]","somewhere else"],"comments":"x"},
		{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"off","condition":"[equals(1,2)]","tags":"[parameters('none')]"},
		{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"b","dependsOn":["A"],"location":"[resourceGroup().location]","tags":{"n":7}},
		{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2","name":"a","dependsOn":null}]`, 1)
	e, err := evaluateText(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range e.plan {
		got = append(got, r.ID.String()+" "+r.APIVersion+" "+string(r.Body))
	}
	want := []string{network + "a 2 {}", network + `b 1 {"location":"westeurope","tags":{"n":7}}`, network + "c 1 {}"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Whatever depends on whatever, without a circle: each resource is there once and comes after what it
// depends on.
func TestOrderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "resources")
		written := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for i := range n {
				if !yield(i) {
					return
				}
			}
		})).Draw(t, "order")
		var plan []Resource
		for _, i := range written {
			r := Resource{ID: armid.Must(network + fmt.Sprintf("n%d", i))}
			if i > 0 {
				for _, j := range rapid.SliceOfN(rapid.IntRange(0, i-1), 0, 4).Draw(t, "depends on") {
					r.dependsOn = append(r.dependsOn, fmt.Sprintf("n%d", j))
				}
			}
			plan = append(plan, r)
		}
		sorted, err := order(plan)
		if err != nil || len(sorted) != n {
			t.Fatalf("%d of %d, %v", len(sorted), n, err)
		}
		placed := map[string]bool{}
		for _, r := range sorted {
			for _, d := range r.dependsOn {
				if !placed[d] {
					t.Fatalf("%s comes before %s", r.ID.Name(), d)
				}
			}
			placed[r.ID.Name()] = true
		}
	})
}

// Whatever stands between brackets is read or refused, and what is read has a value or an error.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{"['a']", "[concat('it''s', -1)]", "[resourceGroup().location]", "[createArray(1)[0].a['b']]", "[if(true(),json('{}'),variables('v'))]",
		"[format('{0}', createObject('a', 1))]", "[((]", "[a(b(c(d())))]", "[substring('ä', 0, 1)]", "[union(split('a,b', ','), createArray())]"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if isExpression(text) {
			_, _ = value(text)
		}
	})
}

// Whatever bytes stand for a template, they are evaluated or refused; what is planned has ids that are ids.
func FuzzTemplate(f *testing.F) {
	f.Add([]byte(template(``)))
	f.Add([]byte(template(`,"parameters":{"p":{"type":"int","defaultValue":1}},"variables":{"v":["[parameters('p')]"]},"outputs":{"o":{"type":"array","value":"[variables('v')]"}}`)))
	f.Add([]byte(`{"$schema":"s","contentVersion":"1","resources":[{"type":"Microsoft.Network/virtualNetworks/subnets","apiVersion":"1","name":"a/b","condition":true,"dependsOn":["a"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := evaluateText(string(text), nil)
		if err != nil {
			return
		}
		for _, r := range e.plan {
			if id, err := armid.Parse(r.ID.String()); err != nil || !id.Equal(r.ID) || !json.Valid(r.Body) {
				t.Errorf("%s is planned with %s: %v", r.ID, r.Body, err)
			}
		}
	})
}
