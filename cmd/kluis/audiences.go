package main

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"kluis/internal/identity"
)

// audiences are what tokens can be for. Each door takes its own: who shows a token to a key vault must not thereby hand
// over what manages it. They don't depend on the name by which a request comes in, since the client chooses that.
type audiences struct {
	bases                          []string // names of the server, as URLs
	accounts                       string   // what storage accounts are below
	management, keyVaults, storage []string
}

// audiencesOf knows Azure's own names as well: clients that can't be told another send those.
func (p *parts) audiencesOf(c config, host string) audiences {
	a := audiences{bases: []string{p.base}, accounts: "blob." + p.domain}
	if ip := ipOf(c.Listen); ip != nil && !ip.IsUnspecified() {
		a.bases = append(a.bases, "https://"+net.JoinHostPort(ip.String(), strings.TrimPrefix(portOf(host), ":")))
	}
	a.management = slices.Concat(a.bases, []string{"https://management.azure.com", "https://management.core.windows.net"})
	a.keyVaults = []string{"https://vault." + host, "https://vault." + p.domain, "https://vault.azure.net"}
	a.storage = append([]string{"https://storage.azure.com"}, a.management...)
	return a
}

func (a audiences) forManagement(*http.Request) []string { return a.management }
func (a audiences) forKeyVaults(*http.Request) []string  { return a.keyVaults }

// forStorage are also that of the one storage account that is asked for.
func (a audiences) forStorage(r *http.Request) []string {
	if own := "https://" + r.Host; a.isAccount(own) {
		return append([]string{own}, a.storage...)
	}
	return a.storage
}

// isAccount reports whether an audience is the address of a storage account.
func (a audiences) isAccount(audience string) bool {
	host, ok := strings.CutPrefix(strings.ToLower(audience), "https://")
	return ok && below(host, a.accounts)
}

// has reports whether something here takes tokens of an audience.
func (a audiences) has(audience string) bool {
	audience = identity.Audience(audience)
	fits := func(known string) bool { return strings.EqualFold(known, audience) }
	return slices.ContainsFunc(slices.Concat(a.management, a.keyVaults, a.storage), fits) || a.isAccount(audience)
}
