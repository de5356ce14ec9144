package resources

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/problem"
)

// Occupant is a service that keeps resources of its own in groups.
type Occupant interface {
	// CountIn says how many resources of the service lie in a group.
	CountIn(ctx context.Context, group armid.ID) (int, error)
}

// Keeper is an occupant some of whose resources must not go down with their group.
type Keeper interface {
	// Deletable is nil when nothing that the service keeps in a group forbids to delete it.
	Deletable(ctx context.Context, group armid.ID) error
}

// Contents are the resources of groups, whoever keeps them, as the caller in ctx.
type Contents interface {
	In(ctx context.Context, group armid.ID) ([]armid.ID, error)
	Delete(ctx context.Context, id armid.ID) error
}

// first and after are the types that are deleted before and after all others: a VM lets go of its disks and its
// network, and what a key vault holds may still be wanted by whoever looks why something could not be deleted.
var (
	first = []string{"Microsoft.RecoveryServices/vaults", "Microsoft.Compute/virtualMachines"}
	after = []string{"Microsoft.Compute/disks", "Microsoft.Network/virtualNetworks", "Microsoft.Network/networkSecurityGroups", "Microsoft.Storage/storageAccounts", "Microsoft.KeyVault/vaults"}
)

// rank is a resource's place in the order of deletion.
func rank(id armid.ID) int {
	if i := slices.IndexFunc(first, id.Is); i >= 0 {
		return i - len(first)
	}
	return slices.IndexFunc(after, id.Is) + 1
}

// DeleteGroup removes a group with what is in it. A recovery services vault that holds backup data keeps its group,
// and so does a resource that the caller may not delete, or that is locked: all of that is found out before
// anything is deleted.
func (s *Service) DeleteGroup(ctx context.Context, name string, contents Contents) error {
	id := s.root().Group(name)
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/delete", id); err != nil {
		return err
	}
	g, err := s.lookupGroup(ctx, name)
	if err != nil {
		return err
	}
	id = s.root().Group(g.Name)
	for _, o := range s.occupants {
		if k, ok := o.(Keeper); ok {
			if err := k.Deletable(ctx, id); err != nil {
				return groupKept(g.Name, err)
			}
		}
	}
	inside, err := contents.In(ctx, id)
	if err != nil {
		return fmt.Errorf("look into resource group %s: %w", name, err)
	}
	slices.SortStableFunc(inside, func(a, b armid.ID) int { return rank(a) - rank(b) })
	for _, r := range inside {
		if err := s.o.Authorizer.Authorize(ctx, r.Type()+"/delete", r); err != nil {
			return groupKept(g.Name, err)
		}
	}
	for _, r := range inside {
		if err := contents.Delete(ctx, r); err != nil {
			return groupKept(g.Name, err)
		}
	}
	return s.removeGroup(ctx, id)
}

// removeGroup removes a group in which nothing is left, not even what somebody has just made.
func (s *Service) removeGroup(ctx context.Context, id armid.ID) error {
	count := 0
	for _, o := range s.occupants {
		n, err := o.CountIn(ctx, id)
		if err != nil {
			return fmt.Errorf("look into resource group %s: %w", id.ResourceGroup, err)
		}
		count += n
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		g, err := lookupGroup(ctx, tx, id.ResourceGroup)
		if err != nil {
			return err
		}
		own, err := selectDocuments(ctx, tx, id, "")
		if err != nil {
			return err
		}
		if count+len(own) > 0 {
			return groupNotEmpty(g.Name, count+len(own))
		}
		return deleteGroup(ctx, tx, g.Name)
	})
}

// groupKept tells why a group was not deleted. What is no refusal stays what it is.
func groupKept(name string, err error) error {
	why := problem.Of(err)
	if why == nil || why.Kind == problem.Internal {
		return fmt.Errorf("delete resource group %s: %w", name, err)
	}
	p := problem.New(problem.Conflict, "ResourceGroupDeletionBlocked",
		"Deletion of resource group '%s' failed as resources with identifiers '%s' could not be deleted.", name, why.Target).
		WithTarget(name).WithAdvice("%s Then delete the group again.", strings.TrimSpace(why.Advice))
	p.Details = []*problem.Error{why}
	return p
}
