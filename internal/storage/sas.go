package storage

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/secret"
)

// SAS is a shared access signature: what it allows, for how long, from where, and the signature of one of
// the account's keys over all that. Fields are the texts of the query, as they were signed.
type SAS struct {
	Version     string // sv
	Services    string // ss, of an account SAS
	Types       string // srt, of an account SAS
	Resource    string // sr, of a service SAS: "c" or "b"
	Permissions string // sp
	Start       string // st
	Expiry      string // se
	Addresses   string // sip
	Protocol    string // spr
	Identifier  string // si
	Scope       string // ses
	Correlation string // scid, of a signature with a user delegation key
	Key         DelegationKey
	Override    [5]string
	Signature   []byte
}

// The parameters that override headers of an answer, and the headers; in the order in which they are signed.
var overrides = [5][2]string{{"rscc", "Cache-Control"}, {"rscd", "Content-Disposition"}, {"rsce", "Content-Encoding"}, {"rscl", "Content-Language"}, {"rsct", "Content-Type"}}

// The first version with this form of signature, and those that added a line to it.
const (
	oldestSAS    = "2015-04-05"
	resourceLine = "2018-11-09"
	scopeLine    = "2020-12-06"
)

var sasVersion = regexp.MustCompile(`^20\d\d-[01]\d-[0-3]\d$`)

// ParseSAS takes a signature out of a query. Its form is checked here, and nothing of what it says.
func ParseSAS(q url.Values) (SAS, error) {
	for name, values := range q {
		if len(values) > 1 && slices.Contains(sasNames, name) {
			return SAS{}, authenticationFailed("the parameter " + name + " is there twice")
		}
	}
	get := q.Get
	v := SAS{Version: get("sv"), Services: get("ss"), Types: get("srt"), Resource: get("sr"), Permissions: get("sp"), Start: get("st"), Expiry: get("se"),
		Addresses: get("sip"), Protocol: get("spr"), Identifier: get("si"), Scope: get("ses"), Correlation: get("scid"),
		Key: DelegationKey{ObjectID: get("skoid"), TenantID: get("sktid"), Start: get("skt"), Expiry: get("ske"), Service: get("sks"), Version: get("skv")}}
	for i, o := range overrides {
		v.Override[i] = get(o[0])
	}
	for name, what := range notSigned {
		if get(name) != "" {
			return SAS{}, sasNotSupported(what)
		}
	}
	if !sasVersion.MatchString(v.Version) || v.Version < oldestSAS {
		return SAS{}, authenticationFailed("its version (sv) is not " + oldestSAS + " or later")
	}
	var err error
	if v.Signature, err = base64.StdEncoding.DecodeString(get("sig")); err != nil || len(v.Signature) != 32 {
		return SAS{}, authenticationFailed("its signature (sig) is malformed")
	}
	return v, nil
}

var sasNames = []string{"sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "si", "ses", "scid", "skoid", "sktid", "skt", "ske", "sks", "skv", "sig", "rscc", "rscd", "rsce", "rscl", "rsct"}

// notSigned are parameters of signatures of other kinds.
var notSigned = map[string]string{
	"sdd": "a SAS for a directory", "saoid": "a SAS that authorizes another user", "suoid": "a SAS that authorizes another user",
	"sduoid": "a SAS for one user alone", "skdutid": "a SAS for one user alone", "srh": "a SAS that prescribes headers", "srq": "a SAS that prescribes parameters",
	"ses": "a SAS with an encryption scope",
}

func (v SAS) isAccount() bool { return v.Services != "" || v.Types != "" }

// isDelegated reports whether it is signed with a user delegation key.
func (v SAS) isDelegated() bool { return v.Key.ObjectID != "" }

// resource is what a service SAS is for, as it is signed.
func (v SAS) resource(account, container, blob string) string {
	resource := "/blob/" + account + "/" + container
	if v.Resource == "b" {
		resource += "/" + blob
	}
	return resource
}

// text is what is signed. container and blob are what the request is about.
func (v SAS) text(account, container, blob string) string {
	if v.isAccount() {
		lines := []string{account, v.Permissions, v.Services, v.Types, v.Start, v.Expiry, v.Addresses, v.Protocol, v.Version}
		if v.Version >= scopeLine {
			lines = append(lines, v.Scope)
		}
		return strings.Join(lines, "\n") + "\n"
	}
	lines := []string{v.Permissions, v.Start, v.Expiry, v.resource(account, container, blob), v.Identifier, v.Addresses, v.Protocol, v.Version}
	if v.Version >= resourceLine {
		lines = append(lines, v.Resource, "") // the time of a snapshot
	}
	if v.Version >= scopeLine {
		lines = append(lines, v.Scope)
	}
	return strings.Join(append(lines, v.Override[:]...), "\n")
}

// Redeem returns what a signature allows: if it is genuine, holds now, and is used from where and how it says.
func (s *Service) Redeem(ctx context.Context, v SAS, account, container, blob string, from netip.Addr, https bool) (Grant, error) {
	g, v, err := s.genuine(ctx, v, account, container, blob)
	if err != nil {
		return Grant{}, err
	}
	if err := errors.Join(v.holds(s.o.Now()), v.isFor(from, https)); err != nil {
		return Grant{}, err
	}
	g.letters, g.Response = v.Permissions, map[string]string{}
	for i, o := range overrides {
		if v.Override[i] != "" && !v.isAccount() { // those of an account SAS are not signed
			g.Response[o[1]] = v.Override[i]
		}
	}
	switch {
	case v.isAccount():
		if !strings.Contains(v.Services, "b") {
			return Grant{}, serviceMismatch()
		}
		g.levels = v.Types
	case v.Resource == "c" && container != "":
		g.container = container
	case v.Resource == "b" && blob != "":
		g.container, g.blob = container, blob
	default:
		return Grant{}, authenticationFailed("its resource (sr) is not a container or a blob, or not what the request is about")
	}
	return g, nil
}

// genuine returns whose a signature is, and all that it says.
func (s *Service) genuine(ctx context.Context, v SAS, account, container, blob string) (Grant, SAS, error) {
	if v.isDelegated() {
		if v.isAccount() || v.Identifier != "" {
			return Grant{}, v, authenticationFailed("a user delegation key signs for a container or a blob, and names no stored access policy")
		}
		g, err := s.redeemDelegated(ctx, v, account, container, blob)
		return g, v, err
	}
	if v.isAccount() && v.Identifier != "" {
		return Grant{}, v, authenticationFailed("a signature for an account names no stored access policy")
	}
	a, err := s.signer(ctx, account, v.text(strings.ToLower(account), container, blob), v.Signature)
	if err == nil {
		v, err = s.withPolicy(ctx, v, a, container)
	}
	return Grant{account: a.ID.Name()}, v, err
}

// holds is nil while the signature is valid.
func (v SAS) holds(now time.Time) error {
	expiry, err := parseSASTime(v.Expiry)
	if err != nil || !now.Before(expiry) {
		return authenticationFailed("it has expired (se), or never says when")
	}
	if v.Start == "" {
		return nil
	}
	if start, err := parseSASTime(v.Start); err != nil || now.Before(start) {
		return authenticationFailed("it is not valid yet (st)")
	}
	return nil
}

func parseSASTime(text string) (t time.Time, err error) {
	for _, layout := range []string{"2006-01-02T15:04:05Z", "2006-01-02T15:04Z", "2006-01-02", "2006-01-02T15:04:05.9999999Z", time.RFC3339} {
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, err
}

// isFor is nil if the signature may be used from an address over that protocol.
func (v SAS) isFor(from netip.Addr, https bool) error {
	switch v.Protocol {
	case "", "https,http":
	case "https":
		if !https {
			return authorizationProtocolMismatch()
		}
	default:
		return authenticationFailed("its protocol (spr) is not https or https,http")
	}
	if v.Addresses == "" {
		return nil
	}
	first, last, isRange := strings.Cut(v.Addresses, "-")
	if !isRange {
		last = first
	}
	low, lowErr := netip.ParseAddr(first)
	high, highErr := netip.ParseAddr(last)
	if lowErr != nil || highErr != nil || low.Is4() != high.Is4() {
		return authenticationFailed("its addresses (sip) are malformed")
	}
	if from = from.Unmap(); !from.IsValid() || from.Is4() != low.Is4() || from.Less(low) || high.Less(from) {
		return authorizationSourceIPMismatch()
	}
	return nil
}

// signed is the signature as a query, signed with a key.
func (v SAS) signed(key secret.Bytes, account, container, blob string) string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("sv", v.Version)
	set("ss", v.Services)
	set("srt", v.Types)
	set("sr", v.Resource)
	set("sp", v.Permissions)
	set("st", v.Start)
	set("se", v.Expiry)
	set("sip", v.Addresses)
	set("spr", v.Protocol)
	for i, o := range overrides {
		set(o[0], v.Override[i])
	}
	q.Set("sig", base64.StdEncoding.EncodeToString(sign(key, v.text(account, container, blob))))
	return q.Encode()
}

// ownSAS is the version of the signatures that are made here.
const ownSAS = "2022-11-02"

// ListAccountSAS signs an account SAS with one of the keys, "key1" where none is named.
func (s *Service) ListAccountSAS(ctx context.Context, id armid.ID, v SAS, key string) (query string, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/listAccountSas/action", id); err != nil {
		return "", err
	}
	if v.Services == "" || v.Types == "" {
		return "", invalidSASRequest("it needs signedServices and signedResourceTypes")
	}
	v.Resource = ""
	return s.issue(ctx, id, v, "", "", key)
}

// ListServiceSAS signs a SAS for a container, or a blob of it, with one of the keys. resource is
// /blob/{account}/{container}, with /{blob}.
func (s *Service) ListServiceSAS(ctx context.Context, id armid.ID, v SAS, resource, key string) (query string, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/listServiceSas/action", id); err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(resource, "/blob/"+id.Name()+"/")
	container, blob, _ := strings.Cut(rest, "/")
	if !ok || !isContainerName(container) || v.Resource != "c" && v.Resource != "b" || v.Resource == "b" && !isBlobName(blob) {
		return "", invalidSASRequest("canonicalizedResource is /blob/{account}/{container}, with /{blob} where signedResource is b")
	}
	v.Services, v.Types = "", ""
	return s.issue(ctx, id, v, container, blob, key)
}

func (s *Service) issue(ctx context.Context, id armid.ID, v SAS, container, blob, key string) (string, error) {
	v.Version = ownSAS
	if expiry, err := parseSASTime(v.Expiry); err != nil || !s.o.Now().Before(expiry) {
		return "", invalidSASRequest("signedExpiry must be a time to come")
	}
	if v.Permissions == "" {
		return "", invalidSASRequest("it needs signedPermission")
	}
	keys, err := s.keysOf(ctx, id)
	if err != nil {
		return "", err
	}
	query := ""
	for _, k := range keys {
		if k.Name() == key || key == "" && query == "" {
			query = v.signed(k.Value, id.Name(), container, blob)
		}
		k.Value.Wipe()
	}
	if query == "" {
		return "", invalidKeyName(key)
	}
	return query, nil
}
