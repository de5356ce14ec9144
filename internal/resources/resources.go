// Package resources is the subscription with its resource groups, and the resources that are only
// documents here: networks, interfaces and addresses, which a deployment template creates beside a VM
// and which are kept and given back as they were sent.
//
// A resource group must exist before anything is created in it (GroupExists is asked by the services
// that create), and is deleted only when nothing is left in it: what other services hold there is
// counted by those who were registered as Occupants.
package resources

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Occupant is a service that keeps resources of its own in groups.
type Occupant interface {
	// CountIn says how many resources of the service lie in a group.
	CountIn(ctx context.Context, group armid.ID) (int, error)
}

// Options are the parts of a Service.
type Options struct {
	DB               *database.DB
	Authorizer       Authorizer
	TenantID         string
	SubscriptionID   string
	SubscriptionName string
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
}

// Group is a resource group.
type Group struct {
	Name     string            `json:"name"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// Tenant returns the id of the tenant.
func (s *Service) Tenant() string { return s.o.TenantID }

// Subscriptions returns the subscriptions in which the caller may read; none is no error.
func (s *Service) Subscriptions(ctx context.Context) ([]Subscription, error) {
	one, err := s.Subscription(ctx, s.o.SubscriptionID)
	if err != nil {
		return nil, nil //nolint:nilerr // a caller without a role sees an empty list, as in Azure
	}
	return []Subscription{one}, nil
}

// Subscription returns the subscription of that id.
func (s *Service) Subscription(ctx context.Context, id string) (Subscription, error) {
	if !strings.EqualFold(id, s.o.SubscriptionID) {
		return Subscription{}, subscriptionNotFound(id)
	}
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Resources/subscriptions/read", s.root()); err != nil {
		return Subscription{}, err
	}
	return Subscription{s.o.SubscriptionID, s.o.TenantID, s.o.SubscriptionName}, nil
}

func (s *Service) root() armid.ID { return armid.Subscription(s.o.SubscriptionID) }

const groupActions = "Microsoft.Resources/subscriptions/resourceGroups"

var groupName = regexp.MustCompile(`^[-\w._()]{0,89}[-\w_()]$`)

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
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectGroup(ctx, tx, g.Name)
		if err != nil {
			return err
		}
		if created = !found; found {
			if !strings.EqualFold(old.Location, g.Location) {
				return groupElsewhere(old)
			}
			g.Name, g.Location = old.Name, old.Location
		}
		return putGroup(ctx, tx, g)
	})
	return g, created, err
}

// Group returns a group.
func (s *Service) Group(ctx context.Context, name string) (Group, error) {
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/read", s.root().Group(name)); err != nil {
		return Group{}, err
	}
	return s.lookupGroup(ctx, name)
}

func (s *Service) lookupGroup(ctx context.Context, name string) (g Group, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if g, found, err = selectGroup(ctx, tx, name); err == nil && !found {
			return groupNotFound(name)
		}
		return err
	})
	return g, err
}

// GroupExists is nil when the group exists, and says so to the caller when it does not.
func (s *Service) GroupExists(ctx context.Context, name string) error {
	_, err := s.lookupGroup(ctx, name)
	return err
}

// Groups returns the groups by name.
func (s *Service) Groups(ctx context.Context) (groups []Group, err error) {
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/read", s.root()); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		groups, err = selectGroups(ctx, tx)
		return err
	})
	return groups, err
}

// DeleteGroup removes a group. One in which there is still something is refused: a backup service does
// not take a group's contents down with it.
func (s *Service) DeleteGroup(ctx context.Context, name string) error {
	id := s.root().Group(name)
	if err := s.o.Authorizer.Authorize(ctx, groupActions+"/delete", id); err != nil {
		return err
	}
	if err := s.GroupExists(ctx, name); err != nil {
		return err
	}
	count := 0
	for _, o := range s.occupants {
		n, err := o.CountIn(ctx, id)
		if err != nil {
			return fmt.Errorf("look into resource group %s: %w", name, err)
		}
		count += n
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		own, err := selectDocuments(ctx, tx, id, "")
		if err != nil {
			return err
		}
		if count+len(own) > 0 {
			return groupNotEmpty(name, count+len(own))
		}
		return deleteGroup(ctx, tx, name)
	})
}

// DocumentTypes are the resources that are kept as they are sent.
var DocumentTypes = []string{
	"Microsoft.Network/networkInterfaces", "Microsoft.Network/networkSecurityGroups",
	"Microsoft.Network/publicIPAddresses", "Microsoft.Network/virtualNetworks",
}

// Document is a resource that is only a document: its body as it was sent, with id, name and type.
type Document struct {
	ID   armid.ID
	Body json.RawMessage
}

// PutDocument creates or replaces a resource.
func (s *Service) PutDocument(ctx context.Context, id armid.ID, body json.RawMessage) (_ Document, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/write", id); err != nil {
		return Document{}, false, err
	}
	if !slices.ContainsFunc(DocumentTypes, id.Is) {
		return Document{}, false, typeNotSupported(id)
	}
	if err := s.GroupExists(ctx, id.ResourceGroup); err != nil {
		return Document{}, false, err
	}
	d := Document{ID: id}
	if d.Body, err = complete(id, body); err != nil {
		return Document{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		_, found, err := selectDocument(ctx, tx, id)
		if err != nil {
			return err
		}
		created = !found
		return putDocument(ctx, tx, d)
	})
	return d, created, err
}

// complete adds to a body what every resource tells of itself.
func complete(id armid.ID, body json.RawMessage) (json.RawMessage, error) {
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
		return nil, notAnObject(id)
	}
	if location, _ := doc["location"].(string); location == "" {
		return nil, locationRequired(id.Name())
	}
	properties, _ := doc["properties"].(map[string]any)
	if properties == nil {
		properties = map[string]any{}
	}
	properties["provisioningState"] = "Succeeded"
	doc["properties"], doc["id"], doc["name"], doc["type"] = properties, id.String(), id.Name(), id.Type()
	return json.Marshal(doc)
}

// Document returns a resource.
func (s *Service) Document(ctx context.Context, id armid.ID) (d Document, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/read", id); err != nil {
		return Document{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if d, found, err = selectDocument(ctx, tx, id); err == nil && !found {
			return documentNotFound(id)
		}
		return err
	})
	return d, err
}

// Documents returns the resources of a type in a group or in the subscription, by id.
func (s *Service) Documents(ctx context.Context, scope armid.ID, typ string) (all []Document, err error) {
	if err := s.o.Authorizer.Authorize(ctx, typ+"/read", scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err = selectDocuments(ctx, tx, scope, typ)
		return err
	})
	return all, err
}

// DeleteDocument removes a resource; one that is not there is no error.
func (s *Service) DeleteDocument(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed, err = deleteDocument(ctx, tx, id)
		return err
	})
	return existed, err
}
