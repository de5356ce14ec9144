package keyvault

import (
	"context"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/keyvault/audit"
)

// What may be read of the log of uses. Reading it needs a role, like all of management.

// Entry is one use of a key or a secret.
type Entry = audit.Entry

// Uses returns the uses of a key vault's content, newest first: at most max of them, and only those before the
// use with the id before, unless it is empty.
func (s *Service) Uses(ctx context.Context, id armid.ID, before string, max int) ([]Entry, error) {
	v, err := s.Vault(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.log.OfVault(ctx, v.key(), before, min(max, maxEntries))
}

// maxEntries is the most that one answer holds.
const maxEntries = 1000

// Event is an entry with the id of its key vault, if that is still known.
type Event struct {
	Entry
	VaultID armid.ID
}

// Audit returns the log in its order: at most max entries after a place.
func (s *Service) Audit(ctx context.Context, subscription armid.ID, after int64, max int) ([]Event, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/auditEvents/read", subscription); err != nil {
		return nil, err
	}
	entries, err := s.log.After(ctx, after, min(max, maxEntries))
	if err != nil {
		return nil, err
	}
	known := map[string]armid.ID{}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectVaults(ctx, tx)
		for _, r := range rows {
			known[r.key()] = r.ID
		}
		return err
	})
	events := make([]Event, len(entries))
	for i, e := range entries {
		events[i] = Event{e, known[e.Vault]}
	}
	return events, err
}

// VerifyAudit checks the whole log. noted is a head that was shown earlier, or empty.
func (s *Service) VerifyAudit(ctx context.Context, subscription armid.ID, noted string) (audit.Report, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/auditEvents/read", subscription); err != nil {
		return audit.Report{}, err
	}
	var head audit.Head
	if noted != "" {
		var err error
		if head, err = audit.ParseHead(noted); err != nil {
			return audit.Report{}, badParameter("head", "%s", err)
		}
	}
	return s.log.Verify(ctx, head)
}
