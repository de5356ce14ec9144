package storage

import (
	"context"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Account is a storage account.
type Account struct {
	ID       armid.ID          `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
	Kind     string            `json:"kind"`
	SKU      string            `json:"sku"`
	Created  time.Time         `json:"created"`

	AccessTier   string `json:"accessTier,omitempty"`   // how it is said to be used; nothing depends on it
	MinimumTLS   string `json:"minimumTls,omitempty"`   // what was asked for; the listener speaks TLS 1.2 and later
	NoSharedKeys bool   `json:"noSharedKeys,omitempty"` // only roles count: keys, and what they have signed, do not
}

// PutAccount creates an account, with its keys, or changes the settings of one.
func (s *Service) PutAccount(ctx context.Context, a Account) (_ Account, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/write", a.ID); err != nil {
		return Account{}, false, err
	}
	if !accountName.MatchString(a.ID.Name()) {
		return Account{}, false, invalidAccountName(a.ID.Name())
	}
	if a.Location == "" {
		return Account{}, false, locationRequired(a.ID)
	}
	if err := s.o.Groups.GroupExists(ctx, a.ID.ResourceGroup); err != nil {
		return Account{}, false, err
	}
	a.Created = s.o.Now()
	keys, err := s.drawKeys(a.ID.Name())
	if err != nil {
		return Account{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectAccount(ctx, tx, a.ID.Name())
		if err != nil {
			return err
		}
		if created = !found; found {
			if !old.ID.Equal(a.ID) {
				return accountTaken(a.ID.Name())
			}
			a.ID, a.Location, a.Created = old.ID, old.Location, old.Created
			return putAccount(ctx, tx, a)
		}
		if err := putAccount(ctx, tx, a); err != nil {
			return err
		}
		return putKeys(ctx, tx, keys)
	})
	return a, created, err
}

// ChangeAccount changes what a function changes of an account; its id, location and time of creation stay.
func (s *Service) ChangeAccount(ctx context.Context, id armid.ID, change func(*Account)) (a Account, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/write", id); err != nil {
		return Account{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectAccount(ctx, tx, id.Name())
		if err != nil {
			return err
		}
		if !found || !old.ID.Equal(id) {
			return accountNotFound(id)
		}
		a = old
		change(&a)
		a.ID, a.Location, a.Created = old.ID, old.Location, old.Created
		return putAccount(ctx, tx, a)
	})
	return a, err
}

// CheckName says why an account of that name cannot be created; nil means that it can.
func (s *Service) CheckName(ctx context.Context, subscription armid.ID, name string) error {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Storage/checkNameAvailability/read", subscription); err != nil {
		return err
	}
	if !accountName.MatchString(name) {
		return invalidAccountName(name)
	}
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		_, found, err := selectAccount(ctx, tx, name)
		if err == nil && found {
			return accountTaken(name)
		}
		return err
	})
}

// Account returns an account.
func (s *Service) Account(ctx context.Context, id armid.ID) (Account, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/read", id); err != nil {
		return Account{}, err
	}
	a, err := s.account(ctx, id.Name())
	if err == nil && !a.ID.Equal(id) {
		return Account{}, accountNotFound(id)
	}
	return a, err
}

// AccountExists is nil when there is such an account and the caller may read it.
func (s *Service) AccountExists(ctx context.Context, id armid.ID) error {
	_, err := s.Account(ctx, id)
	return err
}

// account finds an account by its name, which may be any text.
func (s *Service) account(ctx context.Context, name string) (a Account, err error) {
	if !accountName.MatchString(strings.ToLower(name)) && name != publicAccount {
		return Account{}, accountNotFound(armid.ID{}.Resource(accountType, name))
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if a, found, err = selectAccount(ctx, tx, name); err == nil && !found {
			return accountNotFound(armid.ID{}.Resource(accountType, name))
		}
		return err
	})
	return a, err
}

// Accounts returns the accounts of a group or of the subscription, by name.
func (s *Service) Accounts(ctx context.Context, scope armid.ID) ([]Account, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/read", scope); err != nil {
		return nil, err
	}
	return s.accountsIn(ctx, scope)
}

func (s *Service) accountsIn(ctx context.Context, scope armid.ID) (within []Account, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err := selectAccounts(ctx, tx)
		for _, a := range all {
			if a.ID.Within(scope) {
				within = append(within, a)
			}
		}
		return err
	})
	return within, err
}

// CountIn says how many accounts a resource group holds.
func (s *Service) CountIn(ctx context.Context, group armid.ID) (int, error) {
	accounts, err := s.accountsIn(ctx, group)
	return len(accounts), err
}

// DeleteAccount removes an account with all its blobs; one that is not there is no error.
func (s *Service) DeleteAccount(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/delete", id); err != nil {
		return false, err
	}
	var unused []string
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed, unused = false, nil
		a, found, err := selectAccount(ctx, tx, id.Name())
		if err != nil || !found || !a.ID.Equal(id) {
			return err
		}
		existed = true
		unused, err = deleteAccount(ctx, tx, a.ID.Name())
		return err
	})
	if err != nil {
		return false, err
	}
	return existed, s.drop(ctx, unused...)
}

// Information describes an account to whoever may use its data.
func (s *Service) Information(ctx context.Context, account string) (Account, error) {
	return s.open(ctx, account, "", "", readService)
}
