package objectstest_test

import (
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
)

func TestMemory(t *testing.T) {
	objectstest.Run(t, func(*testing.T) objects.Bucket { return objectstest.NewMemory() })
}

func TestStaleIsABucketOnceListsHaveCaughtUp(t *testing.T) {
	objectstest.Run(t, func(*testing.T) objects.Bucket {
		return &objectstest.Stale{Bucket: objectstest.NewMemory(), Now: time.Now}
	})
}
