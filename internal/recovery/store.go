package recovery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/index"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

const (
	headerName   = "store.json"
	headerFormat = "kluis recovery store"
	version      = 1
	chunkSize    = 64 << 10
	unitSize     = 1 << 20

	pointPrefix = "points/"
	trashPrefix = "trash/"

	defaultPackSize = 64 << 20
	defaultGrace    = 24 * time.Hour
)

// Store is an open recovery store. Its methods may be called at the same time from several goroutines.
type Store struct {
	bucket objects.Bucket
	opts   Options
	header header
	keys   *keys
	codec  *chunk.Codec
	random lockedReader
	lease  *lease // nil if the store was opened without

	packs  *cache[pack.ID, *openPack]
	nodes  *cache[manifest.Ref, *manifest.Node]
	chunks *cache[manifest.Ref, []byte]

	mu      sync.Mutex
	index   *index.Index
	indexed bool              // all packs were in the index once
	sizes   map[pack.ID]int64 // the packs that are known to exist
	writers map[*Writer]bool  // open ones
	pins    map[pack.ID]int   // packs that open writers count on
	touched map[pack.ID]bool  // while Collect runs: packs that were pinned at any time since its start
	held    map[*Disk]int     // disks that are being read, or are parents of what is being written
	late    []*Disk           // while Collect runs: those that were held since it looked
	missed  map[pack.ID]bool  // packs that were found gone
	closed  bool

	condemned map[pack.ID]bool // packs that Collect has decided to remove: they are never used again

	collecting sync.Mutex
	reserve    sync.Mutex
	looking    sync.Mutex
}

type storeID [16]byte

// header is the object store.json.
type header struct {
	Format    string `json:"format"`
	Version   int    `json:"version"`
	ID        string `json:"id"`
	ChunkSize int64  `json:"chunkSize"`
	Check     string `json:"check"`

	id storeID
}

// Create makes a new store in b and opens it. It returns objects.ErrExists if there is one already.
func Create(ctx context.Context, b objects.Bucket, o Options) (*Store, error) {
	h := header{Format: headerFormat, Version: version, ChunkSize: chunkSize}
	if _, err := io.ReadFull(o.random(), h.id[:]); err != nil {
		return nil, fmt.Errorf("create recovery store: %w", err)
	}
	h.ID = hex.EncodeToString(h.id[:])
	k, err := deriveKeys(o.Key, h.id)
	if err != nil {
		return nil, fmt.Errorf("create recovery store: %w", err)
	}
	h.Check = hex.EncodeToString(k.headerCheck(h))
	k.wipe()
	content, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("create recovery store: %w", err)
	}
	content = append(content, '\n')
	if err := checkErased(ctx, b); err != nil {
		return nil, fmt.Errorf("create recovery store: %w", err)
	}
	if err := b.Put(ctx, headerName, int64(len(content)), bytes.NewReader(content)); err != nil {
		return nil, fmt.Errorf("create recovery store: %w", err)
	}
	return Open(ctx, b, o)
}

// Open opens the store in b. It returns ErrNoStore or ErrWrongKey.
func Open(ctx context.Context, b objects.Bucket, o Options) (*Store, error) {
	if o.Now == nil {
		return nil, errors.New("open recovery store: no clock given")
	}
	content, err := readAll(ctx, b, headerName, 64<<10)
	if errors.Is(err, objects.ErrNotExist) {
		return nil, fmt.Errorf("open recovery store: %w", ErrNoStore)
	} else if err != nil {
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	if err := checkErased(ctx, b); err != nil {
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	h, err := parseHeader(content)
	if err != nil {
		return nil, fmt.Errorf("open recovery store: %s: %w", headerName, err)
	}
	k, err := deriveKeys(o.Key, h.id)
	if err != nil {
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	if check, err := hex.DecodeString(h.Check); err != nil || !hmac.Equal(check, k.headerCheck(h)) {
		k.wipe()
		return nil, fmt.Errorf("open recovery store: %w", ErrWrongKey)
	}
	codec, err := chunk.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	if o.PackSize <= 0 {
		o.PackSize = defaultPackSize
	}
	o.PackSize = min(o.PackSize, pack.MaxSize)
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Lease <= 0 {
		o.Lease = defaultLease
	}
	s := &Store{
		bucket: b, opts: o, header: h, keys: k, codec: codec, random: lockedReader{r: o.random()},
		packs:  newCache[pack.ID, *openPack](8 << 20),
		nodes:  newCache[manifest.Ref, *manifest.Node](64),
		chunks: newCache[manifest.Ref, []byte](chunkCache),
		index:  index.New(), sizes: map[pack.ID]int64{}, writers: map[*Writer]bool{},
		pins: map[pack.ID]int{}, held: map[*Disk]int{}, missed: map[pack.ID]bool{}, condemned: map[pack.ID]bool{},
	}
	if err := s.openIndex(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	if err := s.own(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	if err := s.remember(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open recovery store: %w", err)
	}
	return s, nil
}

// remember learns which packs are condemned, before any chunk is looked for.
func (s *Store) remember(ctx context.Context) error {
	j, err := s.readJournal(ctx)
	if err != nil {
		return err
	}
	s.condemnAll(j)
	return nil
}

func parseHeader(content []byte) (header, error) {
	var h header
	if err := json.Unmarshal(content, &h); err != nil || h.Format != headerFormat {
		return header{}, fmt.Errorf("not the header of a recovery store: %w", chunk.ErrDamaged)
	}
	if h.Version != version {
		return header{}, fmt.Errorf("recovery store of version %d; this program knows version %d", h.Version, version)
	}
	if _, err := hex.Decode(h.id[:], []byte(h.ID[:min(len(h.ID), 32)])); err != nil || len(h.ID) != 32 {
		return header{}, fmt.Errorf("recovery store without an id: %w", chunk.ErrDamaged)
	}
	if !validChunkSize(h.ChunkSize) {
		return header{}, fmt.Errorf("recovery store with chunks of %d bytes: %w", h.ChunkSize, chunk.ErrDamaged)
	}
	return h, nil
}

// validChunkSize tells whether disks may have chunks of n bytes.
func validChunkSize(n int64) bool {
	return n >= manifest.MinChunk && n <= chunk.MaxSize && bits.OnesCount64(uint64(n)) == 1
}

// ID returns the store's id.
func (s *Store) ID() string { return s.header.ID }

// Close aborts the writers that are open, ends the ownership and forgets the keys. The store must not be used afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	open := make([]*Writer, 0, len(s.writers))
	for w := range s.writers {
		open = append(open, w)
	}
	s.mu.Unlock()
	for _, w := range open {
		w.Abort()
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if !s.readOnly() {
		_ = s.saveDamage(ctx) // what is not remembered will be found again
	}
	err := s.closeIndex()
	if s.lease != nil {
		err = errors.Join(err, s.lease.release(ctx))
	}
	s.codec.Close()
	s.keys.wipe()
	return err
}

// releaseTimeout bounds how long Close waits for a bucket that does not answer.
const releaseTimeout = 10 * time.Second

func (o Options) random() io.Reader {
	if o.Rand == nil {
		return rand.Reader
	}
	return o.Rand
}

// lockedReader makes a reader safe for concurrent use.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) fill(p []byte) error {
	_, err := io.ReadFull(l, p)
	return err
}

// Read implements io.Reader.
func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// readAll reads a whole object of at most limit bytes.
func readAll(ctx context.Context, b objects.Bucket, name string, limit int64) ([]byte, error) {
	r, err := b.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes: %w", name, limit, chunk.ErrDamaged)
	}
	return content, nil
}

// readRange reads n bytes of an object from off into dst, which has room for them.
func readRange(ctx context.Context, b objects.Bucket, name string, off int64, dst []byte) error {
	r, err := b.Get(ctx, name, off, int64(len(dst)))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, dst)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = objects.ErrTruncated
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
