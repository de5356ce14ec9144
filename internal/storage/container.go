package storage

import (
	"context"
	"strings"
	"time"

	"kluis/internal/database"
)

// Container holds blobs.
type Container struct {
	Name     string
	Metadata map[string]string
	Modified time.Time
	Policies []Policy
	Lease    Lease

	etag string
}

// ETag changes whenever the container's own settings do.
func (c Container) ETag() string { return `"` + c.etag + `"` }

// CreateContainer makes a container; ContainerAlreadyExists if it is there.
func (s *Service) CreateContainer(ctx context.Context, account, container string, metadata map[string]string) (Container, error) {
	a, err := s.open(ctx, account, container, "", createContainer)
	if err != nil {
		return Container{}, err
	}
	if !isContainerName(container) {
		return Container{}, invalidContainerName(container)
	}
	if err := checkMetadata(metadata); err != nil {
		return Container{}, err
	}
	c := s.newContainer(container, metadata)
	return c, s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		_, found, err := selectContainer(ctx, tx, a.ID.Name(), container)
		if err != nil {
			return err
		}
		if found {
			return containerExists(container)
		}
		return putContainer(ctx, tx, a.ID.Name(), c)
	})
}

// newContainer is a container as it is now. Rows have microseconds.
func (s *Service) newContainer(name string, metadata map[string]string) Container {
	return s.touched(Container{Name: name, Metadata: metadata})
}

// touched is a container that is changed now.
func (s *Service) touched(c Container) Container {
	c.Modified, c.etag = s.o.Now().Truncate(time.Microsecond), s.o.NewID()
	return c
}

// Container describes a container.
func (s *Service) Container(ctx context.Context, account, container string, conditions ...Condition) (Container, error) {
	return s.containerFor(ctx, account, container, readContainer, conditions...)
}

func (s *Service) containerFor(ctx context.Context, account, container string, op operation, conditions ...Condition) (c Container, err error) {
	a, err := s.open(ctx, account, container, "", op)
	if err != nil {
		return Container{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if c, err = findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		return s.checkContainer(conditions, c, false)
	})
	return c, err
}

// Containers lists an account's containers whose names begin with prefix, by name.
func (s *Service) Containers(ctx context.Context, account, prefix string) (containers []Container, err error) {
	a, err := s.open(ctx, account, "", "", listContainers)
	if err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err := selectContainers(ctx, tx, a.ID.Name())
		for _, c := range all {
			if strings.HasPrefix(c.Name, prefix) {
				containers = append(containers, c)
			}
		}
		return err
	})
	return containers, err
}

// SetContainerMetadata replaces a container's metadata.
func (s *Service) SetContainerMetadata(ctx context.Context, account, container string, metadata map[string]string, conditions ...Condition) (c Container, err error) {
	a, err := s.open(ctx, account, container, "", writeContainer)
	if err != nil {
		return Container{}, err
	}
	if err := checkMetadata(metadata); err != nil {
		return Container{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if c, err = findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		if err := s.checkContainer(conditions, c, false); err != nil {
			return err
		}
		c = s.touched(c)
		c.Metadata = metadata
		return putContainer(ctx, tx, a.ID.Name(), c)
	})
	return c, err
}

// DeleteContainer removes a container with all its blobs.
func (s *Service) DeleteContainer(ctx context.Context, account, container string, conditions ...Condition) error {
	a, err := s.open(ctx, account, container, "", deleteContainer)
	if err != nil {
		return err
	}
	var unused []string
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		c, err := findContainer(ctx, tx, a, container)
		if err != nil {
			return err
		}
		if err := s.checkContainer(conditions, c, true); err != nil {
			return err
		}
		unused, err = deleteContainers(ctx, tx, a.ID.Name(), container)
		return err
	})
	if err != nil {
		return err
	}
	return s.drop(ctx, unused...)
}

// findContainer finds a container, or says that it is not there. Its name may be any text.
func findContainer(ctx context.Context, tx *database.Tx, a Account, name string) (Container, error) {
	if !isContainerName(name) {
		return Container{}, containerNotFound(name)
	}
	c, found, err := selectContainer(ctx, tx, a.ID.Name(), name)
	if err == nil && !found {
		return Container{}, containerNotFound(name)
	}
	return c, err
}

// maxMetadata bounds names and values together, in bytes, as Azure does.
const maxMetadata = 8 << 10

func checkMetadata(metadata map[string]string) error {
	size := 0
	for name, value := range metadata {
		size += len(name) + len(value)
		if !metadataName.MatchString(name) || value != "" && !headerText.MatchString(value) {
			return invalidMetadata(name)
		}
	}
	if size > maxMetadata {
		return metadataTooLarge()
	}
	return nil
}
