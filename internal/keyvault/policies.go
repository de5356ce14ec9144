package keyvault

import (
	"context"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/identity"
)

// Permissions are what an access policy grants, in Azure's words; they are compared without regard to case.
type Permissions struct {
	Keys         []string `json:"keys,omitempty"`
	Secrets      []string `json:"secrets,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
	Storage      []string `json:"storage,omitempty"`
}

// AccessPolicy grants permissions on the content of one key vault to one principal, or, when ApplicationID
// is given, to that principal only through that application.
type AccessPolicy struct {
	TenantID      string      `json:"tenantId"`
	ObjectID      string      `json:"objectId"`
	ApplicationID string      `json:"applicationId,omitempty"`
	Permissions   Permissions `json:"permissions"`
}

// PolicyChange says how UpdateAccessPolicies changes what is there.
type PolicyChange string

// Add unites, Replace puts in place of, Remove takes away.
const (
	Add     PolicyChange = "add"
	Replace PolicyChange = "replace"
	Remove  PolicyChange = "remove"
)

// AzureBackupTemplate is the portal's template 'Azure Backup': all that backup needs, and no more.
func AzureBackupTemplate() Permissions {
	return Permissions{Keys: []string{"Get", "List", "Backup"}, Secrets: []string{"Get", "List", "Backup"}}
}

// IsZero reports whether nothing is granted.
func (p Permissions) IsZero() bool {
	return len(p.Keys)+len(p.Secrets)+len(p.Certificates)+len(p.Storage) == 0
}

// each yields the four lists with the words that may stand in them.
func (p *Permissions) each() []permissionList {
	return []permissionList{
		{"keys", &p.Keys, keyPermissions},
		{"secrets", &p.Secrets, secretPermissions},
		{"certificates", &p.Certificates, certificatePermissions},
		{"storage", &p.Storage, storagePermissions},
	}
}

type permissionList struct {
	name  string
	words *[]string
	known []string
}

const all = "all"

// The words of each group beside "all". Certificates and storage are stored and shown, but never asked for.
var (
	keyPermissions = strings.Fields(`encrypt decrypt wrapKey unwrapKey sign verify get list create update import delete
		backup restore recover purge release rotate getrotationpolicy setrotationpolicy`)
	secretPermissions      = strings.Fields("get list set delete backup restore recover purge")
	certificatePermissions = strings.Fields(`get list delete create import update managecontacts getissuers listissuers setissuers
		deleteissuers manageissuers recover purge backup restore`)
	storagePermissions = strings.Fields(`get list delete set update regeneratekey recover purge backup restore setsas listsas getsas deletesas`)
)

func has(words []string, word string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) })
}

func grants(words []string, word string) bool { return has(words, word) || has(words, all) }

// appliesTo reports whether the policy speaks of this principal. Built-in principals belong to every tenant and name none.
func (a AccessPolicy) appliesTo(p identity.Principal) bool {
	return p.ObjectID != "" && strings.EqualFold(a.ObjectID, p.ObjectID) &&
		(p.TenantID == "" || strings.EqualFold(a.TenantID, p.TenantID)) &&
		(a.ApplicationID == "" || strings.EqualFold(a.ApplicationID, p.AppID))
}

func (a AccessPolicy) sameSubject(b AccessPolicy) bool {
	return strings.EqualFold(a.TenantID, b.TenantID) && strings.EqualFold(a.ObjectID, b.ObjectID) &&
		strings.EqualFold(a.ApplicationID, b.ApplicationID)
}

// allows reports whether the key vault's policies let the principal do what needs this permission.
func (v Vault) allows(p identity.Principal, kind Kind, permission string) bool {
	for _, a := range v.AccessPolicies {
		words := a.Permissions.Keys
		if kind == Secrets {
			words = a.Permissions.Secrets
		}
		if a.appliesTo(p) && grants(words, permission) {
			return true
		}
	}
	return false
}

// Missing returns those of the wanted permissions that neither an access policy of the key vault grants to the object
// id nor, where the key vault leaves access to roles, a role. It is for other services, which ask on their own behalf:
// nobody is authorized.
func (s *Service) Missing(ctx context.Context, id armid.ID, objectID string, want Permissions) (Permissions, error) {
	var missing Permissions
	err := s.o.DB.Read(ctx, func(tx *database.Tx) error {
		v, err := s.liveVault(ctx, tx, id)
		if err != nil {
			return err
		}
		if v.RBAC {
			missing, err = s.missingRoles(ctx, tx, v, objectID, want)
			return err
		}
		missing = v.missing(identity.Principal{TenantID: s.o.TenantID, ObjectID: objectID}, want)
		return nil
	})
	return missing, err
}

func (v Vault) missing(p identity.Principal, want Permissions) Permissions {
	var missing Permissions
	wanted, result := want.each(), missing.each()
	for i, list := range wanted {
		for _, word := range *list.words {
			granted := slices.ContainsFunc(v.AccessPolicies, func(a AccessPolicy) bool {
				return a.appliesTo(p) && grants(*a.Permissions.each()[i].words, word)
			})
			if !granted {
				*result[i].words = append(*result[i].words, word)
			}
		}
	}
	return missing
}

// UpdateAccessPolicies adds to, replaces or removes from the access policies of a key vault. Policies of other
// principals stay as they are.
func (s *Service) UpdateAccessPolicies(ctx context.Context, id armid.ID, change PolicyChange, policies []AccessPolicy) (Vault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/accessPolicies/write", id); err != nil {
		return Vault{}, err
	}
	if change != Add && change != Replace && change != Remove {
		return Vault{}, badPolicyChange(string(change))
	}
	if err := s.checkPolicies(policies); err != nil {
		return Vault{}, err
	}
	return s.changeVault(ctx, id, func(v *Vault) error {
		for _, p := range policies {
			v.AccessPolicies = change.apply(v.AccessPolicies, p)
		}
		if len(v.AccessPolicies) > maxPolicies {
			return tooManyPolicies()
		}
		return nil
	})
}

// apply returns old with the change made for one policy; old is not changed.
func (c PolicyChange) apply(old []AccessPolicy, p AccessPolicy) []AccessPolicy {
	out := slices.Clone(old)
	at := slices.IndexFunc(out, p.sameSubject)
	switch {
	case at < 0 && c == Remove:
	case at < 0:
		out = append(out, p)
	case c == Replace:
		out[at] = p
	case c == Add:
		out[at].Permissions = unite(out[at].Permissions, p.Permissions)
	case p.Permissions.IsZero():
		out = slices.Delete(out, at, at+1)
	default:
		if out[at].Permissions = without(out[at].Permissions, p.Permissions); out[at].Permissions.IsZero() {
			out = slices.Delete(out, at, at+1)
		}
	}
	return out
}

func unite(a, b Permissions) Permissions {
	lists, more := a.each(), b.each()
	for i, l := range lists {
		words := slices.Clone(*l.words)
		for _, w := range *more[i].words {
			if !has(words, w) {
				words = append(words, w)
			}
		}
		*l.words = words
	}
	return a
}

// without takes away words; taking one word away from "all" leaves all others.
func without(a, b Permissions) Permissions {
	lists, less := a.each(), b.each()
	for i, l := range lists {
		words := slices.Clone(*l.words)
		if len(*less[i].words) > 0 && has(words, all) && !has(*less[i].words, all) {
			words = slices.Clone(l.known)
		}
		*l.words = slices.DeleteFunc(words, func(w string) bool { return grants(*less[i].words, w) })
	}
	return a
}

const maxPolicies = 1024

// checkPolicies refuses what could never be granted.
func (s *Service) checkPolicies(policies []AccessPolicy) error {
	if len(policies) > maxPolicies {
		return tooManyPolicies()
	}
	for _, p := range policies {
		switch {
		case p.ObjectID == "" || len(p.ObjectID) > 64:
			return badPolicy("objectId is required, and is the object id of a user, group or service principal")
		case !strings.EqualFold(p.TenantID, s.o.TenantID):
			return badPolicy("tenantId %q is not the tenant of this installation, %s", clip(p.TenantID), s.o.TenantID)
		}
		for _, list := range p.Permissions.each() {
			for _, w := range *list.words {
				if !has(list.known, w) && !strings.EqualFold(w, all) {
					return badPolicy("%q is not a permission for %s; known are: all %s", clip(w), list.name, strings.Join(list.known, " "))
				}
			}
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
