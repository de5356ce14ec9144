// Package resources is the subscription with its resource groups, and the resources that are only
// documents here: networks, interfaces and addresses, which a deployment template creates beside a VM
// and which are kept and given back as they were sent.
//
// A resource group must exist before anything is created in it (GroupExists is asked by the services
// that create). It is deleted with what is in it (delete.go), unless one of those who were registered as
// Occupants keeps something there that must not be lost in passing: recovery services vaults with backup data do.
package resources

import (
	"context"
	"regexp"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/problem"
)

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Options are the parts of a Service.
type Options struct {
	DB               *database.DB
	Authorizer       Authorizer
	TenantID         string
	SubscriptionID   string
	SubscriptionName string
	Locations        []string // that clients are offered; any other name is taken too
	Now              func() time.Time
}

// Service knows what there is in the subscription. It is safe for concurrent use once Occupy was called
// for the last time.
type Service struct {
	o         Options
	occupants []Occupant
}

// New returns the service.
func New(o Options) *Service { return &Service{o: o} }

// Occupy registers services that keep resources in groups.
func (s *Service) Occupy(occupants ...Occupant) { s.occupants = append(s.occupants, occupants...) }

// Subscription is the one subscription of an installation.
type Subscription struct {
	ID, TenantID, Name string
	Tags               map[string]string
}

// Group is a resource group.
type Group struct {
	Name     string            `json:"name"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`

	ManagedBy string `json:"managedBy,omitempty"` // given back as it came
}

// Tenant returns the id of the tenant.
func (s *Service) Tenant() string { return s.o.TenantID }

// Subscriptions returns the subscriptions in which the caller may read anything; none is no error.
func (s *Service) Subscriptions(ctx context.Context) ([]Subscription, error) {
	one, err := s.Subscription(ctx, s.o.SubscriptionID)
	if problem.KindOf(err) == problem.Denied {
		return nil, nil // as in Azure, where others' subscriptions are not seen
	}
	if err != nil {
		return nil, err
	}
	return []Subscription{one}, nil
}

// Subscription returns the subscription of that id. Who may read one of its groups may read it too: that
// is where a client begins.
func (s *Service) Subscription(ctx context.Context, id string) (Subscription, error) {
	if err := s.InSubscription(armid.Subscription(id)); err != nil {
		return Subscription{}, err
	}
	denied := s.o.Authorizer.Authorize(ctx, "Microsoft.Resources/subscriptions/read", s.root())
	if denied == nil {
		return s.subscription(ctx)
	}
	if problem.KindOf(denied) != problem.Denied {
		return Subscription{}, denied
	}
	groups, err := s.Groups(ctx)
	if err == nil && len(groups) > 0 {
		return s.subscription(ctx)
	}
	if err != nil && problem.KindOf(err) != problem.Denied {
		return Subscription{}, err
	}
	return Subscription{}, denied
}

func (s *Service) subscription(ctx context.Context) (one Subscription, err error) {
	one = Subscription{ID: s.o.SubscriptionID, TenantID: s.o.TenantID, Name: s.o.SubscriptionName}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		one.Tags, err = selectSubscriptionTags(ctx, tx, one.ID)
		return err
	})
	return one, err
}

// TagSubscription replaces the tags of the subscription.
func (s *Service) TagSubscription(ctx context.Context, id string, tags map[string]string) error {
	if err := s.InSubscription(armid.Subscription(id)); err != nil {
		return err
	}
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Resources/tags/write", s.root()); err != nil {
		return err
	}
	if err := checkTags(tags); err != nil {
		return err
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putSubscriptionTags(ctx, tx, s.o.SubscriptionID, tags) })
}

// InSubscription is nil when the id lies in the subscription of this installation.
func (s *Service) InSubscription(id armid.ID) error {
	if !strings.EqualFold(id.Subscription, s.o.SubscriptionID) {
		return subscriptionNotFound(id.Subscription)
	}
	return nil
}

func (s *Service) root() armid.ID { return armid.Subscription(s.o.SubscriptionID) }

const groupActions = "Microsoft.Resources/subscriptions/resourceGroups"

var (
	groupName    = regexp.MustCompile(`^[-\w._()]{0,89}[-\w_()]$`)
	locationName = regexp.MustCompile(`^[a-z0-9-]{1,60}$`)
)

// canonical is a location as Azure keeps it: "West Europe" is westeurope.
func canonical(location string) string {
	return strings.ToLower(strings.ReplaceAll(location, " ", ""))
}

// PutGroup creates a group, or changes the tags of one. Its location is for ever.
func (s *Service) PutGroup(ctx context.Context, g Group) (_ Group, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/write", s.root().Group(g.Name)); err != nil {
		return Group{}, false, err
	}
	if !groupName.MatchString(g.Name) {
		return Group{}, false, invalidGroupName(g.Name)
	}
	if g.Location == "" {
		return Group{}, false, locationRequired(g.Name)
	}
	if g.Location = canonical(g.Location); !locationName.MatchString(g.Location) {
		return Group{}, false, invalidLocation(g.Location)
	}
	if err := checkTags(g.Tags); err != nil {
		return Group{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectGroup(ctx, tx, g.Name)
		if err != nil {
			return err
		}
		if created = !found; found {
			if old.Location != g.Location {
				return groupElsewhere(old)
			}
			g.Name = old.Name
		}
		return putGroup(ctx, tx, g)
	})
	if err != nil {
		return Group{}, false, err
	}
	return g, created, nil
}

// TagGroup replaces the tags of a group.
func (s *Service) TagGroup(ctx context.Context, name string, tags map[string]string) (g Group, err error) {
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/write", s.root().Group(name)); err != nil {
		return Group{}, err
	}
	if err := checkTags(tags); err != nil {
		return Group{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if g, err = lookupGroup(ctx, tx, name); err != nil {
			return err
		}
		g.Tags = tags
		return putGroup(ctx, tx, g)
	})
	return g, err
}

// Azure's bounds on tags.
const (
	maxTags     = 50
	maxTagName  = 512
	maxTagValue = 256
)

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return tooManyTags(len(tags))
	}
	for name, value := range tags {
		if name == "" || len(name) > maxTagName || len(value) > maxTagValue {
			return invalidTag(name)
		}
	}
	return nil
}

// EnsureGroup returns where a group is, and makes one at a location if there is none. It serves what is found on VM
// hosts, which is there whether or not somebody may make groups.
func (s *Service) EnsureGroup(ctx context.Context, name, location string) (at string, err error) {
	if !groupName.MatchString(name) {
		return "", invalidGroupName(name)
	}
	if at = canonical(location); !locationName.MatchString(at) {
		return "", invalidLocation(location)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectGroup(ctx, tx, name)
		if found {
			at = old.Location
		}
		if err != nil || found {
			return err
		}
		return putGroup(ctx, tx, Group{Name: name, Location: at})
	})
	return at, err
}

// Group returns a group.
func (s *Service) Group(ctx context.Context, name string) (Group, error) {
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/read", s.root().Group(name)); err != nil {
		return Group{}, err
	}
	return s.lookupGroup(ctx, name)
}

func lookupGroup(ctx context.Context, tx *database.Tx, name string) (Group, error) {
	g, found, err := selectGroup(ctx, tx, name)
	if err == nil && !found {
		return Group{}, groupNotFound(name)
	}
	return g, err
}

func (s *Service) lookupGroup(ctx context.Context, name string) (g Group, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		g, err = lookupGroup(ctx, tx, name)
		return err
	})
	return g, err
}

// GroupExists is nil when the group exists, and says so to the caller when it does not.
func (s *Service) GroupExists(ctx context.Context, name string) error {
	_, err := s.lookupGroup(ctx, name)
	return err
}

// Groups returns the groups that the caller may read, by name.
func (s *Service) Groups(ctx context.Context) (groups []Group, err error) {
	denied := s.o.Authorizer.Authorize(ctx, groupActions+"/read", s.root())
	if denied != nil && problem.KindOf(denied) != problem.Denied {
		return nil, denied
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		groups, err = selectGroups(ctx, tx)
		return err
	})
	if err != nil || denied == nil {
		return groups, err
	}
	var readable []Group
	for _, g := range groups {
		switch err := s.o.Authorizer.Authorize(ctx, groupActions+"/read", s.root().Group(g.Name)); {
		case err == nil:
			readable = append(readable, g)
		case problem.KindOf(err) != problem.Denied:
			return nil, err
		}
	}
	if len(readable) == 0 {
		return nil, denied
	}
	return readable, nil
}
