package arm_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kluis/internal/api/arm"
)

// lister lists the numbers below n.
func lister(t testing.TB, n *int) *arm.Router {
	t.Helper()
	list := func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
		items := []int(nil)
		for i := range *n {
			items = append(items, i)
		}
		return arm.List(r, items), nil
	}
	rt, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }},
		arm.Provider{Namespace: "N.S", Resources: []arm.Resource{{Type: "N.S/numbers", List: list}, {Type: "N.S/others", List: list}}})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

const numbers = "/subscriptions/s/providers/N.S/numbers"

func get(t *testing.T, rt *arm.Router, target string) arm.Page[int] {
	t.Helper()
	w := do(t, rt, "GET", target, "")
	var p arm.Page[int]
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 {
		t.Fatalf("GET %s = %d %s", target, w.Code, w.Body)
	}
	return p
}

func TestPages(t *testing.T) {
	cases := []struct {
		n     int
		query string
		pages []int
	}{
		{0, "", []int{0}},
		{200, "", []int{200}},
		{201, "", []int{200, 1}},
		{5, "&$top=2", []int{2, 2, 1}},
		{4, "&%24top=2", []int{2, 2}},
		{1500, "&$top=9999", []int{1000, 500}},
		{3, "&$top=2&$filter=name%20eq%20'a;b'", []int{2, 1}},
	}
	for _, c := range cases {
		rt := lister(t, &c.n)
		var sizes, all []int
		for target := numbers + version + c.query; target != ""; {
			p := get(t, rt, target)
			sizes, all = append(sizes, len(p.Value)), append(all, p.Value...)
			if p.NextLink == "" {
				break
			}
			link, err := url.Parse(p.NextLink)
			if err != nil || link.Scheme != "https" || link.Host != "kluis.example:8443" || link.Query().Get("api-version") != "2024-04-01" {
				t.Fatalf("nextLink = %q, %v", p.NextLink, err)
			}
			target = link.RequestURI()
		}
		if !slices.Equal(sizes, c.pages) || len(all) != c.n || !slices.IsSorted(all) {
			t.Errorf("%d items with %q come as %v, want %v", c.n, c.query, sizes, c.pages)
		}
	}
}

// A long list is read in pieces. Each element that the filter wants comes once, in order, in whole pages, however many are
// left out, and also when what has been shown goes; one that comes before the place moves nothing.
func TestWalk(t *testing.T) {
	for _, every := range []int{1, 3, 50, 1000} {
		elements := []int{}
		for i := range 60 {
			elements = append(elements, 20+i)
		}
		list := func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
			read := func(after string, most int) ([]int, error) {
				i := slices.IndexFunc(elements, func(n int) bool { return strconv.Itoa(n) > after })
				if i < 0 {
					return nil, nil
				}
				return elements[i:min(i+most, len(elements))], nil
			}
			return arm.Walk(r, read, strconv.Itoa, func(n int) (int, bool) { return n, n%every == 0 })
		}
		rt, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }},
			arm.Provider{Namespace: "N.S", Resources: []arm.Resource{{Type: "N.S/numbers", List: list}}})
		if err != nil {
			t.Fatal(err)
		}
		var want, all []int
		for _, n := range elements {
			if n%every == 0 {
				want = append(want, n)
			}
		}
		for target := numbers + version + "&$top=4"; target != ""; {
			p := get(t, rt, target)
			if all = append(all, p.Value...); p.NextLink == "" {
				break
			}
			if len(p.Value) != 4 {
				t.Errorf("every %d: a page before the last has %v", every, p.Value)
			}
			link, err := url.Parse(p.NextLink)
			if err != nil {
				t.Fatal(err)
			}
			target = link.RequestURI()
			gone := slices.Index(elements, p.Value[len(p.Value)-1])
			elements = append([]int{10}, elements[gone+1:]...)
		}
		if !slices.Equal(all, want) {
			t.Errorf("every %d: %v, want %v", every, all, want)
		}
	}
}

func TestEmptyListIsAnArray(t *testing.T) {
	n := 0
	if got := do(t, lister(t, &n), "GET", numbers+version, "").Body.String(); got != `{"value":[]}`+"\n" {
		t.Errorf("empty list = %s", got)
	}
}

func TestSkipTokenBelongsToItsList(t *testing.T) {
	n := 10
	rt := lister(t, &n)
	link, err := url.Parse(get(t, rt, numbers+version+"&$top=4").NextLink)
	if err != nil {
		t.Fatal(err)
	}
	token := url.QueryEscape(link.Query().Get("$skipToken"))
	if p := get(t, rt, strings.ToUpper(numbers)+"/"+version+"&$skiptoken="+token); len(p.Value) != 6 || p.Value[0] != 4 {
		t.Errorf("the same list in another case = %v", p.Value)
	}
	for _, target := range []string{
		"/subscriptions/s/providers/N.S/others" + version + "&$skipToken=" + token,
		numbers + version + "&$filter=a%20eq%20'b'&$skipToken=" + token,
		numbers + version + "&$skipToken=" + token + "AA",
		numbers + version + "&$skipToken=%00",
	} {
		if e := readError(t, do(t, rt, "GET", target, "")); e.Code != "InvalidQueryParameterValue" || e.Target != "$skipToken" {
			t.Errorf("%s: %+v", target, e)
		}
	}
	n = 2 // the rest of the list has gone in between
	if p := get(t, rt, numbers+version+"&$skipToken="+token); len(p.Value) != 0 || p.NextLink != "" {
		t.Errorf("page behind the end = %+v", p)
	}
}

func FuzzQuery(f *testing.F) {
	n := 1000
	rt := lister(f, &n)
	f.Add("AAAAAAAAAAAAAAAB", "5", "a eq 'b'")
	f.Add("", "", "a eq 'it''s' and b eq 3")
	f.Add("////", "-0", "a eq 'b")
	f.Fuzz(func(t *testing.T, token, top, filter string) {
		q := url.Values{"api-version": {"2024-04-01"}, "$skipToken": {token}, "$top": {top}, "$filter": {filter}}
		r := httptest.NewRequest("GET", "https://kluis.example"+numbers+"?"+q.Encode(), nil)
		r.Header.Set("Authorization", "Bearer yes")
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Body)
		if err != nil || w.Code != 200 && w.Code != 400 || !json.Valid(body) {
			t.Fatalf("%d %s", w.Code, body)
		}
	})
}
