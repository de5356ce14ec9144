package arm

import (
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

// window is the part of a list that a request asks for. The zero value is the first page.
type window struct{ start, size int }

// readWindow reads $top and $skipToken. The router does it before it calls a list's handler, so that
// a bad one is refused whether or not the handler pages.
func (r *Request) readWindow() (w window, err error) {
	if w.size, err = r.top(); err != nil {
		return window{}, err
	}
	if w.start, err = r.skip(); err != nil {
		return window{}, err
	}
	return w, nil
}

// List answers with the page of items that $top and $skipToken ask for, and the link to the next one.
// items is the whole list, in an order that stays the same between calls.
func List[T any](r *Request, items []T) *Reply {
	size := r.page.size
	if size == 0 {
		size = pageSize
	}
	start := min(r.page.start, len(items)) // items may have gone since the link was made
	end := min(start+size, len(items))
	page := Page[T]{Value: append([]T{}, items[start:end]...)}
	if end < len(items) {
		page.NextLink = r.nextLink(end)
	}
	return OK(page)
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

func (r *Request) nextLink(offset int) string {
	q := url.Values{}
	for name, values := range r.Query {
		if !strings.EqualFold(name, "$skipToken") {
			q[name] = values
		}
	}
	q.Set("$skipToken", r.skipToken(offset))
	return r.BaseURL + (&url.URL{Path: r.HTTP.URL.Path}).EscapedPath() + "?" + q.Encode()
}

// A $skipToken is the offset, and a code of it and of the list that it belongs to (its path and filter): one
// that was made up, changed or taken from another list is refused.
func (r *Request) skipToken(offset int) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(offset))
	return base64.RawURLEncoding.EncodeToString(append(b, r.linkCode(b)...))
}

func (r *Request) skip() (int, error) {
	s := parameter(r.Query, "$skipToken")
	if s == "" {
		return 0, nil
	}
	const size = 4
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < size || !hmac.Equal(b[size:], r.linkCode(b[:size])) {
		return 0, invalidQuery("$skipToken", "it is not from a nextLink of this list")
	}
	return int(binary.BigEndian.Uint32(b) & math.MaxInt32), nil
}

func (r *Request) linkCode(offset []byte) []byte {
	path := strings.ToLower(strings.TrimSuffix(r.HTTP.URL.Path, "/"))
	mac := hmac.New(sha256.New, r.linkKey)
	_, _ = mac.Write([]byte(path + "\x00" + parameter(r.Query, "$filter") + "\x00")) // a hash never fails
	_, _ = mac.Write(offset)
	return mac.Sum(nil)[:16]
}
