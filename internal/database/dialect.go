package database

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

// dialect is all in which the two databases differ.
type dialect interface {
	name() string
	goose() goose.Dialect
	openWrite() (*sql.DB, error)
	openRead(write *sql.DB) (*sql.DB, error)
	isolation() sql.IsolationLevel
	readIsolation() sql.IsolationLevel
	isRetryable(err error) bool
}

// SQLite has no collation named C, PostgreSQL no BINARY; with this one the same CREATE TABLE sorts
// alike on both.
func init() { sqlite.MustRegisterCollationUtf8("C", strings.Compare) }

type sqliteDialect struct{ path string }

func (sqliteDialect) name() string                      { return "sqlite" }
func (sqliteDialect) goose() goose.Dialect              { return goose.DialectSQLite3 }
func (sqliteDialect) isolation() sql.IsolationLevel     { return sql.LevelDefault }
func (sqliteDialect) readIsolation() sql.IsolationLevel { return sql.LevelDefault }

// Writers take the lock when they begin (_txlock=immediate): a deferred transaction that reads first
// and writes later is refused outright when another one wrote in between.
func (d sqliteDialect) openWrite() (*sql.DB, error) { return d.open("immediate") }

func (d sqliteDialect) openRead(*sql.DB) (*sql.DB, error) { return d.open("deferred") }

func (d sqliteDialect) open(lock string) (*sql.DB, error) {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: d.path}).EscapedPath()+"?"+q.Encode())
}

func (sqliteDialect) isRetryable(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == 5 // SQLITE_BUSY
}

func sqliteIsUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == 2067 || e.Code() == 1555) // _CONSTRAINT_UNIQUE, _PRIMARYKEY
}

type postgresDialect struct{ url string }

func (postgresDialect) name() string                            { return "postgres" }
func (postgresDialect) goose() goose.Dialect                    { return goose.DialectPostgres }
func (postgresDialect) isolation() sql.IsolationLevel           { return sql.LevelSerializable }
func (postgresDialect) readIsolation() sql.IsolationLevel       { return sql.LevelRepeatableRead }
func (d postgresDialect) openWrite() (*sql.DB, error)           { return sql.Open("pgx", d.url) }
func (postgresDialect) openRead(write *sql.DB) (*sql.DB, error) { return write, nil }
func (postgresDialect) isRetryable(err error) bool              { return postgresCode(err, "40001", "40P01") }
func postgresIsUnique(err error) bool                           { return postgresCode(err, "23505") }

func postgresCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}
