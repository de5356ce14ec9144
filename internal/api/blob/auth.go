package blob

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/problem"
	"kluis/internal/storage"
)

// authenticate returns a context in which the caller is known: by a bearer token, by the account's key with
// which the request is signed, or by a shared access signature.
func (d *door) authenticate(w http.ResponseWriter, x *request) (context.Context, error) {
	header := x.Header.Get("Authorization")
	scheme, credentials, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "SharedKey"):
		return d.sharedKey(x, credentials)
	case header == "" && x.query.Has("sig"):
		g, err := d.redeem(x.Context(), x, x.query, x.account, x.container, x.blob)
		if err != nil {
			return nil, err
		}
		x.response = g.Response
		return storage.WithGrant(x.Context(), g), nil
	}
	ctx, err := d.o.Authenticate(x.Context(), x.Request)
	if problem.KindOf(err) == problem.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+d.o.Authority+`", resource_id="`+audience+`"`)
	}
	return ctx, err
}

// redeem takes a shared access signature out of a query, for what the query's URL names.
func (d *door) redeem(ctx context.Context, x *request, q url.Values, account, container, blob string) (storage.Grant, error) {
	v, err := storage.ParseSAS(q)
	if err != nil {
		return storage.Grant{}, err
	}
	return d.s.Redeem(ctx, v, account, container, blob, addressOf(x.Request), true) // the listener speaks TLS alone
}

// maxSkew is how far a signed request's date may be from now.
const maxSkew = 15 * time.Minute

// sharedKey checks "account:signature", which an account's key has made of the request.
func (d *door) sharedKey(x *request, credentials string) (context.Context, error) {
	account, text, _ := strings.Cut(credentials, ":")
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(signature) != 32 {
		return nil, authenticationFailed("the signature is malformed")
	}
	if !strings.EqualFold(account, x.account) {
		return nil, authenticationFailed("it is for another account than the host")
	}
	date := x.Header.Get("X-Ms-Date")
	if date == "" {
		date = x.Header.Get("Date")
	}
	sent, err := http.ParseTime(date)
	if err != nil || sent.Sub(d.o.Now()).Abs() > maxSkew {
		return nil, authenticationFailed("the request's date (x-ms-date) is missing, or more than " + maxSkew.String() + " from the server's time")
	}
	g, err := d.s.SignedBy(x.Context(), account, signedText(x.Request, account), signature)
	if err != nil {
		return nil, err
	}
	return storage.WithGrant(x.Context(), g), nil
}

// The headers whose values are signed by their places, without a name.
var signedHeaders = []string{"Content-Encoding", "Content-Language", "Content-Length", "Content-Md5", "Content-Type", "Date",
	"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"}

// signedText is what Shared Key authorization signs of a request ("Authorize with Shared Key").
func signedText(r *http.Request, account string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	for _, name := range signedHeaders {
		value := r.Header.Get(name)
		switch {
		case name == "Content-Length" && r.ContentLength > 0:
			value = strconv.FormatInt(r.ContentLength, 10)
		case name == "Content-Length", name == "Date" && r.Header.Get("X-Ms-Date") != "":
			value = ""
		}
		b.WriteString(value + "\n")
	}
	var names []string
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(name + ":" + strings.TrimSpace(strings.Join(r.Header.Values(name), ",")) + "\n")
	}
	b.WriteString("/" + account + r.URL.EscapedPath())
	b.WriteString(signedQuery(r.URL.Query()))
	return b.String()
}

func signedQuery(q url.Values) string {
	folded := map[string][]string{}
	for name, values := range q {
		folded[strings.ToLower(name)] = append(folded[strings.ToLower(name)], values...)
	}
	var names []string
	for name := range folded {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		slices.Sort(folded[name])
		b.WriteString("\n" + name + ":" + strings.Join(folded[name], ","))
	}
	return b.String()
}

func authenticationFailed(why string) error {
	return problem.New(problem.Denied, "AuthenticationFailed",
		"Server failed to authenticate the request. Make sure the value of the Authorization header is formed correctly including the signature: %s.", why).
		WithAdvice("Sign with one of the account's keys, by a clock that is right.")
}
