package arm

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/url"
	"strconv"
	"strings"
)

// Page sizes. Azure's own pages hold 200.
const (
	pageSize    = 200
	maxPageSize = 1000
)

// Page is the body of a list.
type Page[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// window is the part of a list that a request asks for: so many items after a place, "" for the beginning. What a place
// is, is the list's own affair.
type window struct {
	after string
	size  int
}

// readWindow reads $top and $skipToken. The router does it before it calls a list's handler, so that
// a bad one is refused whether or not the handler pages.
func (r *Request) readWindow() (w window, err error) {
	if w.size, err = r.top(); err != nil {
		return window{}, err
	}
	if w.after, err = r.skip(); err != nil {
		return window{}, err
	}
	return w, nil
}

// List answers with the page of items that $top and $skipToken ask for, and the link to the next one.
// items is the whole list, in an order that stays the same between calls; a place in it is an offset.
func List[T any](r *Request, items []T) *Reply {
	start := 0
	if len(r.page.after) == offsetSize {
		start = int(binary.BigEndian.Uint32([]byte(r.page.after)) & math.MaxInt32)
	}
	start = min(start, len(items)) // items may have gone since the link was made
	end := min(start+r.page.most(), len(items))
	page := Page[T]{Value: append([]T{}, items[start:end]...)}
	if end < len(items) {
		page.NextLink = r.nextLink(string(binary.BigEndian.AppendUint32(nil, uint32(end))))
	}
	return OK(page)
}

const offsetSize = 4

func (w window) most() int { return cmp.Or(w.size, pageSize) }

// Walk is List for what is long. It asks for no more of the list than the page takes: read returns so many of its elements
// after a place, "" for the beginning, fewer at its end. A place is the key of an element, so what comes or goes before it
// moves nothing. encode leaves out what the request doesn't ask for.
func Walk[T, B any](r *Request, read func(after string, most int) ([]T, error), key func(T) string, encode func(T) (B, bool)) (*Reply, error) {
	page, size := Page[B]{Value: []B{}}, r.page.most()
	for last := r.page.after; ; {
		part, err := read(last, size+1)
		if err != nil {
			return nil, err
		}
		for _, element := range part {
			body, wanted := encode(element)
			if wanted && len(page.Value) == size {
				page.NextLink = r.nextLink(last)
				return OK(page), nil
			}
			if last = key(element); wanted {
				page.Value = append(page.Value, body)
			}
		}
		if len(part) <= size {
			return OK(page), nil
		}
	}
}

func (r *Request) top() (int, error) {
	s := parameter(r.Query, "$top")
	if s == "" {
		return pageSize, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, invalidQuery("$top", "it must be a whole number from 1")
	}
	return min(n, maxPageSize), nil
}

func (r *Request) nextLink(after string) string {
	q := url.Values{}
	for name, values := range r.Query {
		if !strings.EqualFold(name, "$skipToken") {
			q[name] = values
		}
	}
	q.Set("$skipToken", r.skipToken(after))
	return r.BaseURL + (&url.URL{Path: r.HTTP.URL.Path}).EscapedPath() + "?" + q.Encode()
}

// A $skipToken is a place, and a code of it and of the list that it belongs to (its path and filter): one
// that was made up, changed or taken from another list is refused.
func (r *Request) skipToken(after string) string {
	return base64.RawURLEncoding.EncodeToString(append(r.linkCode(after), after...))
}

func (r *Request) skip() (string, error) {
	s := parameter(r.Query, "$skipToken")
	if s == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= codeSize || !hmac.Equal(b[:codeSize], r.linkCode(string(b[codeSize:]))) {
		return "", invalidQuery("$skipToken", "it is not from a nextLink of this list")
	}
	return string(b[codeSize:]), nil
}

const codeSize = 16

func (r *Request) linkCode(after string) []byte {
	path := strings.ToLower(strings.TrimSuffix(r.HTTP.URL.Path, "/"))
	mac := hmac.New(sha256.New, r.linkKey)
	_, _ = mac.Write([]byte(path + "\x00" + parameter(r.Query, "$filter") + "\x00" + after)) // a hash never fails
	return mac.Sum(nil)[:codeSize]
}
