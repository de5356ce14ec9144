package resources

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Some resources stand within the document of another: a network's subnets, a security group's rules. They are written
// with it, or one by one, and have ids of their own by which others name them. An interface's configurations have ids,
// too, but are changed with the interface alone.

// PartTypes are those that are resources by themselves. The last word of each is the property that has them.
var PartTypes = []string{"Microsoft.Network/virtualNetworks/subnets", "Microsoft.Network/networkSecurityGroups/securityRules"}

// partsWithin are all that have ids, by the document's type.
var partsWithin = map[string]string{
	"Microsoft.Network/virtualNetworks":       "subnets",
	"Microsoft.Network/networkSecurityGroups": "securityRules",
	"Microsoft.Network/networkInterfaces":     "ipConfigurations",
}

// nameParts gives the parts within a document's properties their ids. What has no name stays as it is.
func nameParts(id armid.ID, properties object) error {
	property := partsWithin[id.Type()]
	var parts []object
	if properties[property] == nil {
		return nil
	}
	if err := json.Unmarshal(properties[property], &parts); err != nil {
		return notAList(id, property)
	}
	for i, part := range parts {
		var name string
		if json.Unmarshal(part["name"], &name) != nil || name == "" {
			continue
		}
		named, err := namePart(id.Child(property, name), part)
		if err != nil {
			return err
		}
		parts[i] = named
	}
	var err error
	properties[property], err = json.Marshal(parts)
	return err
}

// namePart adds to a part what every resource tells of itself.
func namePart(id armid.ID, part object) (object, error) {
	properties := object{}
	if sent := part["properties"]; sent != nil {
		if err := json.Unmarshal(sent, &properties); err != nil {
			return nil, notAnObject(id)
		}
		if properties == nil {
			properties = object{}
		}
	}
	properties["provisioningState"] = json.RawMessage(`"Succeeded"`)
	var err error
	if part["properties"], err = json.Marshal(properties); err != nil {
		return nil, err
	}
	text, err := complete(id, part)
	if err != nil {
		return nil, err
	}
	var named object
	return named, json.Unmarshal(text, &named)
}

// whole is a document with its parts, for one of them to be read or changed.
type whole struct {
	Document

	members, properties object
	parts               []object
}

func openWhole(ctx context.Context, tx *database.Tx, id armid.ID, property string) (whole, error) {
	d, found, err := selectDocument(ctx, tx, id)
	if err != nil {
		return whole{}, err
	}
	if !found {
		if _, err := lookupGroup(ctx, tx, id.ResourceGroup); err != nil {
			return whole{}, err
		}
		return whole{}, documentNotFound(id)
	}
	w := whole{Document: d}
	if err := json.Unmarshal(d.Body, &w.members); err != nil {
		return whole{}, err
	}
	if err := json.Unmarshal(w.members["properties"], &w.properties); err != nil {
		return whole{}, err
	}
	if w.properties[property] != nil && json.Unmarshal(w.properties[property], &w.parts) != nil {
		return whole{}, notAList(id, property)
	}
	return w, nil
}

// find is the place of the part of that name, or -1.
func (w whole) find(name string) int {
	return slices.IndexFunc(w.parts, func(part object) bool {
		var other string
		return json.Unmarshal(part["name"], &other) == nil && strings.EqualFold(other, name)
	})
}

func (w whole) save(ctx context.Context, tx *database.Tx, property string) (err error) {
	if w.properties[property], err = json.Marshal(w.parts); err != nil {
		return err
	}
	if w.members["properties"], err = json.Marshal(w.properties); err != nil {
		return err
	}
	if w.Body, err = json.Marshal(w.members); err != nil {
		return err
	}
	return putDocument(ctx, tx, w.Document)
}

// property is the one of its document that has a part.
func property(typ string) string { return typ[strings.LastIndexByte(typ, '/')+1:] }

// Part returns a part of a document.
func (s *Service) Part(ctx context.Context, id armid.ID) (body json.RawMessage, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/read", id); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		w, err := openWhole(ctx, tx, id.Parent(), property(id.Type()))
		if err != nil {
			return err
		}
		i := w.find(id.Name())
		if i < 0 {
			return documentNotFound(id)
		}
		body, err = json.Marshal(w.parts[i])
		return err
	})
	return body, err
}

// Parts returns the parts of a document that are of a type, in their order.
func (s *Service) Parts(ctx context.Context, document armid.ID, typ string) (all []json.RawMessage, err error) {
	if err := s.o.Authorizer.Authorize(ctx, typ+"/read", document); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		w, err := openWhole(ctx, tx, document, property(typ))
		if err != nil {
			return err
		}
		for _, part := range w.parts {
			text, err := json.Marshal(part)
			if err != nil {
				return err
			}
			all = append(all, text)
		}
		return nil
	})
	return all, err
}

// PutPart creates or replaces a part of a document.
func (s *Service) PutPart(ctx context.Context, id armid.ID, body json.RawMessage) (put json.RawMessage, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/write", id); err != nil {
		return nil, false, err
	}
	var part object
	if err := json.Unmarshal(body, &part); err != nil || part == nil {
		return nil, false, notAnObject(id)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		w, err := openWhole(ctx, tx, id.Parent(), property(id.Type()))
		if err != nil {
			return err
		}
		own := w.ID.Child(property(id.Type()), id.Name())
		named, err := namePart(own, part)
		if err != nil {
			return err
		}
		i := w.find(id.Name())
		if created = i < 0; created {
			w.parts = append(w.parts, named)
		} else {
			w.parts[i] = named
		}
		if put, err = json.Marshal(named); err != nil {
			return err
		}
		return w.save(ctx, tx, property(id.Type()))
	})
	return put, created, err
}

// DeletePart removes a part that no interface names; one that is not there is no error.
func (s *Service) DeletePart(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed = false
		w, err := openWhole(ctx, tx, id.Parent(), property(id.Type()))
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		i := w.find(id.Name())
		if i < 0 {
			return nil
		}
		if err := s.unused(ctx, tx, id); err != nil {
			return err
		}
		w.parts, existed = slices.Delete(w.parts, i, i+1), true
		return w.save(ctx, tx, property(id.Type()))
	})
	return existed, err
}

// namers are the types of documents that name others.
var namers = []string{"Microsoft.Network/networkInterfaces", "Microsoft.Network/virtualNetworks"}

// unused is nil if no document but its own names a resource, or a part of it.
func (s *Service) unused(ctx context.Context, tx *database.Tx, id armid.ID) error {
	own := id
	if len(own.Segments) > 1 {
		own = own.Parent()
	}
	for _, typ := range namers {
		all, err := selectDocuments(ctx, tx, s.root(), typ)
		if err != nil {
			return err
		}
		for _, d := range all {
			var body any
			if d.ID.Equal(own) || json.Unmarshal(d.Body, &body) != nil {
				continue
			}
			if names(body, id.Key()) {
				return inUse(id, d.ID)
			}
		}
	}
	return nil
}

// names reports whether a value anywhere in a document is an id, or that of a part of it.
func names(v any, key string) bool {
	switch v := v.(type) {
	case string:
		text := strings.ToLower(v)
		return text == key || strings.HasPrefix(text, key+"/")
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return names(e, key) })
	case map[string]any:
		for _, e := range v {
			if names(e, key) {
				return true
			}
		}
	}
	return false
}
