package recovery_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

// reader reads a recovery store in a folder. It was written after docs/format.md and shares no code with the
// package: whoever changes the format without changing the page will notice here.
type reader struct {
	dir string
	id  []byte
	prk []byte

	places map[string]readerRef // where each chunk is, by id; only made when it is needed
}

func openReader(dir string, master []byte) (*reader, error) {
	content, err := os.ReadFile(filepath.Join(dir, "store.json"))
	if err != nil {
		return nil, err
	}
	var h struct {
		Format    string
		Version   uint32
		ID        string
		ChunkSize uint64
		Check     string
	}
	if err := json.Unmarshal(content, &h); err != nil {
		return nil, err
	}
	if h.Format != "kluis recovery store" || h.Version != 1 {
		return nil, fmt.Errorf("format %q, version %d", h.Format, h.Version)
	}
	r := &reader{dir: dir}
	if r.id, err = hex.DecodeString(h.ID); err != nil {
		return nil, err
	}
	if r.prk, err = hkdf.Extract(sha256.New, master, r.id); err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, r.key("check"))
	mac.Write(r.id)
	_ = binary.Write(mac, binary.BigEndian, h.Version)
	_ = binary.Write(mac, binary.BigEndian, h.ChunkSize)
	if hex.EncodeToString(mac.Sum(nil)) != h.Check {
		return nil, fmt.Errorf("wrong key")
	}
	return r, nil
}

func (r *reader) key(purpose string) []byte {
	key, err := hkdf.Expand(sha256.New, r.prk, "kluis/1 "+purpose, 32)
	if err != nil {
		panic(err)
	}
	return key
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// subkey derives the key of one pack, footer or point.
func (r *reader) subkey(purpose string, thing []byte) cipher.AEAD {
	key, err := hkdf.Expand(sha256.New, r.key(purpose), string(thing), 32)
	if err != nil {
		panic(err)
	}
	return gcm(key)
}

type readerPoint struct {
	ID      string
	Created int64
	Epoch   uint64
	Labels  map[string]string
	Disks   []struct {
		Name                  string
		Size, ChunkSize, Data int64
		Root                  *readerRef
		Digest                string
	}
	Attachments []struct {
		Name string
		Size int64
		Ref  readerRef
	}
}

type readerRef struct {
	ID, Pack string
	Slot     uint32
}

func (r *reader) point(id string) (p readerPoint, err error) {
	mac := hmac.New(sha256.New, r.key("names"))
	mac.Write([]byte(id))
	label := hex.EncodeToString(mac.Sum(nil)[:16])
	b, err := os.ReadFile(filepath.Join(r.dir, "points", label))
	if err != nil {
		return p, err
	}
	if string(b[:8]) != "KLUISPNT" || binary.BigEndian.Uint32(b[8:]) != 1 {
		return p, fmt.Errorf("not a point of version 1")
	}
	plain, err := r.subkey("points", b[12:44]).Open(nil, make([]byte, 12), b[44:], append(bytes.Clone(b[:44]), label...))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(plain, &p)
}

// record reads the chunk in a slot of a pack, and everything about the pack that can be checked.
func (r *reader) record(ref readerRef, kind byte) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, "packs", ref.Pack[:2], ref.Pack))
	if errors.Is(err, os.ErrNotExist) {
		return r.moved(ref, kind)
	} else if err != nil {
		return nil, err
	}
	packID, err := hex.DecodeString(ref.Pack)
	if err != nil {
		return nil, err
	}
	if string(b[:8]) != "KLUISPCK" || binary.BigEndian.Uint32(b[8:]) != 1 || !bytes.Equal(b[16:32], packID) {
		return nil, fmt.Errorf("header of pack %s", ref.Pack)
	}
	trailer := b[len(b)-40:]
	if string(trailer[32:]) != "KLUISEND" {
		return nil, fmt.Errorf("trailer of pack %s", ref.Pack)
	}
	off, length := binary.BigEndian.Uint64(trailer), binary.BigEndian.Uint32(trailer[8:])
	count, end := binary.BigEndian.Uint32(trailer[12:]), off+uint64(length)
	table := crc32.MakeTable(crc32.Castagnoli)
	if crc32.Checksum(b[end:len(b)-12], table) != binary.BigEndian.Uint32(b[len(b)-12:]) {
		return nil, fmt.Errorf("checksum of the trailer of pack %s", ref.Pack)
	}
	for i := range uint64(count) {
		block := b[i<<20 : min((i+1)<<20, end)]
		if crc32.Checksum(block, table) != binary.BigEndian.Uint32(b[end+4*i:]) {
			return nil, fmt.Errorf("checksum of MiB %d of pack %s", i, ref.Pack)
		}
	}
	footer, err := r.subkey("footers", packID).Open(nil, make([]byte, 12), b[off:end], binary.BigEndian.AppendUint64(bytes.Clone(packID), off))
	if err != nil {
		return nil, fmt.Errorf("footer: %w", err)
	}
	entry := footer[8+32*ref.Slot:][:32]
	id, recOff, recLen := entry[:16], binary.BigEndian.Uint32(entry[16:]), binary.BigEndian.Uint32(entry[20:])
	plainLen, flags := binary.BigEndian.Uint32(entry[24:]), entry[29]
	if hex.EncodeToString(id) != ref.ID || entry[28] != kind {
		return nil, fmt.Errorf("slot %d of pack %s holds another chunk", ref.Slot, ref.Pack)
	}
	nonce := binary.BigEndian.AppendUint32(make([]byte, 8), ref.Slot)
	aad := binary.BigEndian.AppendUint32(bytes.Clone(packID), ref.Slot)
	aad = append(binary.BigEndian.AppendUint32(append(aad, id...), plainLen), kind, flags)
	plain, err := r.subkey("packs", packID).Open(nil, nonce, b[recOff:recOff+recLen], aad)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if flags == 1 {
		dec, err := zstd.NewReader(bytes.NewReader(plain))
		if err != nil {
			return nil, err
		}
		defer dec.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(dec); err != nil {
			return nil, err
		}
		plain = out.Bytes()
	}
	hasher, err := blake3.NewKeyed(r.key([]string{1: "id data", 2: "id node", 3: "id document"}[kind]))
	if err != nil {
		return nil, err
	}
	_, _ = hasher.Write(plain)
	if len(plain) != int(plainLen) || !bytes.Equal(hasher.Sum(nil)[:16], id) {
		return nil, fmt.Errorf("slot %d of pack %s: wrong content", ref.Slot, ref.Pack)
	}
	return plain, nil
}

// moved reads a chunk whose pack is gone: its id is in the footer of another.
func (r *reader) moved(ref readerRef, kind byte) ([]byte, error) {
	if r.places == nil {
		if err := r.index(); err != nil {
			return nil, err
		}
	}
	at, ok := r.places[ref.ID]
	if !ok {
		return nil, fmt.Errorf("chunk %s is nowhere", ref.ID)
	}
	return r.record(at, kind)
}

// index reads the footers of all packs.
func (r *reader) index() error {
	r.places = map[string]readerRef{}
	files, err := filepath.Glob(filepath.Join(r.dir, "packs", "*", "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := filepath.Base(file)
		packID, err := hex.DecodeString(name)
		if err != nil {
			return err
		}
		off := binary.BigEndian.Uint64(b[len(b)-40:])
		end := off + uint64(binary.BigEndian.Uint32(b[len(b)-32:]))
		footer, err := r.subkey("footers", packID).Open(nil, make([]byte, 12), b[off:end], binary.BigEndian.AppendUint64(bytes.Clone(packID), off))
		if err != nil {
			return fmt.Errorf("footer: %w", err)
		}
		for slot := 0; 8+32*slot < len(footer); slot++ {
			id := hex.EncodeToString(footer[8+32*slot:][:16])
			r.places[id] = readerRef{ID: id, Pack: name, Slot: uint32(slot)}
		}
	}
	return nil
}

func (r *reader) attachment(p readerPoint, name string) ([]byte, error) {
	for _, a := range p.Attachments {
		if a.Name == name {
			return r.record(a.Ref, 3)
		}
	}
	return nil, fmt.Errorf("no attachment %s", name)
}

func (r *reader) disk(p readerPoint, name string) ([]byte, error) {
	for _, d := range p.Disks {
		if d.Name != name {
			continue
		}
		out := make([]byte, d.Size)
		level, covered := 0, d.ChunkSize*1024
		for covered < d.Size {
			level, covered = level+1, covered*1024
		}
		root := make([]byte, 32)
		if d.Root != nil {
			var err error
			if root, err = r.node(out, *d.Root, level, 0, d.ChunkSize); err != nil {
				return nil, err
			}
		}
		digest := binary.BigEndian.AppendUint64(nil, uint64(d.Size))
		digest = append(binary.BigEndian.AppendUint64(digest, uint64(d.ChunkSize)), root...)
		if sum := blake3.Sum256(digest); hex.EncodeToString(sum[:]) != d.Digest {
			return nil, fmt.Errorf("digest of disk %s", name)
		}
		return out, nil
	}
	return nil, fmt.Errorf("no disk %s", name)
}

// node fills in what is below a node and returns its digest. index counts the nodes of its level.
func (r *reader) node(out []byte, ref readerRef, level int, index, chunkSize int64) ([]byte, error) {
	b, err := r.record(ref, 2)
	if err != nil {
		return nil, err
	}
	next := func(n int) []byte { x := b[:n]; b = b[n:]; return x }
	number := func() int64 { v, n := binary.Uvarint(b); b = b[n:]; return int64(v) }
	if head := next(2); head[0] != 1 || int(head[1]) != level {
		return nil, fmt.Errorf("node of level %d, version %d", head[1], head[0])
	}
	packs := make([]string, number())
	for i := range packs {
		packs[i] = hex.EncodeToString(next(16))
	}
	digest := []byte{byte(level)}
	for place := int64(0); len(b) > 0; {
		place += number()
		for count := number(); count > 0; count-- {
			child := readerRef{ID: hex.EncodeToString(next(16))}
			child.Pack = packs[number()]
			child.Slot = uint32(number())
			digest = binary.BigEndian.AppendUint16(digest, uint16(place))
			at := index*1024 + place
			place++
			if level == 0 {
				plain, err := r.record(child, 1)
				if err != nil {
					return nil, err
				}
				if want := min(chunkSize, int64(len(out))-at*chunkSize); int64(len(plain)) != want {
					return nil, fmt.Errorf("chunk %d has %d bytes", at, len(plain))
				}
				copy(out[at*chunkSize:], plain)
				id, _ := hex.DecodeString(child.ID)
				digest = append(digest, id...)
				continue
			}
			want := next(32)
			_ = number() // bytes of data below
			got, err := r.node(out, child, level-1, at, chunkSize)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(got, want) {
				return nil, fmt.Errorf("digest of node %d of level %d", at, level-1)
			}
			digest = append(digest, got...)
		}
	}
	sum := blake3.Sum256(digest)
	return sum[:], nil
}
