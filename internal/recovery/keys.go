package recovery

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
	"kluis/internal/secret"
)

// keys are what is derived from the master key, each for one purpose.
type keys struct {
	check, packs, footers, points, names, journals, index secret.Bytes
	hasher                                                *chunk.Hasher
}

// deriveKeys makes the keys of the store with the given id: HKDF-SHA-256 of the master key, salted with the
// id, so that stores that share a master key share nothing else.
func deriveKeys(master secret.Bytes, id storeID) (*keys, error) {
	if master.Len() != chunk.KeySize {
		return nil, fmt.Errorf("master key of %d bytes: want %d", master.Len(), chunk.KeySize)
	}
	root, err := hkdf.Extract(sha256.New, master.Reveal(), id[:])
	if err != nil {
		return nil, fmt.Errorf("derive keys: %w", err)
	}
	derived := map[string]secret.Bytes{}
	for _, purpose := range []string{"check", "packs", "footers", "points", "names", "journals", "index", "id data", "id node", "id document"} {
		key, err := hkdf.Expand(sha256.New, root, "kluis/1 "+purpose, chunk.KeySize)
		if err != nil {
			return nil, fmt.Errorf("derive keys: %w", err)
		}
		derived[purpose] = secret.New(key)
	}
	hasher, err := chunk.NewHasher(map[chunk.Kind][]byte{
		chunk.Data:     derived["id data"].Reveal(),
		chunk.Node:     derived["id node"].Reveal(),
		chunk.Document: derived["id document"].Reveal(),
	})
	if err != nil {
		return nil, err
	}
	return &keys{
		check: derived["check"], packs: derived["packs"], footers: derived["footers"],
		points: derived["points"], names: derived["names"], journals: derived["journals"], index: derived["index"], hasher: hasher,
	}, nil
}

// wipe zeroes the keys.
func (k *keys) wipe() {
	for _, key := range []secret.Bytes{k.check, k.packs, k.footers, k.points, k.names, k.journals, k.index} {
		key.Wipe()
	}
}

// expand derives the key for one thing of a kind: a pack, its footer, a point.
func expand(key secret.Bytes, thing []byte) ([]byte, error) {
	b, err := hkdf.Expand(sha256.New, key.Reveal(), string(thing), chunk.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return b, nil
}

// box returns the box for the records of a pack.
func (k *keys) box(id pack.ID) (*chunk.Box, error) {
	key, err := expand(k.packs, id[:])
	if err != nil {
		return nil, err
	}
	return chunk.NewBox(key)
}

// label returns the name under which the point with the given id is stored. It tells nobody the id, and
// holds for every file system.
func (k *keys) label(pointID string) string {
	mac := hmac.New(sha256.New, k.names.Reveal())
	mac.Write([]byte(pointID))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// headerCheck proves that key and header belong together.
func (k *keys) headerCheck(h header) []byte {
	mac := hmac.New(sha256.New, k.check.Reveal())
	mac.Write(h.id[:])
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(h.Version)))
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(h.ChunkSize)))
	return mac.Sum(nil)
}
