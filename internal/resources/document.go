package resources

import (
	"context"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// DocumentTypes are the resources that are kept as they are sent.
var DocumentTypes = []string{
	"Microsoft.Network/networkInterfaces", "Microsoft.Network/networkSecurityGroups",
	"Microsoft.Network/publicIPAddresses", "Microsoft.Network/virtualNetworks",
}

// Document is a resource that is only a document: its body as it was sent, with id, name, type and
// provisioning state.
type Document struct {
	ID   armid.ID
	Body json.RawMessage
}

// PutDocument creates or replaces a resource. Its id keeps the spelling with which it was created.
func (s *Service) PutDocument(ctx context.Context, id armid.ID, body json.RawMessage) (d Document, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/write", id); err != nil {
		return Document{}, false, err
	}
	if err := s.InSubscription(id); err != nil {
		return Document{}, false, err
	}
	known := slices.IndexFunc(DocumentTypes, id.Is)
	if known < 0 {
		return Document{}, false, typeNotSupported(id)
	}
	if id.ResourceGroup == "" {
		return Document{}, false, groupRequired(id)
	}
	id = id.Scope().Resource(DocumentTypes[known], id.Name())
	members, err := decode(id, body)
	if err != nil {
		return Document{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lookupGroup(ctx, tx, id.ResourceGroup); err != nil {
			return err
		}
		old, found, err := selectDocument(ctx, tx, id)
		if err != nil {
			return err
		}
		d.ID = id
		if created = !found; found {
			d.ID = old.ID
		}
		if d.Body, err = complete(d.ID, members); err != nil {
			return err
		}
		return putDocument(ctx, tx, d)
	})
	if err != nil {
		return Document{}, false, err
	}
	return d, created, nil
}

// TagDocument replaces the tags of a resource; nil leaves them as they are.
func (s *Service) TagDocument(ctx context.Context, id armid.ID, tags map[string]string) (d Document, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/write", id); err != nil {
		return Document{}, err
	}
	if err := checkTags(tags); err != nil {
		return Document{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		var found bool
		if d, found, err = selectDocument(ctx, tx, id); err != nil {
			return err
		}
		if !found {
			return documentNotFound(id)
		}
		var doc object
		if err := json.Unmarshal(d.Body, &doc); err != nil || tags == nil {
			return err
		}
		if doc["tags"], err = json.Marshal(tags); err != nil {
			return err
		}
		if d.Body, err = json.Marshal(doc); err != nil {
			return err
		}
		return putDocument(ctx, tx, d)
	})
	return d, err
}

// object is a JSON object whose values nobody looks into, so that they come back as they were sent.
type object map[string]json.RawMessage

// decode reads a body: an object with a location. Bytes that are not UTF-8 are refused, because a
// database that keeps text does not take them.
func decode(id armid.ID, body json.RawMessage) (object, error) {
	var doc object
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil || !utf8.Valid(body) {
		return nil, notAnObject(id)
	}
	var location string
	if err := json.Unmarshal(doc["location"], &location); err != nil || location == "" {
		return nil, locationRequired(id.Name())
	}
	properties := object{}
	if sent := doc["properties"]; sent != nil {
		if err := json.Unmarshal(sent, &properties); err != nil {
			return nil, notAnObject(id)
		}
		if properties == nil { // the client wrote null
			properties = object{}
		}
	}
	properties["provisioningState"] = json.RawMessage(`"Succeeded"`)
	var err error
	doc["properties"], err = json.Marshal(properties)
	return doc, err
}

// complete adds to a body what every resource tells of itself.
func complete(id armid.ID, doc object) (json.RawMessage, error) {
	if partsWithin[id.Type()] != "" {
		var properties object
		if err := json.Unmarshal(doc["properties"], &properties); err != nil {
			return nil, err
		}
		if err := nameParts(id, properties); err != nil {
			return nil, err
		}
		var err error
		if doc["properties"], err = json.Marshal(properties); err != nil {
			return nil, err
		}
	}
	for name, value := range map[string]string{"id": id.String(), "name": id.Name(), "type": id.Type()} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		doc[name] = text
	}
	return json.Marshal(doc)
}

// Document returns a resource.
func (s *Service) Document(ctx context.Context, id armid.ID) (d Document, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/read", id); err != nil {
		return Document{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if d, found, err = selectDocument(ctx, tx, id); err != nil || found {
			return err
		}
		if err := s.InSubscription(id); err != nil {
			return err
		}
		if _, err := lookupGroup(ctx, tx, id.ResourceGroup); err != nil {
			return err
		}
		return documentNotFound(id)
	})
	return d, err
}

// Documents returns the resources of a type in a group or in the subscription, by id.
func (s *Service) Documents(ctx context.Context, scope armid.ID, typ string) (all []Document, err error) {
	if err := s.o.Authorizer.Authorize(ctx, typ+"/read", scope); err != nil {
		return nil, err
	}
	if err := s.InSubscription(scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if scope.ResourceGroup != "" {
			if _, err := lookupGroup(ctx, tx, scope.ResourceGroup); err != nil {
				return err
			}
		}
		all, err = selectDocuments(ctx, tx, scope, typ)
		return err
	})
	return all, err
}

// DeleteDocument removes a resource that no other names; one that is not there is no error.
func (s *Service) DeleteDocument(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if existed, err = deleteDocument(ctx, tx, id); err != nil || !existed {
			return err
		}
		return s.unused(ctx, tx, id)
	})
	return existed, err
}
