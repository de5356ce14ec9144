// Package cloud tests the cloud buckets against servers: the Versity gateway for S3, Azurite for Azure Blob
// Storage. It is a module of its own, so that users of Kluis do not download these.
package cloud_test

import (
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
)

func TestBucket(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		objectstest.Run(t, func(t *testing.T) objects.Bucket { return s.open(t) })
	})
}
