package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault/audit"
	"kluis/internal/seal"
)

func open(t *testing.T, db *database.DB) *audit.Log {
	t.Helper()
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return audit.New(db, root, rand.Reader)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func entry(n int) audit.Entry {
	return audit.Entry{At: noon, Principal: identity.Principal{TenantID: "t", ObjectID: "o", AppID: "a"}, Operation: "SecretGet",
		Vault: "kv-one", Kind: "secrets", Name: fmt.Sprintf("s%d", n), Version: "v", Result: "Success", Correlation: "c"}
}

func (r recorded) verify(noted audit.Head) audit.Report {
	r.t.Helper()
	report, err := r.log.Verify(r.t.Context(), noted)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

type recorded struct {
	t   *testing.T
	db  *database.DB
	log *audit.Log
}

// record gives a log with 20 entries.
func record(t *testing.T, db *database.DB) recorded {
	t.Helper()
	r := recorded{t, db, open(t, db)}
	for n := range 20 {
		if err := r.log.Record(t.Context(), entry(n)); err != nil {
			t.Fatal(err)
		}
	}
	if report := r.verify(audit.Head{}); len(report.Findings) != 0 || report.Entries != 20 || report.Head.Seq != 20 {
		t.Fatalf("a log that nobody touched: %+v", report)
	}
	return r
}

func (r recorded) tamper(statements ...string) {
	r.t.Helper()
	err := r.db.InTx(r.t.Context(), func(tx *database.Tx) error {
		for _, s := range statements {
			if _, err := tx.ExecContext(r.t.Context(), s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// Whoever can write the database, and not the root key, can't change the log unseen.
func TestTamperingIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		statements []string
		seq        int64
		want       string
	}{
		"a result is changed":   {[]string{`UPDATE keyvault_uses SET result = 'AccessDenied' WHERE seq = 7`}, 7, "entry 7 was changed"},
		"a name is changed":     {[]string{`UPDATE keyvault_uses SET name = 'other' WHERE seq = 1`}, 1, "entry 1 was changed"},
		"a time is changed":     {[]string{`UPDATE keyvault_uses SET at = at + 1 WHERE seq = 20`}, 20, "entry 20 was changed"},
		"an entry is removed":   {[]string{`DELETE FROM keyvault_uses WHERE seq = 7`}, 7, "1 entries are missing before entry 8"},
		"the first is removed":  {[]string{`DELETE FROM keyvault_uses WHERE seq = 1`}, 1, "1 entries are missing"},
		"the newest is removed": {[]string{`DELETE FROM keyvault_uses WHERE seq > 15`}, 16, "the newest 5 entries are missing"},
		"all are removed":       {[]string{`DELETE FROM keyvault_uses`}, 1, "the newest 20 entries are missing"},
		"two change places": {[]string{`UPDATE keyvault_uses SET seq = 100 WHERE seq = 3`, `UPDATE keyvault_uses SET seq = 3 WHERE seq = 4`,
			`UPDATE keyvault_uses SET seq = 4 WHERE seq = 100`}, 3, "entry 3 was changed, moved"},
		"one is taken out and the rest moved up": {[]string{`DELETE FROM keyvault_uses WHERE seq = 20`, `UPDATE keyvault_audit_head SET seq = 19,
			hash = (SELECT hash FROM keyvault_uses WHERE seq = 19)`}, 19, "was not written by this server"},
		"the head is cut off": {[]string{`UPDATE keyvault_audit_head SET seq = 0, hash = '', sealed = ''`}, 20, "doesn't end where its head says"},
		"one is added":        {[]string{`INSERT INTO keyvault_uses SELECT 'x', at, tenant, principal, application, operation, vault, kind, name, version, result, 21, correlation, hash FROM keyvault_uses WHERE seq = 20`}, 21, "entry 21 was changed, moved"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			databasetest.Each(t, func(t *testing.T, db *database.DB) {
				r := record(t, db)
				r.tamper(c.statements...)
				found := r.verify(audit.Head{}).Findings
				for _, f := range found {
					if f.Seq == c.seq && strings.Contains(f.What, c.want) {
						return
					}
				}
				t.Errorf("found %+v, want %q at %d", found, c.want, c.seq)
			})
		})
	}
}

// A chain that is cut at its end together with its head is whole again; only who has noted the head knows better.
func TestNotedHeadFindsAnOlderCopy(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := record(t, db)
		var seq int64
		var hash string
		var sealed []byte
		err := db.Read(t.Context(), func(tx *database.Tx) error {
			return tx.QueryRowContext(t.Context(), `SELECT seq, hash, sealed FROM keyvault_audit_head`).Scan(&seq, &hash, &sealed)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.log.Record(t.Context(), entry(20)); err != nil {
			t.Fatal(err)
		}
		noted := r.verify(audit.Head{}).Head
		if again, err := audit.ParseHead(noted.String()); err != nil || again != noted {
			t.Fatalf("the head %s is read as %s, %v", noted, again, err)
		}
		if found := r.verify(noted).Findings; len(found) != 0 {
			t.Errorf("with its own head: %+v", found)
		}
		err = db.InTx(t.Context(), func(tx *database.Tx) error {
			_, err := tx.ExecContext(t.Context(), `DELETE FROM keyvault_uses WHERE seq > 20`)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(t.Context(), `UPDATE keyvault_audit_head SET seq = $1, hash = $2, sealed = $3`, seq, hash, sealed)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if found := r.verify(audit.Head{}).Findings; len(found) != 0 {
			t.Errorf("the older copy is not whole: %+v", found)
		}
		if found := r.verify(noted).Findings; len(found) != 1 || !strings.Contains(found[0].What, "an older copy was put back") {
			t.Errorf("with the noted head: %+v", found)
		}
		if err := r.log.Record(t.Context(), entry(99)); err != nil {
			t.Fatal(err)
		}
		if found := r.verify(noted).Findings; len(found) != 1 || !strings.Contains(found[0].What, "written anew") {
			t.Errorf("with the noted head, after the log went on: %+v", found)
		}
	})
}

// Many write at once: nobody's entry is lost, and the chain stays one.
func TestManyWriters(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		log := open(t, db)
		var all sync.WaitGroup
		errs := make(chan error, 200)
		for n := range 100 {
			all.Go(func() { errs <- log.Record(t.Context(), entry(n)) })
			all.Go(func() {
				errs <- log.Change(t.Context(), func(*database.Tx) (audit.Entry, error) { return entry(1000 + n), nil })
			})
		}
		all.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
		report, err := log.Verify(t.Context(), audit.Head{})
		if err != nil || report.Entries != 200 || len(report.Findings) != 0 {
			t.Errorf("%+v, %v", report, err)
		}
		names := map[string]bool{}
		for seq := int64(0); ; {
			page, err := log.After(t.Context(), seq, 30)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				names[e.Name], seq = true, e.Seq
			}
		}
		if len(names) != 200 {
			t.Errorf("%d different entries", len(names))
		}
	})
}

// A change that fails leaves no entry, and a head that can't be sealed lets nothing happen.
func TestNoEntryWithoutItsChange(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := record(t, db)
		refusal := errors.New("refused")
		err := r.log.Change(t.Context(), func(*database.Tx) (audit.Entry, error) { return entry(1), refusal })
		if !errors.Is(err, refusal) {
			t.Error(err)
		}
		broken := audit.New(db, brokenSealer{}, rand.Reader)
		if err := broken.Record(t.Context(), entry(1)); err == nil {
			t.Error("an entry was written without a head")
		}
		unlucky := audit.New(db, brokenSealer{}, bytes.NewReader(nil))
		if err := unlucky.Record(context.Background(), entry(1)); err == nil {
			t.Error("an entry was written without an id")
		}
		if report := r.verify(audit.Head{}); report.Entries != 20 || len(report.Findings) != 0 {
			t.Errorf("%+v", report)
		}
	})
}

type brokenSealer struct{}

func (brokenSealer) Seal(string, []byte) ([]byte, error) { return nil, errors.New("no root") }
func (brokenSealer) Open(string, []byte) ([]byte, error) { return nil, errors.New("no root") }

func TestParseHead(t *testing.T) {
	good := "12:" + strings.Repeat("ab", 32)
	if h, err := audit.ParseHead(good); err != nil || h.String() != good {
		t.Errorf("%s is read as %s, %v", good, h, err)
	}
	for _, s := range []string{"", "12", ":", "12:", "0:" + strings.Repeat("ab", 32), "-1:" + strings.Repeat("ab", 32), " " + good, good + "0", good + " ", "x" + good} {
		if h, err := audit.ParseHead(s); err == nil {
			t.Errorf("%q is read as %+v", s, h)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add("12:" + strings.Repeat("ab", 32))
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := audit.ParseHead(s); err == nil && h.String() != s {
			t.Errorf("%q is read as %s", s, h)
		}
	})
}
