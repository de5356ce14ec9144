package deployment

import (
	"fmt"
	"strconv"
	"strings"
)

// Expressions are what stands between brackets in a template's strings: "[concat(parameters('a'), '-nic')]".
//
//	expression = literal | number | call { "." name | "[" expression "]" }
//	call       = name "(" [ expression { "," expression } ] ")"
//	literal    = "'" { character | "''" } "'"
//
// Source: Azure Resource Manager, "Syntax and expressions in ARM templates".

// node is a parsed expression.
type node struct {
	literal any     // string or int64, when call is empty
	call    string  // function name
	args    []*node // of the call
	path    []step  // what is taken from the result
}

// step takes a property (name) or, when name is empty, an element (index) from a value.
type step struct {
	name  string
	index *node
}

// maxExpression bounds an expression: templates come from outside.
const maxExpression = 24 << 10

type parser struct {
	text  string
	at    int
	depth int
}

// isExpression tells an expression from a plain string. A string that really begins with a bracket is
// written with two.
func isExpression(s string) bool {
	return strings.HasPrefix(s, "[") && !strings.HasPrefix(s, "[[") && strings.HasSuffix(s, "]")
}

// unescape gives a plain string its first bracket back.
func unescape(s string) string {
	if strings.HasPrefix(s, "[[") {
		return s[1:]
	}
	return s
}

func parseExpression(s string) (*node, error) {
	if len(s) > maxExpression {
		return nil, fmt.Errorf("expression of %d characters; at most %d are taken", len(s), maxExpression)
	}
	p := &parser{text: s[1 : len(s)-1]}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.errorf("%.40q is left over", p.text[p.at:])
	}
	return n, nil
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("at position %d: %s", p.at+1, fmt.Sprintf(format, args...))
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) peek() byte {
	p.space()
	if p.at >= len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) expect(c byte) error {
	if p.peek() != c {
		return p.errorf("%q is missing", string(c))
	}
	p.at++
	return nil
}

func (p *parser) expression() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("the expression is nested deeper than %d", maxDepth)
	}
	defer func() { p.depth-- }()
	c := p.peek()
	switch {
	case c == '\'':
		s, err := p.quoted()
		return &node{literal: s}, err
	case c >= '0' && c <= '9' || c == '-':
		return p.number()
	case isLetter(c):
		return p.callWithPath()
	case c == 0:
		return nil, p.errorf("the expression ends too early")
	}
	return nil, p.errorf("%q cannot stand here", string(c))
}

func (p *parser) quoted() (string, error) {
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		if p.text[p.at] != '\'' {
			b.WriteByte(p.text[p.at])
			continue
		}
		if p.at++; p.at >= len(p.text) || p.text[p.at] != '\'' {
			return b.String(), nil
		}
		b.WriteByte('\'')
	}
	return "", p.errorf("the string is not closed")
}

func (p *parser) number() (*node, error) {
	start := p.at
	for p.at++; p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9'; p.at++ {
	}
	n, err := strconv.ParseInt(p.text[start:p.at], 10, 64)
	if err != nil {
		return nil, p.errorf("%.40q is not a whole number", p.text[start:p.at])
	}
	return &node{literal: n}, nil
}

func (p *parser) name() string {
	start := p.at
	for p.at < len(p.text) && (isLetter(p.text[p.at]) || p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '_') {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *parser) callWithPath() (*node, error) {
	n := &node{call: p.name()}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	for first := true; p.peek() != ')'; first = false {
		if !first {
			if err := p.expect(','); err != nil {
				return nil, err
			}
		}
		arg, err := p.expression()
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, arg)
	}
	p.at++
	for {
		switch p.peek() {
		case '.':
			p.at++
			p.space()
			name := p.name()
			if name == "" {
				return nil, p.errorf("a property name is missing")
			}
			n.path = append(n.path, step{name: name})
		case '[':
			p.at++
			index, err := p.expression()
			if err != nil {
				return nil, err
			}
			if err := p.expect(']'); err != nil {
				return nil, err
			}
			n.path = append(n.path, step{index: index})
		default:
			return n, nil
		}
	}
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
