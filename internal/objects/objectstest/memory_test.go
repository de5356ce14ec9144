package objectstest_test

import (
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
)

func TestMemory(t *testing.T) {
	objectstest.Run(t, func(*testing.T) objects.Bucket { return objectstest.NewMemory() })
}
