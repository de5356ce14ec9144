package objectstest_test

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
)

func TestPowerIsABucketUntilItFails(t *testing.T) {
	objectstest.Run(t, func(*testing.T) objects.Bucket { return objectstest.NewPower(objectstest.NewMemory()) })
}

// tear puts an object, with the power lost at every step, and returns what was wrong afterwards.
func tear(t *testing.T, without string) (torn, missing int) {
	t.Helper()
	const content = "what must be whole or not at all"
	for k := int64(1); ; k++ {
		for seed := range uint64(20) {
			p := objectstest.NewPower(objectstest.NewMemory())
			p.FailAt, p.Without = k, without
			err := p.Put(t.Context(), "a/x", -1, strings.NewReader(content))
			if err == nil {
				err = p.Put(t.Context(), "b/y", -1, strings.NewReader(content))
				if err == nil {
					return torn, missing
				}
				if r, err := p.AfterCrash(rand.New(rand.NewPCG(seed, 1))).Get(t.Context(), "a/x", 0, -1); err != nil {
					missing++
				} else if got, _ := io.ReadAll(r); string(got) != content {
					torn++
				}
				continue
			}
			if r, err := p.AfterCrash(rand.New(rand.NewPCG(seed, 1))).Get(t.Context(), "a/x", 0, -1); err == nil {
				if got, _ := io.ReadAll(r); string(got) != content {
					torn++
				}
			}
		}
	}
}

// With all its steps a Put is whole or not at all, and there once it has returned. Each sync is needed.
func TestPower(t *testing.T) {
	if torn, missing := tear(t, ""); torn+missing > 0 {
		t.Errorf("%d torn, %d missing", torn, missing)
	}
	if torn, _ := tear(t, "sync file"); torn == 0 {
		t.Error("without a sync of the file nothing was torn")
	}
	if _, missing := tear(t, "sync folder"); missing == 0 {
		t.Error("without a sync of the folder nothing was missing")
	}
}
