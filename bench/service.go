package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/database"
)

// What the server is measured with.
const (
	manyVMs     = 1000
	manyPoints  = 30 // of each VM
	manySecrets = 100_000
	longEnough  = 5 * time.Second // of calls of one kind
	unwrapping  = "unwrap with RSA 3072"
)

// asked is a row of the second table: calls of one kind, on both databases.
type asked struct {
	what             string
	sqlite, postgres load
}

// service measures the server: the Resource Manager with many VMs and recovery points, and a key vault with many secrets.
func (b *bench) service(ctx context.Context) (err error) {
	if b.rsa, err = processorsDo(ctx); err != nil {
		return err
	}
	postgres, stop, err := b.startPostgres(ctx, "manager", "keyvault")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, base := range []struct {
		name string
		url  func(string) string
		of   func(*asked) *load
	}{
		{"SQLite", func(name string) string { return "sqlite:" + b.path(name+".db") }, func(a *asked) *load { return &a.sqlite }},
		{"PostgreSQL", postgres, func(a *asked) *load { return &a.postgres }},
	} {
		say("the Resource Manager on %s", base.name)
		if err := b.askManager(ctx, b.path("manager-"+base.name), base.url("manager"), base.of); err != nil {
			return fmt.Errorf("the Resource Manager on %s: %w", base.name, err)
		}
		say("a key vault on %s", base.name)
		if err := b.askKeyVault(ctx, base.name, base.url("keyvault"), base.of); err != nil {
			return fmt.Errorf("a key vault on %s: %w", base.name, err)
		}
	}
	return nil
}

// askManager measures the Resource Manager.
func (b *bench) askManager(ctx context.Context, dir, url string, of func(*asked) *load) (err error) {
	s, err := b.startServer(ctx, dir, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	where, err := s.setUp(ctx)
	if err != nil {
		return err
	}
	if err := multiply(ctx, url, where.point); err != nil {
		return err
	}
	token, err := s.token(ctx, s.admin.Endpoint)
	if err != nil {
		return err
	}
	for _, one := range s.managerCalls(where) {
		if err := b.measureCalls(ctx, s, token, one, of); err != nil {
			return err
		}
	}
	return nil
}

// askKeyVault measures a key vault, and the server's start and memory before and after it is full.
func (b *bench) askKeyVault(ctx context.Context, name, url string, of func(*asked) *load) (err error) {
	s, err := b.startServer(ctx, b.path("keyvault-"+name), url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	first := s.began
	empty, err := s.memory()
	if err != nil {
		return err
	}
	where, err := s.setUp(ctx)
	if err != nil {
		return err
	}
	_, domain, _ := strings.Cut(where.keyVault, ".")
	token, err := s.token(ctx, "https://"+domain)
	if err != nil {
		return err
	}
	say("%d secrets", manySecrets)
	written, err := s.ask(ctx, token, 0, manySecrets, func(n int) (string, string, string) {
		return "PUT", fmt.Sprintf("%s/secrets/s%06d?api-version=7.4", where.keyVault, n), fmt.Sprintf(`{"value":"a secret of some length, number %d"}`, n)
	})
	if err != nil {
		return err
	}
	*of(b.calls("set secret")) = written
	for _, one := range keyVaultCalls(where) {
		if err := b.measureCalls(ctx, s, token, one, of); err != nil {
			return err
		}
	}
	if err := s.stop(); err != nil {
		return err
	}
	again, err := b.startServer(ctx, s.dir, s.url)
	if err != nil {
		return err
	}
	*s = *again
	full, err := s.memory()
	if err != nil {
		return err
	}
	b.served = append(b.served, fmt.Sprintf("On %s the idle server has %s in memory when it is new, and %s after a start with %d secrets. The first start takes %.2f s, that one %.2f s.",
		name, amount(empty), amount(full), manySecrets, first.Seconds(), s.began.Seconds()))
	return nil
}

// calls finds or makes a row.
func (b *bench) calls(what string) *asked {
	for _, a := range b.asked {
		if a.what == what {
			return a
		}
	}
	a := &asked{what: what}
	b.asked = append(b.asked, a)
	return a
}

func (b *bench) measureCalls(ctx context.Context, s *server, token string, k kind, of func(*asked) *load) error {
	l, err := s.ask(ctx, token, longEnough, 0, k.request)
	if err != nil {
		return fmt.Errorf("%s: %w", k.what, err)
	}
	*of(b.calls(k.what)) = l
	return nil
}

// kind is a kind of call.
type kind struct {
	what    string
	request request
}

// places are where things are that were set up.
type places struct {
	item, point, vault, vm string // ids; of one VM among many
	keyVault, key          string // URLs
	wrapped                string // what to unwrap, base64url
}

func (s *server) managerCalls(p places) []kind {
	get := func(what, version, of string) kind {
		return kind{what, func(n int) (string, string, string) {
			return "GET", s.admin.Endpoint + vmName.ReplaceAllLiteralString(of, nameOf(n%manyVMs)) + "?api-version=" + version, ""
		}}
	}
	const backup = "2023-04-01"
	return []kind{
		{"the door alone: metadata, no token", func(int) (string, string, string) {
			return "GET", s.admin.Endpoint + "/metadata/endpoints?api-version=2022-09-01", ""
		}},
		get("get VM", "2023-03-01", p.vm),
		get("get protected item", backup, p.item),
		get("get recovery point", backup, p.item+"/recoveryPoints/"+p.point),
		get("list 30 recovery points of an item", backup, p.item+"/recoveryPoints"),
		get("list 1000 protected items", backup, p.vault+"/backupProtectedItems"),
		get("list 1000 VMs", "2023-03-01", p.vm[:strings.LastIndex(p.vm, "/")]),
	}
}

func keyVaultCalls(p places) []kind {
	return []kind{
		{"get secret, of 100000", func(n int) (string, string, string) {
			return "GET", fmt.Sprintf("%s/secrets/s%06d?api-version=7.4", p.keyVault, n*7919%manySecrets), ""
		}},
		{unwrapping, func(int) (string, string, string) {
			return "POST", p.key + "/unwrapkey?api-version=7.4", `{"alg":"RSA-OAEP-256","value":"` + p.wrapped + `"}`
		}},
	}
}

// setUp makes one protected VM with one recovery point, as a person would.
func (s *server) setUp(ctx context.Context) (p places, err error) {
	pass, disk := s.dir+"/bench.pass", s.dir+"-vm0000.img"
	if err := os.WriteFile(pass, []byte("open sesame"), 0o600); err != nil {
		return p, err
	}
	for _, command := range [][]string{
		{"truncate", "-s", "24M", disk},
		{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", pass, disk},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return p, fmt.Errorf("%s: %w\n%s", command[0], err, out)
		}
	}
	var keyVault, vm, vault, item struct {
		ID         string
		Properties struct{ VaultURI string }
	}
	var key struct{ Key struct{ Kid string } }
	var bek, wrapped struct{ ID, Value string }
	var points []struct{ Name string }
	for _, step := range []struct {
		v    any
		args func() []string
	}{
		{nil, words("group create bench")},
		{&keyVault, words("keyvault create bench-" + strconv.Itoa(os.Getpid()))},
		{&key, words("key create kek")},
		{&bek, words("secret set bek --wrap-with kek --bek-file " + pass)},
		{&wrapped, words("secret show bek --show-value")},
		{&vm, func() []string {
			return []string{"vm", "register", "vm0000", "--os-disk", disk, "--encryption-secret", bek.ID, "--encryption-key", key.Key.Kid, "--key-vault", keyVault.ID}
		}},
		{&vault, words("vault create bench --redundancy local")},
		{nil, func() []string { return []string{"keyvault", "grant-backup", keyVault.ID} }},
		{&item, words("item enable vm0000")},
		{nil, words("backup now vm0000")},
		{&points, words("recovery-point list --item vm0000")},
	} {
		if err := s.run(ctx, step.v, step.args()...); err != nil {
			return p, err
		}
	}
	if len(points) != 1 {
		return p, fmt.Errorf("%d recovery points, want one", len(points))
	}
	if _, err := base64.RawURLEncoding.DecodeString(wrapped.Value); err != nil {
		return p, fmt.Errorf("the secret is not wrapped: %w", err)
	}
	return places{item.ID, points[0].Name, vault.ID, vm.ID, strings.TrimSuffix(keyVault.Properties.VaultURI, "/"), key.Key.Kid, wrapped.Value}, nil
}

func words(s string) func() []string { return func() []string { return strings.Fields(s) } }

// vmName is the name of the VM that is set up, in whatever is named after it.
var vmName = regexp.MustCompile(`vm0000`)

func nameOf(n int) string { return fmt.Sprintf("vm%04d", n) }

// multiply makes many of the one VM, item and point, in the database alone: as many backups would take hours, and no call that
// is measured looks at what is stored.
func multiply(ctx context.Context, url, point string) (err error) {
	db, err := database.Open(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.InTx(ctx, func(tx *database.Tx) error {
		names := func(from string, to func(i int) string) func(i int, v string) string {
			return func(i int, v string) string { return strings.ReplaceAll(v, from, to(i)) }
		}
		if err := copyRows(ctx, tx, "recovery_points", manyPoints, names(point, func(i int) string { return strconv.Itoa(1000 + i) })); err != nil {
			return err
		}
		for _, table := range []string{"disks", "virtual_machines", "protected_items", "recovery_points"} {
			if err := copyRows(ctx, tx, table, manyVMs, names(nameOf(0), nameOf)); err != nil {
				return err
			}
		}
		return nil
	})
}

// copyRows makes n of every row of a table, with other names in its texts.
func copyRows(ctx context.Context, tx *database.Tx, table string, n int, rename func(i int, v string) string) error {
	rows, err := tx.QueryContext(ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	columns, err := rows.Columns()
	if err != nil {
		return errors.Join(err, rows.Close())
	}
	var all [][]any
	for rows.Next() {
		values, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		if err := rows.Scan(places...); err != nil {
			return errors.Join(err, rows.Close())
		}
		all = append(all, values)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	marks := make([]string, len(columns))
	for i := range marks {
		marks[i] = "$" + strconv.Itoa(i+1)
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.Join(marks, ", "))
	for i := 1; i < n; i++ {
		for _, values := range all {
			other := slices.Clone(values)
			for c, v := range other {
				if text, ok := v.(string); ok {
					other[c] = rename(i, text)
				}
			}
			if _, err := tx.ExecContext(ctx, insert, other...); err != nil {
				return fmt.Errorf("copy a row of %s: %w", table, err)
			}
		}
	}
	return nil
}

// processorsDo is how often all processors together use a private RSA key of 3072 bits in a second, as openssl measures it.
func processorsDo(ctx context.Context) (perSecond float64, err error) {
	out, err := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-seconds", "3", "-multi", strconv.Itoa(runtime.NumCPU()), "rsa3072").Output()
	if err != nil {
		return 0, fmt.Errorf("openssl speed: %w", err)
	}
	// +F2:index:bits:signatures a second:checks a second
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) >= 5 && fields[0] == "+F2" {
			return strconv.ParseFloat(fields[3], 64)
		}
	}
	return 0, fmt.Errorf("openssl speed said nothing of RSA:\n%s", out)
}
