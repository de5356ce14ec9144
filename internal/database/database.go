// Package database opens the metadata database, SQLite or PostgreSQL, and runs transactions on it.
//
// There is one text of SQL for both. It stays in the subset that behaves the same on each: $1
// placeholders, TEXT, BIGINT, BOOLEAN and BYTEA, times as BIGINT Unix microseconds, ids made in Go,
// COLLATE "C" on whatever is sorted or paged, no LIKE and no SELECT FOR UPDATE. What differs is in
// dialect.go, and every test that touches SQL runs on both (databasetest.Each).
//
// Transactions are explicit: a service calls InTx and hands the Tx to the functions of its own sql.go.
// They are serializable on both databases, so a read followed by a write in one transaction needs no
// lock; a transaction that lost a race is run again, and its function must therefore be free of side
// effects outside the database.
package database

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// Tx is a transaction. It is handed down, never kept.
type Tx = sql.Tx

// ErrNoRows is what a query for one row returns when there is none.
var ErrNoRows = sql.ErrNoRows

// DB is an open database. It is safe for concurrent use.
type DB struct {
	dialect dialect
	write   *sql.DB
	read    *sql.DB // the same pool as write on PostgreSQL
}

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database that url names and brings its schema up to date.
//
//	sqlite:/var/lib/kluis/kluis.db
//	postgres://user@host/name?sslmode=verify-full
func Open(ctx context.Context, url string) (*DB, error) {
	d, err := dialectOf(url)
	if err != nil {
		return nil, err
	}
	db := &DB{dialect: d}
	if db.write, err = d.openWrite(); err != nil {
		return nil, fmt.Errorf("open %s database: %w", d.name(), err)
	}
	if db.read, err = d.openRead(db.write); err != nil {
		_ = db.write.Close()
		return nil, fmt.Errorf("open %s database for reading: %w", d.name(), err)
	}
	if err := db.migrate(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("migrate %s database: %w", d.name(), err)
	}
	return db, nil
}

func (db *DB) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(db.dialect.goose(), db.write, files)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// Name returns "sqlite" or "postgres".
func (db *DB) Name() string { return db.dialect.name() }

// Close closes all connections.
func (db *DB) Close() error {
	if db.read != db.write {
		if err := db.read.Close(); err != nil {
			_ = db.write.Close()
			return err
		}
	}
	return db.write.Close()
}

// A transaction that loses a race is tried this often; each loss means that somebody else won, so
// this many in a row do not happen by chance.
const maxAttempts = 20

// InTx runs f in a read-write transaction and commits it, or rolls back and returns f's error. f may
// run several times.
func (db *DB) InTx(ctx context.Context, f func(tx *Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := run(ctx, db.write, &sql.TxOptions{Isolation: db.dialect.isolation()}, f)
		if err == nil || attempt == maxAttempts || !db.dialect.isRetryable(err) {
			return err
		}
		if err := pause(ctx, time.Duration(attempt)*time.Millisecond); err != nil {
			return err
		}
	}
}

// Read runs f in a read-only transaction: one consistent view, and no waiting for writers.
func (db *DB) Read(ctx context.Context, f func(tx *Tx) error) error {
	return run(ctx, db.read, &sql.TxOptions{ReadOnly: true, Isolation: db.dialect.readIsolation()}, f)
}

func run(ctx context.Context, pool *sql.DB, options *sql.TxOptions, f func(tx *Tx) error) error {
	tx, err := pool.BeginTx(ctx, options)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing once committed
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// IsUnique reports whether err says that a row with the same unique value exists.
func IsUnique(err error) bool { return sqliteIsUnique(err) || postgresIsUnique(err) }

// Micros is how a time is stored: Unix microseconds, 0 for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros, in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func dialectOf(url string) (dialect, error) {
	switch {
	case strings.HasPrefix(url, "sqlite:"):
		path := strings.TrimPrefix(strings.TrimPrefix(url, "sqlite:"), "//")
		if path == "" {
			return nil, fmt.Errorf("database %q names no file; write sqlite:/path/to/kluis.db", url)
		}
		return sqliteDialect{path}, nil
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		return postgresDialect{url}, nil
	}
	scheme, _, _ := strings.Cut(url, ":")
	return nil, fmt.Errorf("database scheme %q is neither sqlite: nor postgres://", scheme)
}
