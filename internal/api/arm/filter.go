package arm

import "strings"

// Bounds of a $filter. The longest that clients send has six terms.
const (
	maxFilter      = 4096
	maxFilterTerms = 32
)

// parseFilter reads `name eq 'value' and name eq value and name('value')`. That is the part of OData that
// the lists here use; anything else is refused rather than ignored, because an ignored term would answer a
// question that nobody asked. Strings double their quotes: 'it”s'. Bare values are true, false, null, numbers,
// times and GUIDs. The key of a function is its name with "()", its value the argument, or "".
func parseFilter(s string) (map[string]string, error) {
	if len(s) > maxFilter {
		return nil, invalidFilter(s, "it is too long")
	}
	p := filterParser{s}
	terms := map[string]string{}
	for {
		key, value, why := p.term()
		if why != "" {
			return nil, invalidFilter(s, why)
		}
		if before, twice := terms[key]; twice && before != value {
			return nil, invalidFilter(s, "'"+clip(key)+"' can't have two values")
		}
		terms[key] = value
		if len(terms) > maxFilterTerms {
			return nil, invalidFilter(s, "it has too many terms")
		}
		op := p.word()
		if op == "" && p.rest == "" {
			return terms, nil
		}
		if !strings.EqualFold(op, "and") {
			return nil, invalidFilter(s, "terms are joined by 'and' only")
		}
	}
}

// term reads a comparison or a call of a function, or says why it can't.
func (p *filterParser) term() (key, value, why string) {
	name := p.word()
	if function, call := strings.CutSuffix(name, "()"); call && isFilterName(function) {
		return strings.ToLower(name), "", ""
	}
	if function, call := strings.CutSuffix(name, "("); call && isFilterName(function) {
		value, ok := p.value()
		if !ok || p.word() != ")" {
			return "", "", "the argument of '" + clip(function) + "' is not one string in quotes"
		}
		return strings.ToLower(function) + "()", value, ""
	}
	if !isFilterName(name) {
		return "", "", "a term does not begin with a name"
	}
	if op := p.word(); !strings.EqualFold(op, "eq") {
		return "", "", "'" + clip(op) + "' is not supported, only eq is"
	}
	value, ok := p.value()
	if !ok {
		return "", "", "the value of '" + clip(name) + "' is missing, or its quote is not closed"
	}
	return strings.ToLower(name), value, ""
}

type filterParser struct{ rest string }

// word takes everything up to the next space or quote.
func (p *filterParser) word() string {
	p.rest = strings.TrimLeft(p.rest, " ")
	end := strings.IndexAny(p.rest, " '")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

func (p *filterParser) value() (string, bool) {
	p.rest = strings.TrimLeft(p.rest, " ")
	if !strings.HasPrefix(p.rest, "'") {
		w := p.word()
		return w, w != "" && (p.rest == "" || p.rest[0] == ' ')
	}
	p.rest = p.rest[1:]
	var b strings.Builder
	for {
		end := strings.IndexByte(p.rest, '\'')
		if end < 0 {
			return "", false
		}
		b.WriteString(p.rest[:end])
		p.rest = p.rest[end+1:]
		if !strings.HasPrefix(p.rest, "'") {
			return b.String(), true
		}
		b.WriteByte('\'')
		p.rest = p.rest[1:]
	}
}

func isFilterName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/."
	return s != "" && strings.Trim(s, letters) == ""
}
