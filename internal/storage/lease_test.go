package storage_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

const (
	mine   = "00000000-0000-4000-8000-000000000001"
	theirs = "00000000-0000-4000-8000-000000000002"
)

func acquire(id string, seconds int) storage.LeaseAction {
	return storage.LeaseAction{Verb: "acquire", Proposed: id, Seconds: seconds, Period: -1}
}

func lease(verb, id string) storage.LeaseAction {
	return storage.LeaseAction{Verb: verb, ID: id, Period: -1}
}

func breakIn(seconds int) storage.LeaseAction {
	return storage.LeaseAction{Verb: "break", Period: seconds}
}

func change(id, to string) storage.LeaseAction {
	return storage.LeaseAction{Verb: "change", ID: id, Proposed: to, Period: -1}
}

// The life of a lease, as the table "Outcomes of use attempts" of Lease Blob has it: what is done, some seconds
// after what was done before, and what comes of it.
func TestLeaseLife(t *testing.T) {
	type step struct {
		after int
		do    storage.LeaseAction
		want  string // the state, or the code of the refusal
	}
	for name, steps := range map[string][]step{
		"expires":              {{0, acquire(mine, 15), "leased"}, {15, lease("renew", mine), "leased"}, {16, acquire(theirs, 60), "leased"}},
		"is somebody's":        {{0, acquire(mine, 15), "leased"}, {14, acquire(theirs, 15), "LeaseAlreadyPresent"}, {0, acquire(mine, -1), "leased"}},
		"of no id":             {{0, acquire("", -1), "leased"}, {99, acquire("", 15), "LeaseAlreadyPresent"}},
		"is released":          {{0, acquire(mine, 15), "leased"}, {0, lease("release", theirs), "LeaseIdMismatchWithLeaseOperation"}, {0, lease("release", mine), "available"}, {0, lease("release", mine), "LeaseIdMismatchWithLeaseOperation"}, {0, acquire(theirs, 15), "leased"}},
		"is renewed":           {{0, acquire(mine, 15), "leased"}, {10, lease("renew", mine), "leased"}, {10, acquire(theirs, 15), "LeaseAlreadyPresent"}, {0, lease("renew", theirs), "LeaseIdMismatchWithLeaseOperation"}},
		"changes hands":        {{0, acquire(mine, 60), "leased"}, {0, change(theirs, mine), "leased"}, {0, change(mine, theirs), "leased"}, {0, lease("renew", mine), "LeaseIdMismatchWithLeaseOperation"}, {0, lease("renew", theirs), "leased"}},
		"changes not":          {{0, change(mine, theirs), "LeaseNotPresentWithLeaseOperation"}, {0, acquire(mine, 15), "leased"}, {20, change(mine, theirs), "LeaseNotPresentWithLeaseOperation"}},
		"is broken":            {{0, acquire(mine, -1), "leased"}, {0, breakIn(-1), "broken"}, {0, lease("renew", mine), "LeaseIsBrokenAndCannotBeRenewed"}, {0, breakIn(10), "broken"}, {0, acquire(theirs, 15), "leased"}},
		"is being broken":      {{0, acquire(mine, -1), "leased"}, {0, breakIn(30), "breaking"}, {0, acquire(theirs, 15), "LeaseAlreadyPresent"}, {0, acquire(mine, 15), "LeaseIsBreakingAndCannotBeAcquired"}, {0, change(mine, theirs), "LeaseIsBreakingAndCannotBeChanged"}, {0, lease("renew", mine), "LeaseIsBrokenAndCannotBeRenewed"}, {29, breakIn(60), "breaking"}, {1, acquire(theirs, 15), "leased"}},
		"is broken sooner":     {{0, acquire(mine, 60), "leased"}, {0, breakIn(-1), "breaking"}, {30, breakIn(0), "broken"}},
		"is broken at its end": {{0, acquire(mine, 15), "leased"}, {0, breakIn(60), "breaking"}, {15, acquire(theirs, 15), "leased"}},
		"is released while":    {{0, acquire(mine, 60), "leased"}, {0, breakIn(30), "breaking"}, {0, lease("release", mine), "available"}},
		"was never":            {{0, breakIn(0), "LeaseNotPresentWithLeaseOperation"}, {0, lease("renew", mine), "LeaseIdMismatchWithLeaseOperation"}},
		"is malformed":         {{0, acquire(mine, 14), "InvalidHeaderValue"}, {0, acquire("x", 15), "InvalidHeaderValue"}, {0, breakIn(61), "InvalidHeaderValue"}, {0, lease("renew", "x"), "InvalidHeaderValue"}, {0, change(mine, ""), "InvalidHeaderValue"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sqlite(t), nil)
			w.account("one")
			if err := w.put("b", "x"); err != nil {
				t.Fatal(err)
			}
			for i, s := range steps {
				w.now = w.now.Add(time.Duration(s.after) * time.Second)
				b, err := w.LeaseBlob(t.Context(), "one", "container", "b", s.do)
				got := b.Lease.State(w.now)
				if p := problem.Of(err); p != nil {
					got = p.Code
				}
				c, err := w.LeaseContainer(t.Context(), "one", "container", s.do)
				same := c.Lease.State(w.now)
				if p := problem.Of(err); p != nil {
					same = p.Code
				}
				if got != s.want || same != s.want {
					t.Errorf("step %d, %+v: %s for a blob and %s for a container, want %s", i, s.do, got, same, s.want)
				}
			}
		})
	}
}

// Who has the lease changes the blob, and nobody else does.
func TestLeaseKeepsOthersAway(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		if err := w.put("b", "first"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.LeaseBlob(ctx, "one", "container", "b", acquire(mine, 60)); err != nil {
			t.Fatal(err)
		}
		changes := map[string]func(c ...storage.Condition) error{
			"put": func(c ...storage.Condition) error {
				_, err := w.PutBlob(ctx, "one", "container", "b", text(1, ""), strings.NewReader("y"), c...)
				return err
			},
			"block": func(c ...storage.Condition) error {
				_, err := w.PutBlock(ctx, "one", "container", "b", "AAAA", text(1, ""), strings.NewReader("z"), c...)
				return err
			},
			"commit": func(c ...storage.Condition) error {
				_, err := w.CommitBlocks(ctx, "one", "container", "b", nil, storage.Upload{}, c...)
				return err
			},
			"metadata": func(c ...storage.Condition) error {
				_, err := w.SetMetadata(ctx, "one", "container", "b", nil, c...)
				return err
			},
			"headers": func(c ...storage.Condition) error {
				_, err := w.SetHeaders(ctx, "one", "container", "b", storage.Headers{}, c...)
				return err
			},
			"delete": func(c ...storage.Condition) error { return w.DeleteBlob(ctx, "one", "container", "b", c...) },
		}
		for name, do := range changes {
			for code, err := range map[string]error{"LeaseIdMissing": do(), "LeaseIdMismatchWithBlobOperation": do(storage.HoldsLease(theirs))} {
				if !problem.Is(err, code) {
					t.Errorf("%s: %v, want %s", name, err, code)
				}
			}
		}
		if got := w.read("b"); got != "first" {
			t.Errorf("the blob is %q", got)
		}
		_, _, err := w.ReadBlobRange(ctx, "one", "container", "b", 0, -1, storage.HoldsLease(theirs))
		wantCode(t, err, "LeaseIdMismatchWithBlobOperation")
		for _, name := range []string{"put", "block", "commit", "metadata", "headers"} {
			if err := changes[name](storage.HoldsLease(mine)); err != nil {
				t.Errorf("%s with the lease: %v", name, err)
			}
		}
		if b, err := w.Blob(ctx, "one", "container", "b"); err != nil || b.Lease.State(w.now) != "leased" {
			t.Errorf("after the changes: %+v, %v", b.Lease, err)
		}
		w.now = start.Add(time.Minute)
		wantCode(t, changes["metadata"](storage.HoldsLease(mine)), "LeaseLost")
		if err := errors.Join(changes["metadata"](), changes["delete"]()); err != nil {
			t.Error(err)
		}
		if err := w.put("b", "second"); err != nil {
			t.Fatal(err)
		}
		// What was changed by others since its end is nobody's to renew.
		_, err = w.LeaseBlob(ctx, "one", "container", "b", lease("renew", mine))
		wantCode(t, err, "LeaseIdMismatchWithLeaseOperation")
		wantCode(t, changes["put"](storage.HoldsLease(mine)), "LeaseNotPresentWithBlobOperation")
	})
}

// The lease of a container keeps it, and not what is in it.
func TestLeaseOfAContainer(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		if _, err := w.LeaseContainer(ctx, "one", "container", acquire(mine, -1)); err != nil {
			t.Fatal(err)
		}
		if err := w.put("b", "x"); err != nil {
			t.Error(err)
		}
		if _, err := w.SetContainerMetadata(ctx, "one", "container", map[string]string{"a": "b"}); err != nil {
			t.Error(err)
		}
		_, err := w.SetContainerMetadata(ctx, "one", "container", nil, storage.HoldsLease(theirs))
		wantCode(t, err, "LeaseIdMismatchWithContainerOperation")
		wantCode(t, w.DeleteContainer(ctx, "one", "container"), "LeaseIdMissing")
		wantCode(t, w.DeleteContainer(ctx, "one", "container", storage.HoldsLease(theirs)), "LeaseIdMismatchWithContainerOperation")
		if all, err := w.Containers(ctx, "one", ""); err != nil || all[0].Lease.State(w.now) != "leased" || all[0].Metadata["a"] != "b" {
			t.Errorf("%+v, %v", all, err)
		}
		if err := w.DeleteContainer(ctx, "one", "container", storage.HoldsLease(mine)); err != nil {
			t.Error(err)
		}
		if _, err := w.CreateContainer(ctx, "one", "container", nil); err != nil {
			t.Fatal(err)
		}
		if c, err := w.Container(ctx, "one", "container"); err != nil || c.Lease.State(w.now) != "available" {
			t.Errorf("%+v, %v", c.Lease, err)
		}
	})
}
