package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kluis/internal/objects"
)

const (
	ownerPrefix = "owner/"
	maxClaim    = 4 << 10
)

// claim is what an object of owner/ holds.
type claim struct {
	Owner    string `json:"owner"`
	Lease    int64  `json:"lease"` // microseconds
	Released bool   `json:"released"`
}

// claimed is a claim that was found.
type claimed struct {
	claim
	epoch, beat uint64
}

func claimName(epoch, beat uint64) string {
	return fmt.Sprintf("%s%016x-%016x", ownerPrefix, epoch, beat)
}

// parseClaimName is the reverse of claimName.
func parseClaimName(name string) (epoch, beat uint64, ok bool) {
	if len(name) != len(ownerPrefix)+33 {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(name, ownerPrefix+"%016x-%016x", &epoch, &beat); err != nil {
		return 0, 0, false
	}
	return epoch, beat, claimName(epoch, beat) == name
}

func parseClaim(content []byte) (claim, error) {
	var c claim
	if err := json.Unmarshal(content, &c); err != nil || c.Lease <= 0 || c.Lease > int64(24*time.Hour/time.Microsecond) {
		return claim{}, errors.New("not the claim of an owner")
	}
	return c, nil
}

// newestClaim returns the newest claim there is, or nil.
func newestClaim(ctx context.Context, b objects.Bucket) (*claimed, error) {
	for {
		var newest *claimed
		for o, err := range b.List(ctx, ownerPrefix) {
			if err != nil {
				return nil, fmt.Errorf("list owners: %w", err)
			}
			if epoch, beat, ok := parseClaimName(o.Name); ok {
				newest = &claimed{epoch: epoch, beat: beat}
			}
		}
		if newest == nil {
			return nil, nil
		}
		content, err := readAll(ctx, b, claimName(newest.epoch, newest.beat), maxClaim)
		if errors.Is(err, objects.ErrNotExist) {
			continue // it has beaten since
		} else if err != nil {
			return nil, fmt.Errorf("read owner: %w", err)
		}
		if newest.claim, err = parseClaim(content); err != nil {
			// Its name is what counts. Whoever wants to take over waits for the usual time.
			newest.claim = claim{Lease: int64(defaultLease / time.Microsecond)}
		}
		return newest, nil
	}
}
