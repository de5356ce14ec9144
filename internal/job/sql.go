package job

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kluis/internal/database"
)

const columns = `id, kind, scope, entity, args, state, outcome, cancelling, owner, attempt, created, ended, done, total,
	tasks, details, problems, correlation`

func insert(ctx context.Context, tx *database.Tx, j Job, exclusive string) error {
	tasks, details, problems, err := documents(j)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO jobs (`+columns+`, exclusive, lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0)`,
		j.ID, j.Kind, j.Scope, j.Entity, string(j.args), string(j.State), string(j.Outcome), j.Cancelling, j.owner, j.Attempt,
		database.Micros(j.Created), database.Micros(j.Ended), j.Done, j.Total, tasks, details, problems, j.Correlation,
		sql.NullString{String: exclusive, Valid: exclusive != ""})
	return err
}

func update(ctx context.Context, tx *database.Tx, j Job) error {
	tasks, details, problems, err := documents(j)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE jobs SET state = $2, outcome = $3, cancelling = $4, ended = $5, done = $6, total = $7,
		tasks = $8, details = $9, problems = $10 WHERE id = $1`,
		j.ID, string(j.State), string(j.Outcome), j.Cancelling, database.Micros(j.Ended), j.Done, j.Total, tasks, details, problems)
	return err
}

func documents(j Job) (tasks, details, problems string, err error) {
	for _, d := range []struct {
		to   *string
		from any
	}{{&tasks, j.Tasks}, {&details, j.Details}, {&problems, j.Problems}} {
		b, err := json.Marshal(d.from)
		if err != nil {
			return "", "", "", fmt.Errorf("encode job %s: %w", j.ID, err)
		}
		*d.to = string(b)
	}
	return tasks, details, problems, nil
}

// claimNext takes the oldest job of some kinds that waits or whose lease has run out.
func claimNext(ctx context.Context, tx *database.Tx, kinds []string, node string, now, until time.Time) (id string, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE jobs SET state = 'running', owner = $1, lease_until = $2, attempt = attempt + 1
		WHERE id = (SELECT id FROM jobs WHERE (state = 'queued' OR (state = 'running' AND lease_until < $3))
			AND kind IN (`+placeholders(4, len(kinds))+`) ORDER BY created, id LIMIT 1)
		AND (state = 'queued' OR (state = 'running' AND lease_until < $3)) RETURNING id`,
		append([]any{node, database.Micros(until), database.Micros(now)}, values(kinds)...)...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	return id, err
}

// placeholders are "$first, …", n of them. Of none it is NULL, which is in no list.
func placeholders(first, n int) string {
	if n == 0 {
		return "NULL"
	}
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(first+i)
	}
	return strings.Join(list, ", ")
}

func values(texts []string) []any {
	all := make([]any, len(texts))
	for i, t := range texts {
		all[i] = t
	}
	return all
}

func renew(ctx context.Context, tx *database.Tx, id string, until time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET lease_until = $2 WHERE id = $1`, id, database.Micros(until))
	return err
}

// releaseOwned puts what a node of this name left running of some kinds back into the queue.
func releaseOwned(ctx context.Context, tx *database.Tx, node string, kinds []string) error {
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET state = 'queued', owner = '', lease_until = 0 WHERE state = 'running' AND owner = $1
		AND kind IN (`+placeholders(2, len(kinds))+`)`, append([]any{node}, values(kinds)...)...)
	return err
}

// releaseJob puts one job back; the interrupted attempt does not count, because the server meant to stop.
func releaseJob(ctx context.Context, tx *database.Tx, id, node string, attempt int) error {
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET state = 'queued', owner = '', lease_until = 0, attempt = attempt - 1
		WHERE id = $1 AND state = 'running' AND owner = $2 AND attempt = $3`, id, node, attempt)
	return err
}

func selectExclusive(ctx context.Context, tx *database.Tx, exclusive string) (id string, err error) {
	err = tx.QueryRowContext(ctx, `SELECT id FROM jobs WHERE exclusive = $1 AND state <> 'ended'`, exclusive).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

func selectOne(ctx context.Context, tx *database.Tx, id string) (Job, error) {
	j, err := scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM jobs WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Job{}, ErrNotFound
	}
	return j, err
}

func selectScope(ctx context.Context, tx *database.Tx, scope string, after Place, most int) ([]Job, error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM jobs WHERE scope = $1 AND (created < $2 OR created = $2 AND id > $3)
		ORDER BY created DESC, id LIMIT $4`, scope, after.Created, after.ID, most)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var jobs []Job
	for rows.Next() {
		j, err := scan(rows)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

func scan(row interface{ Scan(...any) error }) (j Job, err error) {
	var args, state, outcome, tasks, details, problems string
	var created, ended int64
	err = row.Scan(&j.ID, &j.Kind, &j.Scope, &j.Entity, &args, &state, &outcome, &j.Cancelling, &j.owner, &j.Attempt, &created, &ended,
		&j.Done, &j.Total, &tasks, &details, &problems, &j.Correlation)
	if err != nil {
		return Job{}, err
	}
	j.args, j.State, j.Outcome = []byte(args), State(state), Outcome(outcome)
	j.Created, j.Ended = database.Time(created), database.Time(ended)
	for _, d := range []struct {
		from string
		to   any
	}{{tasks, &j.Tasks}, {details, &j.Details}, {problems, &j.Problems}} {
		if err := json.Unmarshal([]byte(d.from), d.to); err != nil {
			return Job{}, fmt.Errorf("decode job %s: %w", j.ID, err)
		}
	}
	return j, nil
}
