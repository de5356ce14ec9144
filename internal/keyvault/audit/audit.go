// Package audit is the record of every use of a key or a secret, allowed or refused.
//
// Entries are only ever added, and each is chained to the one before it:
//
//	hash(n) = SHA-256( hash(n-1) | line feed | JSON of entry n ), hash(0) = ""
//
// so an entry that was changed, taken out or moved breaks the chain at its place. What a chain can't show by itself is
// that its newest entries are missing. The head therefore says where the chain ends, sealed under the root key: who can
// write the database but doesn't hold the root key can cut the chain, but not make a head that fits. Who can put
// back an older head together with the older chain, as a restored copy of the database does, is found only by a head
// that was noted elsewhere: Head is what to note, and Report.Holds compares.
//
// An entry is durable before what it tells of is handed out. Changes write theirs in their own transaction (Change);
// entries of uses that changed nothing are gathered, and written many in one transaction (Record), so that the chain
// is no bottleneck though one writer at a time adds to it.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"kluis/internal/database"
	"kluis/internal/identity"
)

// Sealer seals the head.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Entry is one use. It never holds a value.
type Entry struct {
	ID          string // sorts by time
	Seq         int64  // its place in the chain, from 1; 0 for entries from before there was a chain
	At          time.Time
	Principal   identity.Principal // tenant, object id and application id only
	Operation   string             // Azure's name: "KeyUnwrap", "SecretGet"
	Vault       string             // folded
	Kind        string             // keys or secrets
	Name        string             // empty for a list
	Version     string             // the version that was used, where one was
	Result      string             // Success, or the code of the refusal: "AccessDenied", "SecretNotFound"
	Correlation string             // of the request
	Hash        string             // of the chain up to here
}

// Head is the end of the chain.
type Head struct {
	Seq  int64
	Hash string
}

// Log is the record of one installation. It is safe for concurrent use.
type Log struct {
	db   *database.DB
	seal Sealer
	rand io.Reader

	writing sync.Mutex // held by the one transaction that adds to the chain
	newest  int64      // time of the newest id, in microseconds; guarded by writing

	gathering sync.Mutex
	waiting   []*waiting // guarded by gathering
}

// waiting is an entry that some transaction will write: its own or another's.
type waiting struct {
	entry   Entry
	written bool // guarded by Log.writing
	err     error
}

// New returns the log in db.
func New(db *database.DB, seal Sealer, rand io.Reader) *Log {
	return &Log{db: db, seal: seal, rand: rand}
}

// Record adds an entry. It returns when the entry is durable.
func (l *Log) Record(ctx context.Context, e Entry) error {
	w := &waiting{entry: e}
	l.gathering.Lock()
	l.waiting = append(l.waiting, w)
	l.gathering.Unlock()

	l.writing.Lock()
	defer l.writing.Unlock()
	if !w.written { // nobody took it along
		l.gathering.Lock()
		batch := l.waiting
		l.waiting = nil
		l.gathering.Unlock()
		l.write(ctx, batch)
	}
	return w.err
}

// write adds what has gathered in one transaction. When that fails each is tried alone: one that can't be written
// must not take the others with it.
func (l *Log) write(ctx context.Context, batch []*waiting) {
	err := l.add(ctx, batch...)
	for _, w := range batch {
		if err != nil && len(batch) > 1 {
			w.err = l.add(ctx, w)
		} else {
			w.err = err
		}
		w.written = true
	}
}

func (l *Log) add(ctx context.Context, batch ...*waiting) error {
	return l.db.InTx(ctx, func(tx *database.Tx) error {
		for _, w := range batch {
			if err := l.append(ctx, tx, w.entry); err != nil {
				return err
			}
		}
		return nil
	})
}

// Change runs f in a transaction that writes, and adds the entry that f returns in the same transaction. f may run
// several times.
func (l *Log) Change(ctx context.Context, f func(tx *database.Tx) (Entry, error)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.db.InTx(ctx, func(tx *database.Tx) error {
		e, err := f(tx)
		if err != nil {
			return err
		}
		return l.append(ctx, tx, e)
	})
}

// append puts an entry at the end of the chain.
func (l *Log) append(ctx context.Context, tx *database.Tx, e Entry) error {
	head, _, err := selectHead(ctx, tx)
	if err != nil {
		return fmt.Errorf("read the end of the audit log: %w", err)
	}
	if e.ID, err = l.nextID(e.At); err != nil {
		return err
	}
	e.Seq = head.Seq + 1
	e.Hash = e.hash(head.Hash)
	if err := insertEntry(ctx, tx, e); err != nil {
		return fmt.Errorf("add to the audit log: %w", err)
	}
	return l.moveHead(ctx, tx, Head{e.Seq, e.Hash})
}

// context is different for each head: as many are sealed as there are uses, and a key must not seal too many.
func (h Head) context() string { return fmt.Sprintf("keyvault/audit-head/%d", h.Seq) }

func (l *Log) moveHead(ctx context.Context, tx *database.Tx, h Head) error {
	sealed, err := l.seal.Seal(h.context(), h.bytes())
	if err != nil {
		return fmt.Errorf("seal the end of the audit log: %w", err)
	}
	return updateHead(ctx, tx, h, sealed)
}

func (h Head) bytes() []byte { return []byte(h.String()) }

// String is the form in which a head is noted and shown: its place and its hash.
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// ParseHead reads what String wrote.
func ParseHead(s string) (h Head, err error) {
	n, err := fmt.Sscanf(s, "%d:%64s", &h.Seq, &h.Hash)
	if err != nil || n != 2 || h.String() != s || h.Seq < 1 || len(h.Hash) != 2*sha256.Size {
		return Head{}, errors.New("a head is written NUMBER:HASH, as verify shows it")
	}
	return h, nil
}

// hashed is what an entry's hash is over: fields may be added with omitempty, never renamed or reordered.
type hashed struct {
	Seq         int64  `json:"seq"`
	ID          string `json:"id"`
	At          int64  `json:"at"` // Unix microseconds
	Tenant      string `json:"tenant"`
	Principal   string `json:"principal"`
	Application string `json:"application"`
	Operation   string `json:"operation"`
	Vault       string `json:"vault"`
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	Version     string `json:"version"`
	Result      string `json:"result"`
	Correlation string `json:"correlation"`
}

func (e Entry) hash(before string) string {
	text, err := json.Marshal(hashed{e.Seq, e.ID, database.Micros(e.At), e.Principal.TenantID, e.Principal.ObjectID, e.Principal.AppID,
		e.Operation, e.Vault, e.Kind, e.Name, e.Version, e.Result, e.Correlation})
	if err != nil {
		panic(err) // strings and numbers can't fail to marshal
	}
	sum := sha256.Sum256(append([]byte(before+"\n"), text...))
	return hex.EncodeToString(sum[:])
}

// nextID begins with the time, so that ids sort by it. Two entries of one microsecond get different times, so
// that they sort in the order in which they were added.
func (l *Log) nextID(at time.Time) (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(l.rand, b[:]); err != nil {
		return "", fmt.Errorf("draw id of a use: %w", err)
	}
	l.newest = max(at.UnixMicro(), l.newest+1)
	return fmt.Sprintf("%016x-%s", l.newest, hex.EncodeToString(b[:])), nil
}

// OfVault returns the entries of a key vault, newest first: at most max, and only those before the one with the id
// before, unless it is empty.
func (l *Log) OfVault(ctx context.Context, vault, before string, max int) (entries []Entry, err error) {
	err = l.db.Read(ctx, func(tx *database.Tx) error {
		entries, err = selectOfVault(ctx, tx, vault, before, max)
		return err
	})
	return entries, err
}

// After returns entries of the chain in its order: at most max of those after a place.
func (l *Log) After(ctx context.Context, seq int64, max int) (entries []Entry, err error) {
	err = l.db.Read(ctx, func(tx *database.Tx) error {
		entries, err = selectAfter(ctx, tx, seq, max)
		return err
	})
	return entries, err
}
