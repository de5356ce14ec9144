package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/certificate"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/deployment"
	"kluis/internal/fabric/image"
	"kluis/internal/identity"
	"kluis/internal/issuer"
	"kluis/internal/job"
	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/objects"
	"kluis/internal/problem"
	"kluis/internal/resources"
	"kluis/internal/seal"
	"kluis/internal/storage"
)

// How long a stopping server waits for requests in flight, and a worker for its next sign of life.
const (
	drainTime = 10 * time.Second
	lease     = 30 * time.Second
)

// copiers is how many disks are copied at once, beside backups and restores.
const copiers = 2

// serve runs the server until ctx ends.
func serve(ctx context.Context, c config, log *slog.Logger, out io.Writer) (err error) {
	syscall.Umask(0o077) // whatever this process writes is its own
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	locked, err := lock(ctx, filepath.Join(c.Data, "lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locked.Close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.Listen, err)
	}
	defer func() { _ = listener.Close() }() // closed already when the server ran
	p, err := build(ctx, c, listener.Addr(), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()

	runner, err := job.StartRunner(ctx, p.jobs, job.Options{Node: c.Node, Workers: c.Workers, Lease: lease, Now: time.Now, Log: log}, p.backup.Works()...)
	if err != nil {
		return err
	}
	defer runner.Stop()
	chores, err := job.StartRunner(ctx, p.jobs, job.Options{Node: c.Node, Workers: 1, Lease: lease, Now: time.Now, Log: log}, p.backup.Chores()...)
	if err != nil {
		return err
	}
	defer chores.Stop()
	copies, err := job.StartRunner(ctx, p.jobs, job.Options{Node: c.Node, Workers: copiers, Lease: lease, Now: time.Now, Log: log}, p.compute.Works()...)
	if err != nil {
		return err
	}
	defer copies.Stop()
	scheduling, stopScheduling := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { p.backup.RunSchedule(scheduling) })
	background.Go(func() { p.keepHouse(scheduling) })
	background.Go(func() { p.hosts.watch(scheduling, p.compute) })
	defer func() { stopScheduling(); background.Wait() }()

	server := &http.Server{Handler: p.door, TLSConfig: p.tls, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	if _, err := fmt.Fprintf(out, "certificate authority %s\ncredentials %s\nready %s\n", p.caFile, filepath.Join(c.Data, adminFile), p.base); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}

// openRoot opens the root key, from wherever it is to be opened.
func (c config) openRoot(ctx context.Context, outside *keyservice.Services, log *slog.Logger) (*seal.Root, error) {
	o := seal.Options{Rand: rand.Reader, Identity: c.SealIdentity, Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), Outside: keyservice.Bound{Services: outside, Context: ctx}}
	if c.SealPassphrase != "" {
		var err error
		if o.Passphrase, err = seal.ReadPassphrase(c.SealPassphrase); err != nil {
			return nil, err
		}
		defer o.Passphrase.Wipe()
	}
	root, created, err := seal.OpenOrCreate(filepath.Join(c.Data, "seal"), o)
	if created {
		log.Warn("a root key was made; write a recovery kit and keep it in a safe place: without it nothing that is sealed can be opened",
			"command", "kluis recovery-kit --data "+c.Data+" --out FILE")
	}
	return root, err
}

// keepHouse does, every hour, what is nobody's request: it lets go of what has been in soft delete for its time, and of
// blocks that were uploaded and never committed, of exports, and of grants that have expired; it rotates the keys whose policy says so, and those that sign tokens.
// When the root key was rotated, or its recipients have changed, it seals
// and wraps anew, at once; what a server that was killed had left of that is done at the start.
func (p *parts) keepHouse(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := p.keyvault.PurgeExpired(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("purge expired keys and secrets", "error", err)
		}
		if err := p.keyvault.RotateDue(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("rotate keys by their policies", "error", err)
		}
		if err := p.identity.KeepKeys(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("keep the signing keys of tokens", "error", err)
		}
		if err := p.reseal(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("seal anew under the present root key", "error", err)
		}
		if err := p.storage.DropPending(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("drop blocks that were never committed", "error", err)
		}
		if err := p.storage.DropPublished(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("drop exports that have expired", "error", err)
		}
		if err := p.compute.DropExpired(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("forget grants of access to disks that have expired", "error", err)
		}
		n, err := p.backup.Rewrap(ctx)
		if n > 0 {
			p.log.Info("wrapped the keys of recovery stores for the present recipients", "stores", n)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Error("wrap the keys of recovery stores for the present recipients", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.keyvault.RootRotated():
		case <-tick.C:
		}
	}
}

// reseal brings under the present root key what is sealed under an older one.
func (p *parts) reseal(ctx context.Context) error {
	if err := p.keepRoot(ctx); err != nil {
		return err
	}
	n, err := p.keyvault.Reseal(ctx)
	if n > 0 {
		p.log.Info("sealed anew under the present root key", "versions", n)
	}
	keys, keysErr := p.storage.Reseal(ctx, p.root.Mark())
	if keys > 0 {
		p.log.Info("sealed anew under the present root key", "storage account keys", keys)
	}
	accesses, accessErr := p.compute.Reseal(ctx, p.root.Mark())
	if accesses > 0 {
		p.log.Info("sealed anew under the present root key", "grants of access to disks", accesses)
	}
	return errors.Join(err, keysErr, accessErr, p.identity.Reseal(ctx, p.root, p.root.Mark()))
}

// keepRoot leaves a copy of the wrapped root keys in the recovery store, one for each set of roots and recipients. A
// recovery kit from before a rotation then still opens everything: it has an identity, and the newest roots lie here.
func (p *parts) keepRoot(ctx context.Context) error {
	wrapped, err := p.root.Wrapped()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.Join(p.root.Recipients(), " ")))
	name := fmt.Sprintf("seal/%x-%x.age", p.root.Mark()[1:], sum[:8])
	if err := p.store.Put(ctx, name, int64(len(wrapped)), bytes.NewReader(wrapped)); err != nil && !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("keep a copy of the root keys in the recovery store: %w", err)
	}
	return nil
}

const adminFile = "admin.json"

// build makes every part and ties them together.
func build(ctx context.Context, c config, address net.Addr, log *slog.Logger) (_ *parts, err error) {
	p := &parts{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return nil, err
	}
	host := net.JoinHostPort(c.Domain, port)
	p.base, p.domain = "https://"+host, c.Domain
	if err := checkSeal(c.Data); err != nil {
		return nil, err
	}
	if p.outside, err = keyservice.Open(c.KeyServices, keyservice.Options{}); err != nil {
		return nil, err
	}
	if p.root, err = c.openRoot(ctx, p.outside, log); err != nil {
		return nil, err
	}
	if p.install, err = openInstallation(c.Data); err != nil {
		return nil, err
	}
	var ips []net.IP
	for _, listen := range []string{c.Listen, c.Export} {
		if ip := ipOf(listen); ip != nil && !ip.IsUnspecified() {
			ips = append(ips, ip)
		}
	}
	if p.tls, p.caFile, err = certificate.Ensure(filepath.Join(c.Data, "tls"), certificate.Options{Domain: c.Domain, IPs: ips, Now: time.Now, Rand: rand.Reader}); err != nil {
		return nil, err
	}
	if c.Export != exportNothing {
		if p.exports, err = newExports(c, p.tls, p.caFile, log); err != nil {
			return nil, err
		}
	}
	if p.db, err = database.Open(ctx, c.Database); err != nil {
		return nil, err
	}
	if err := p.buildServices(ctx, c, host); err != nil {
		return nil, err
	}
	if p.door, err = p.doors(c, host); err != nil {
		return nil, err
	}
	return p, writeAdmin(ctx, filepath.Join(c.Data, adminFile), admin{Endpoint: p.base, CAFile: p.caFile,
		TenantID: p.install.TenantID, SubscriptionID: p.install.SubscriptionID}, p.identity)
}

// ipOf is the IP address that a listener is to have; nil if it is a name.
func ipOf(listen string) net.IP {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil
	}
	return net.ParseIP(host)
}

// parts are the services of a running server.
type parts struct {
	log     *slog.Logger
	base    string // https://localhost:8443
	domain  string
	install installation
	root    *seal.Root
	outside *keyservice.Services
	issuer  *issuer.Issuer // whose tokens are believed beside our own; nil: nobody's

	tls     *tls.Config
	caFile  string
	exports *exports // nil: nothing is served
	db      *database.DB
	hosts   hosts
	store   store
	jobs    *job.Queue
	door    http.Handler
	routes  []arm.Route // those of Resource Manager behind the door

	identity    *identity.Service
	resources   *resources.Service
	storage     *storage.Service
	keyvault    *keyvault.Service
	compute     *compute.Service
	backup      *backup.Service
	deployments *deployment.Service
}

func (p *parts) buildServices(ctx context.Context, c config, host string) (err error) {
	if p.issuer, err = c.Outside.open(); err != nil {
		return err
	}
	if p.identity, err = identity.New(ctx, identity.Options{DB: p.db, TenantID: p.install.TenantID, SubscriptionID: p.install.SubscriptionID,
		Issuer: p.base, Now: time.Now, Rand: rand.Reader, Seal: p.root, Outside: believed(p.issuer), OutsideAudiences: c.Outside.Audience}); err != nil {
		return err
	}
	p.resources = resources.New(resources.Options{DB: p.db, Authorizer: p.identity, TenantID: p.install.TenantID,
		SubscriptionID: p.install.SubscriptionID, SubscriptionName: "Kluis", Locations: c.Locations, Now: time.Now})
	if p.keyvault, err = keyvault.New(keyvault.Options{DB: p.db, Seal: p.root, Root: p.root, Authorizer: p.identity, Roles: p.identity, Groups: p.resources, DNSSuffix: "vault." + host,
		TenantID: p.install.TenantID, Issuer: p.identity.Issuer(), Now: time.Now, Rand: rand.Reader}); err != nil {
		return err
	}
	images, err := image.New(image.Options{Allow: c.AllowImages, RestoreDir: c.RestoreDir, SocketDir: filepath.Join(c.Data, "run"), Logger: p.log})
	if err != nil {
		return err
	}
	if p.hosts, err = c.openHosts(p.log); err != nil {
		return err
	}
	if p.store, err = openStore(ctx, c.Store); err != nil {
		return err
	}
	p.storage = storage.New(storage.Options{DB: p.db, Authorizer: p.identity, Groups: p.resources, Principals: signers{p.identity}, DNSSuffix: "blob." + host,
		Bucket: objects.Prefix(p.store, "blobs/"), Seal: p.root, Rand: rand.Reader, Now: time.Now, NewID: uuid.NewString})
	p.jobs = job.NewQueue(p.db, time.Now, uuid.NewString)
	p.compute = compute.New(compute.Options{DB: p.db, Authorizer: p.identity, Groups: p.resources, Images: imageFiles{images}, Jobs: p.jobs,
		Seal: p.root, Rand: rand.Reader, BlobSuffix: "blob." + host, Now: time.Now, NewID: uuid.NewString, Log: p.log,
		HostNames: p.hosts.names(), Hosts: p.hosts, Networks: nics{p.resources}, DiskKeys: diskKeys{p.keyvault, p.outside}, HostGroups: hostGroups{p.resources, c.HostLocation}, Subscription: armid.Subscription(p.install.SubscriptionID)})
	var served backup.Exports
	if p.exports != nil {
		served = p.exports
	}
	rate, err := c.backupRate()
	if err != nil {
		return err
	}
	if p.backup, err = backup.Open(ctx, backup.Options{DB: p.db, Jobs: p.jobs, Bucket: p.store, Node: c.Node, Cache: filepath.Join(c.Data, "cache"), Wrapper: p.root, Authorizer: p.identity,
		Machines: p.compute, Fabric: hostFabric{imageFabric{images}, p.hosts}, Keys: p.keyvault, Outside: p.outside, Artifacts: p.storage, Groups: p.resources, Principals: vaultPrincipals{p.identity}, Exports: served, Rate: rate,
		AsService: func(ctx context.Context) context.Context { return identity.With(ctx, p.service()) }, ServiceObject: p.service().ObjectID,
		Correlation: identity.Correlation, Now: time.Now, NewID: uuid.NewString, Rand: rand.Reader, Log: p.log}); err != nil {
		return err
	}
	p.resources.Occupy(p.keyvault, p.compute, p.storage, p.backup)
	p.deployments = p.newDeployments()
	return nil
}

// vaultPrincipals are the identities of Recovery Services vaults: principals whose secret nobody gets.
type vaultPrincipals struct{ *identity.Service }

// MakePrincipal implements backup.Principals.
func (v vaultPrincipals) MakePrincipal(ctx context.Context, name string) (objectID, tenantID string, err error) {
	p, unused, err := v.CreatePrincipal(ctx, name)
	unused.Wipe()
	return p.ObjectID, p.TenantID, err
}

// DropPrincipal implements backup.Principals.
func (v vaultPrincipals) DropPrincipal(ctx context.Context, objectID string) error {
	return v.DeletePrincipal(ctx, objectID)
}

// signers are the principals who sign for others with keys of storage accounts that are delegated to them.
type signers struct{ *identity.Service }

// Caller implements storage.Principals.
func (signers) Caller(ctx context.Context) (objectID, tenantID string, ok bool) {
	p, ok := identity.From(ctx)
	return p.ObjectID, p.TenantID, ok
}

// As implements storage.Principals.
func (s signers) As(ctx context.Context, objectID string) (context.Context, error) {
	p, err := s.Principal(ctx, objectID)
	if err == nil && (p.ObjectID != objectID || p.Disabled) {
		err = problem.New(problem.NotFound, "PrincipalNotFound", "The principal %s is not there, or may do nothing.", objectID).WithAdvice("Sign as another principal.")
	}
	return identity.With(ctx, p), err
}

// service is the principal Backup Management Service in this tenant.
func (p *parts) service() identity.Principal {
	s := identity.BackupManagementService
	s.TenantID = p.install.TenantID
	return s
}

func (p *parts) close() error {
	var errs []error
	if p.backup != nil {
		errs = append(errs, p.backup.Close())
	}
	if p.exports != nil {
		errs = append(errs, p.exports.Close())
	}
	if p.compute != nil {
		errs = append(errs, p.compute.Close(context.Background()))
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.issuer != nil {
		p.issuer.Close()
	}
	if p.db != nil {
		errs = append(errs, p.db.Close())
	}
	errs = append(errs, p.hosts.close())
	return errors.Join(errs...)
}
