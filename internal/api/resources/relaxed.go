package resources

import (
	"bytes"
	"fmt"
	"io"

	"kluis/internal/api/arm"
)

// decodeDeployment reads a request that holds a template. az sends the template as the author wrote it, spliced into the
// rest, and Azure reads that: JSON with comments, line ends inside strings, and the name template without quotes.
func decodeDeployment(r *arm.Request) (body deploymentRequest, err error) {
	r.HTTP.Body = &relaxedBody{from: r.HTTP.Body}
	err = r.Decode(&body)
	return body, err
}

// relaxedBody is a body made strict when it is read.
type relaxedBody struct {
	from   io.ReadCloser
	strict *bytes.Reader
}

// Read implements io.Reader.
func (b *relaxedBody) Read(p []byte) (int, error) {
	if b.strict == nil {
		text, err := io.ReadAll(b.from)
		if err != nil {
			return 0, err
		}
		b.strict = bytes.NewReader(strict(text))
	}
	return b.strict.Read(p)
}

// Close implements io.Closer.
func (b *relaxedBody) Close() error { return b.from.Close() }

// strict makes JSON of JSON with comments, of names without quotes, and of control characters in strings. JSON stays as
// it is; whatever else is wrong is left for the decoder to refuse.
func strict(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		rest := text[i:]
		n := 1
		switch c := text[i]; {
		case c == '"':
			n = stringLen(rest)
			out = appendString(out, rest[:n])
		case commentLen(rest) > 0:
			n = commentLen(rest)
			out = append(out, ' ') // what it divided stays divided
		case isName(c):
			n = nameLen(rest)
			if beforeColon(rest[n:]) {
				out = append(append(append(out, '"'), rest[:n]...), '"')
			} else {
				out = append(out, rest[:n]...)
			}
		default:
			out = append(out, c)
		}
		i += n
	}
	return out
}

// stringLen is how long the string is that text begins with, quotes included.
func stringLen(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func appendString(out, text []byte) []byte {
	for _, c := range text {
		if c < ' ' {
			out = fmt.Appendf(out, `\u%04x`, c)
		} else {
			out = append(out, c)
		}
	}
	return out
}

// commentLen is how long the comment is that text begins with, or 0.
func commentLen(text []byte) int {
	begin, end := "//", "\n"
	if bytes.HasPrefix(text, []byte("/*")) {
		begin, end = "/*", "*/"
	}
	if !bytes.HasPrefix(text, []byte(begin)) {
		return 0
	}
	if i := bytes.Index(text[len(begin):], []byte(end)); i >= 0 {
		return len(begin) + i + len(end)
	}
	return len(text)
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$'
}

// nameLen is how long the word is that text begins with.
func nameLen(text []byte) int {
	for i, c := range text {
		if !isName(c) && (c < '0' || c > '9') {
			return i
		}
	}
	return len(text)
}

// beforeColon reports whether the next thing but spaces is a colon.
func beforeColon(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == ':'
}
