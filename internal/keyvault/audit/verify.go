package audit

import (
	"context"
	"fmt"

	"kluis/internal/database"
)

// Report is what Verify found. The log is whole when there are no findings.
type Report struct {
	Entries   int64 // in the chain
	Unchained int64 // from before there was a chain: nothing vouches for them
	Head      Head
	Findings  []Finding // the first of them, at most maxFindings
}

// Finding is one thing that is wrong, at the entry with this place in the chain.
type Finding struct {
	Seq  int64  `json:"sequence"`
	What string `json:"what"`
}

const (
	maxFindings = 100
	batch       = 1000
)

// Verify walks the whole chain, in one view of the database. noted is a head from earlier that must be on the chain, or
// the zero Head.
func (l *Log) Verify(ctx context.Context, noted Head) (r Report, err error) {
	err = l.db.Read(ctx, func(tx *database.Tx) error {
		r = Report{}
		head, sealed, err := selectHead(ctx, tx)
		if err != nil {
			return fmt.Errorf("read the end of the audit log: %w", err)
		}
		if r.Unchained, err = countUnchained(ctx, tx); err != nil {
			return err
		}
		last, err := r.walk(ctx, tx, noted)
		if err != nil {
			return err
		}
		r.Head = head
		r.compare(last, head, noted)
		if !l.vouchedFor(head, sealed) {
			r.find(head.Seq, "the end of the log was not written by this server: its seal doesn't open to it")
		}
		return nil
	})
	return r, err
}

// walk reads the chain from its beginning and returns where it ends.
func (r *Report) walk(ctx context.Context, tx *database.Tx, noted Head) (last Head, err error) {
	for {
		entries, err := selectAfter(ctx, tx, last.Seq, batch)
		if err != nil {
			return Head{}, fmt.Errorf("read the audit log: %w", err)
		}
		for _, e := range entries {
			switch {
			case e.Seq != last.Seq+1:
				r.find(last.Seq+1, fmt.Sprintf("%d entries are missing before entry %d", e.Seq-last.Seq-1, e.Seq))
			case e.hash(last.Hash) != e.Hash:
				r.find(e.Seq, fmt.Sprintf("entry %d was changed, moved or replaced", e.Seq))
			}
			if e.Seq == noted.Seq && e.Hash != noted.Hash {
				r.find(e.Seq, "this entry is another than the one whose head was noted: the log was written anew")
			}
			last = Head{e.Seq, e.Hash}
			r.Entries++
		}
		if len(entries) < batch {
			return last, nil
		}
	}
}

// compare looks at the end: at where the head says it is, and at where somebody has seen it.
func (r *Report) compare(last, head, noted Head) {
	switch {
	case last.Seq < head.Seq:
		r.find(last.Seq+1, fmt.Sprintf("the newest %d entries are missing", head.Seq-last.Seq))
	case last != head:
		r.find(last.Seq, "the log doesn't end where its head says")
	}
	if noted.Seq > last.Seq {
		r.find(last.Seq+1, fmt.Sprintf("the log ended at %d when its head was noted, and ends earlier now: an older copy was put back", noted.Seq))
	}
}

func (r *Report) find(seq int64, what string) {
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{seq, what})
	}
}

func (l *Log) vouchedFor(h Head, sealed []byte) bool {
	if h == (Head{}) && len(sealed) == 0 {
		return true // nothing was ever added
	}
	plain, err := l.seal.Open(h.context(), sealed)
	return err == nil && string(plain) == h.String()
}
