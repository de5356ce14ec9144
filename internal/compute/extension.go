package compute

import (
	"context"
	"encoding/json"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// ExtensionType is the type of what is installed in a VM beside its operating system.
const ExtensionType = VMType + "/extensions"

// Extension is what a client says of something in a VM, such as AzureDiskEncryption. It is data here: nothing is
// installed. Its protected settings, which may hold passphrases, are forgotten when it is read.
type Extension struct {
	ID         armid.ID
	Location   string
	Tags       map[string]string
	Properties ExtensionProperties

	sent map[string]any
}

// ExtensionProperties is the part of an extension's properties that is read here.
type ExtensionProperties struct {
	Publisher         string `json:"publisher"`
	Type              string `json:"type"`
	ProvisioningState string `json:"provisioningState,omitempty"`
}

// MarshalJSON writes the document: what a client sent, with what is known here over it.
func (e Extension) MarshalJSON() ([]byte, error) {
	return overlay(e.sent, resource[ExtensionProperties]{e.ID, e.ID.Name(), ExtensionType, e.Location, e.Tags, e.Properties})
}

// UnmarshalJSON reads a document, but no protected settings.
func (e *Extension) UnmarshalJSON(b []byte) error {
	var r resource[ExtensionProperties]
	sent, err := readDocument(b, &r)
	forgetProtected(sent)
	*e = Extension{r.ID, r.Location, r.Tags, r.Properties, sent}
	return err
}

// forgetProtected removes what must not be kept, however its name is written.
func forgetProtected(sent map[string]any) {
	for name, value := range sent {
		properties, ok := value.(map[string]any)
		if !ok || !strings.EqualFold(name, "properties") {
			continue
		}
		for member := range properties {
			if strings.HasPrefix(strings.ToLower(member), "protectedsettings") {
				delete(properties, member)
			}
		}
	}
}

func (e Extension) check() error {
	switch {
	case e.Location == "":
		return locationRequired(e.ID)
	case e.Properties.Publisher == "", e.Properties.Type == "":
		return extensionIncomplete(e.ID)
	}
	return nil
}

// PutExtension notes an extension of a VM, in place of one of the same name.
func (s *Service) PutExtension(ctx context.Context, e Extension) (_ Extension, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, ExtensionType+"/write", e.ID); err != nil {
		return Extension{}, false, err
	}
	e.Properties.ProvisioningState = "Succeeded"
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := selectVM(ctx, tx, e.ID.Parent()); err != nil {
			return err
		}
		old, err := selectExtension(ctx, tx, e.ID)
		if created = isNotFound(err); err != nil && !created {
			return err
		}
		if !created && e.Properties.Type == "" { // az vm encryption disable leaves it out
			e.Properties.Type = old.Properties.Type
		}
		if err := e.check(); err != nil {
			return err
		}
		return putExtension(ctx, tx, e)
	})
	return e, created, err
}

// ChangeExtension changes what a document names of an extension.
func (s *Service) ChangeExtension(ctx context.Context, id armid.ID, body json.RawMessage) (e Extension, err error) {
	if err := s.o.Authorizer.Authorize(ctx, ExtensionType+"/write", id); err != nil {
		return Extension{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectExtension(ctx, tx, id)
		if err != nil {
			return err
		}
		if e, err = patched(old, id, body); err != nil {
			return err
		}
		e.ID, e.Properties.ProvisioningState = old.ID, "Succeeded"
		if err := e.check(); err != nil {
			return err
		}
		return putExtension(ctx, tx, e)
	})
	return e, err
}

// Extension returns an extension of a VM.
func (s *Service) Extension(ctx context.Context, id armid.ID) (e Extension, err error) {
	if err := s.o.Authorizer.Authorize(ctx, ExtensionType+"/read", id); err != nil {
		return Extension{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		e, err = selectExtension(ctx, tx, id)
		return err
	})
	return e, err
}

// Extensions returns the extensions of a VM, by id.
func (s *Service) Extensions(ctx context.Context, vm armid.ID) (all []Extension, err error) {
	if err := s.o.Authorizer.Authorize(ctx, ExtensionType+"/read", vm); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if _, err := selectVM(ctx, tx, vm); err != nil {
			return err
		}
		all, err = selectExtensions(ctx, tx, vm)
		return err
	})
	return all, err
}

// LookupExtensions returns the extensions of a VM to a caller who may read the VM.
func (s *Service) LookupExtensions(ctx context.Context, vm armid.ID) (all []Extension, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err = selectExtensions(ctx, tx, vm)
		return err
	})
	return all, err
}

// DeleteExtension forgets an extension; one that is not there is no error.
func (s *Service) DeleteExtension(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, ExtensionType+"/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed, err = deleteExtension(ctx, tx, id)
		return err
	})
	return existed, err
}
