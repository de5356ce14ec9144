package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Azure's limits.
const (
	MaxBlobSize  = 5000 << 20 // of a blob that is written whole, in bytes
	MaxBlockSize = 4000 << 20
	MaxBlocks    = 50_000
	maxPending   = 100_000 // blocks of a blob that are not committed
	maxBlockID   = 64      // bytes of a block's id before base64
	pendingFor   = 7 * 24 * time.Hour
)

// Upload is what a client says about the bytes that it sends, or of the blob that they become.
type Upload struct {
	Size     int64
	MD5      []byte // what these bytes must have; nil where nobody said
	CRC64    []byte // likewise, in the form of the Blob service
	Headers  Headers
	Metadata map[string]string
}

// PutBlob writes a blob whole, over an older one of the same name.
func (s *Service) PutBlob(ctx context.Context, account, container, name string, u Upload, data io.Reader, conditions ...Condition) (Blob, error) {
	a, err := s.open(ctx, account, container, name, createBlobs)
	if err != nil {
		return Blob{}, err
	}
	return s.put(ctx, a, container, name, u, data, append(conditions, creating(ctx))...)
}

func (s *Service) put(ctx context.Context, a Account, container, name string, u Upload, data io.Reader, conditions ...Condition) (Blob, error) {
	if err := s.checkTarget(ctx, a, container, name, conditions); err != nil {
		return Blob{}, err
	}
	if u.Size > MaxBlobSize {
		return Blob{}, bodyTooLarge(u.Size, MaxBlobSize)
	}
	if err := errors.Join(u.Headers.check(), checkMetadata(u.Metadata)); err != nil {
		return Blob{}, err
	}
	part, sum, err := s.store(ctx, name, u, data)
	if err != nil {
		return Blob{}, err
	}
	if u.Headers.ContentMD5 == nil {
		u.Headers.ContentMD5 = sum
	}
	b := s.newBlob(name, u)
	old, written, err := s.replace(ctx, a, container, b, conditions, func(*database.Tx) ([]block, error) { return []block{part}, nil })
	switch {
	case err != nil && written: // the commit's answer was lost: the rows may name the new object or the old one
		return Blob{}, err
	case err != nil:
		return Blob{}, errors.Join(err, s.drop(ctx, part.object))
	}
	return b, s.drop(ctx, old...)
}

// newBlob is a blob as it is written now. What is told of it now is what its row will tell, and rows have
// microseconds.
func (s *Service) newBlob(name string, u Upload) Blob {
	now := s.o.Now().Truncate(time.Microsecond)
	return Blob{Name: name, Size: u.Size, Headers: u.Headers, Metadata: u.Metadata, Created: now, Modified: now, etag: s.o.NewID()}
}

// checkTarget refuses what can be refused before the bytes are read. It is looked at again when they are there.
func (s *Service) checkTarget(ctx context.Context, a Account, container, name string, conditions []Condition) error {
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if _, err := findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		if !isBlobName(name) {
			return invalidBlobName(name)
		}
		b, found, err := selectBlob(ctx, tx, a.ID.Name(), container, name)
		if err != nil {
			return err
		}
		return s.checkChange(conditions, b, found)
	})
}

var crcTable = crc64.MakeTable(0x9A6C9329AC4BC9B5)

// store writes bytes into an object that no row names yet, and returns their MD5. What was cut short or
// is not what the client says it is leaves none.
func (s *Service) store(ctx context.Context, name string, u Upload, data io.Reader) (block, []byte, error) {
	part := block{object: s.o.NewID(), size: u.Size, written: s.o.Now()}
	sum, crc := md5.New(), crc64.New(crcTable)
	err := s.o.Bucket.Put(ctx, part.object, u.Size, io.TeeReader(data, io.MultiWriter(sum, crc)))
	switch {
	case err != nil:
		err = fmt.Errorf("store blob %s: %w", name, err)
	case u.MD5 != nil && !bytes.Equal(u.MD5, sum.Sum(nil)):
		err = md5Mismatch()
	case u.CRC64 != nil && !bytes.Equal(u.CRC64, binary.LittleEndian.AppendUint64(nil, crc.Sum64())):
		err = crc64Mismatch()
	}
	if err != nil {
		return block{}, nil, errors.Join(err, s.drop(ctx, part.object))
	}
	return part, sum.Sum(nil), nil
}

// replace lets a blob be, and consist of, what it now is. It returns the objects that no row names any more,
// and whether the rows were written before an error came.
func (s *Service) replace(ctx context.Context, a Account, container string, b Blob, conditions []Condition, blocks func(*database.Tx) ([]block, error)) (unused []string, written bool, err error) {
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		unused, written = nil, false
		if _, err := findContainer(ctx, tx, a, container); err != nil {
			return err // deleted since
		}
		old, found, err := selectBlob(ctx, tx, a.ID.Name(), container, b.Name)
		if err != nil {
			return err
		}
		if err := s.checkChange(conditions, old, found); err != nil {
			return err
		}
		if found {
			b.Created = old.Created
		}
		if err := s.outlive(ctx, tx, a, container, old); err != nil {
			return err
		}
		parts, err := blocks(tx)
		if err != nil {
			return err
		}
		b.Size = 0
		for _, p := range parts {
			b.Size += p.size
		}
		if unused, err = putBlob(ctx, tx, a.ID.Name(), container, b, parts); err != nil {
			return err
		}
		written = true
		return nil
	})
	return unused, written, err
}

// PutBlock writes a block of a blob, which is part of none until it is committed. It replaces one of the same id.
func (s *Service) PutBlock(ctx context.Context, account, container, name, id string, u Upload, data io.Reader, conditions ...Condition) (md5 []byte, err error) {
	a, err := s.open(ctx, account, container, name, createBlobs)
	if err != nil {
		return nil, err
	}
	if !isBlockID(id) {
		return nil, invalidBlockID()
	}
	if err := s.checkTarget(ctx, a, container, name, conditions); err != nil {
		return nil, err
	}
	if u.Size == 0 || u.Size > MaxBlockSize {
		return nil, bodyTooLarge(u.Size, MaxBlockSize)
	}
	part, sum, err := s.store(ctx, name, u, data)
	if err != nil {
		return nil, err
	}
	part.id = id
	var unused []string
	var written bool
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		unused, written = nil, false
		if _, err := findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		unused, err = putPending(ctx, tx, a.ID.Name(), container, name, part)
		written = err == nil
		return err
	})
	switch {
	case err != nil && written:
		return nil, err
	case err != nil:
		return nil, errors.Join(err, s.drop(ctx, part.object))
	}
	return sum, s.drop(ctx, unused...)
}

func isBlockID(id string) bool {
	raw, err := base64.StdEncoding.DecodeString(id)
	return err == nil && len(raw) > 0 && len(raw) <= maxBlockID
}

// BlockRef names a block for CommitBlocks: one that the blob has, one that was written since, or the newer.
type BlockRef struct {
	ID                     string
	Committed, Uncommitted bool // where it may be from; the uncommitted one is taken if it may be both
}

// CommitBlocks makes a blob of blocks, in their order. Blocks that are not in the list are gone afterwards.
func (s *Service) CommitBlocks(ctx context.Context, account, container, name string, refs []BlockRef, u Upload, conditions ...Condition) (Blob, error) {
	a, err := s.open(ctx, account, container, name, createBlobs)
	if err != nil {
		return Blob{}, err
	}
	if len(refs) > MaxBlocks {
		return Blob{}, tooManyBlocks()
	}
	conditions = append(conditions, creating(ctx))
	if err := errors.Join(u.Headers.check(), checkMetadata(u.Metadata), s.checkTarget(ctx, a, container, name, conditions)); err != nil {
		return Blob{}, err
	}
	b := s.newBlob(name, u)
	unused, _, err := s.replace(ctx, a, container, b, conditions, func(tx *database.Tx) ([]block, error) {
		committed, err := selectBlocks(ctx, tx, a.ID.Name(), container, name)
		if err != nil {
			return nil, err
		}
		pending, err := selectPending(ctx, tx, a.ID.Name(), container, name)
		if err != nil {
			return nil, err
		}
		return pick(refs, committed, pending)
	})
	if err != nil {
		return Blob{}, err
	}
	return b, s.drop(ctx, unused...)
}

// pick finds the blocks that are meant.
func pick(refs []BlockRef, committed, pending []block) ([]block, error) {
	byID := func(all []block) map[string]block {
		m := map[string]block{}
		for _, b := range all {
			m[b.id] = b
		}
		return m
	}
	has, comes := byID(committed), byID(pending)
	picked := make([]block, 0, len(refs))
	for _, r := range refs {
		b, ok := block{}, false
		if r.Uncommitted {
			b, ok = comes[r.ID]
		}
		if !ok && r.Committed && r.ID != "" {
			b, ok = has[r.ID]
		}
		if !ok {
			return nil, invalidBlockList(r.ID)
		}
		picked = append(picked, b)
	}
	return picked, nil
}

// ListedBlock is a block as BlockList tells of it.
type ListedBlock struct {
	ID   string
	Size int64
}

// BlockList lists the blocks of a blob, and those that are not committed. The blob may have none but those.
func (s *Service) BlockList(ctx context.Context, account, container, name string) (b Blob, committed, pending []ListedBlock, err error) {
	a, err := s.open(ctx, account, container, name, readBlobs)
	if err != nil {
		return Blob{}, nil, nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var has, comes []block
		var findErr error
		if b, findErr = findBlob(ctx, tx, a, container, name); findErr != nil && !isNotFound(findErr) {
			return findErr
		}
		if findErr == nil {
			if has, err = selectBlocks(ctx, tx, a.ID.Name(), container, name); err != nil {
				return err
			}
		}
		if isBlobName(name) {
			if comes, err = selectPending(ctx, tx, a.ID.Name(), container, name); err != nil {
				return err
			}
		}
		if committed, pending = listed(has), listed(comes); len(pending) == 0 {
			return findErr
		}
		return nil
	})
	return b, committed, pending, err
}

func listed(blocks []block) (all []ListedBlock) {
	for _, b := range blocks {
		if b.id != "" { // written whole, a blob has no blocks that a client could name
			all = append(all, ListedBlock{b.id, b.size})
		}
	}
	return all
}

// SetHeaders replaces how a blob is to be served.
func (s *Service) SetHeaders(ctx context.Context, account, container, name string, h Headers, conditions ...Condition) (Blob, error) {
	if err := h.check(); err != nil {
		return Blob{}, err
	}
	return s.change(ctx, account, container, name, conditions, func(b *Blob) { b.Headers = h })
}

// SetMetadata replaces a blob's metadata.
func (s *Service) SetMetadata(ctx context.Context, account, container, name string, metadata map[string]string, conditions ...Condition) (Blob, error) {
	if err := checkMetadata(metadata); err != nil {
		return Blob{}, err
	}
	return s.change(ctx, account, container, name, conditions, func(b *Blob) { b.Metadata = metadata })
}

func (s *Service) change(ctx context.Context, account, container, name string, conditions []Condition, change func(*Blob)) (b Blob, err error) {
	a, err := s.open(ctx, account, container, name, writeBlobs)
	if err != nil {
		return Blob{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if b, err = findBlob(ctx, tx, a, container, name); err != nil {
			return err
		}
		if err := s.checkChange(conditions, b, true); err != nil {
			return err
		}
		if err := s.outlive(ctx, tx, a, container, b); err != nil {
			return err
		}
		change(&b)
		b.Modified, b.etag = s.o.Now().Truncate(time.Microsecond), s.o.NewID()
		return updateBlob(ctx, tx, a.ID.Name(), container, b)
	})
	return b, err
}

// DropPending deletes blocks that were never committed, after a week.
func (s *Service) DropPending(ctx context.Context) error {
	var unused []string
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) (err error) {
		unused, err = deletePending(ctx, tx, s.o.Now().Add(-pendingFor))
		return err
	})
	if err != nil {
		return err
	}
	return s.drop(ctx, unused...)
}

// WriteArtifact writes a document of a restore job into a container, which it makes if need be. The job
// was authorized when it was asked for, so no caller is checked here.
func (s *Service) WriteArtifact(ctx context.Context, account armid.ID, container, name string, data []byte) (url string, err error) {
	a, err := s.account(ctx, account.Name())
	if err != nil {
		return "", err
	}
	if !a.ID.Equal(account) {
		return "", accountNotFound(account)
	}
	if !isContainerName(container) {
		return "", invalidContainerName(container)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		_, found, err := selectContainer(ctx, tx, a.ID.Name(), container)
		if err != nil || found {
			return err
		}
		return putContainer(ctx, tx, a.ID.Name(), s.newContainer(container, nil))
	})
	if err != nil {
		return "", err
	}
	_, err = s.put(ctx, a, container, name, Upload{Size: int64(len(data)), Headers: Headers{ContentType: "application/json"}}, bytes.NewReader(data))
	return s.URL(a.ID.Name(), container, name), err
}
