package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	"kluis/internal/api/authorization"
	"kluis/internal/api/blob"
	"kluis/internal/api/compute"
	"kluis/internal/api/graph"
	"kluis/internal/api/keyvault"
	"kluis/internal/api/login"
	"kluis/internal/api/principals"
	"kluis/internal/api/recoveryservices"
	"kluis/internal/api/resources"
	"kluis/internal/armid"
	"kluis/internal/backup"
	computes "kluis/internal/compute"
	"kluis/internal/deployment"
	"kluis/internal/fabric/image"
	"kluis/internal/problem"
	documents "kluis/internal/resources"
)

// doors is everything that answers on the listener: key vaults and storage accounts have hosts of their
// own (and a path, for places where those names don't resolve), tokens have their paths, and the rest is
// Resource Manager.
func (p *parts) doors(c config, host string) (http.Handler, error) {
	linkKey := make([]byte, 32)
	_, _ = rand.Read(linkKey) // it never fails
	vaultSuffix := "vault." + host
	takes := p.audiencesOf(c, host)
	manager, err := arm.NewRouter(arm.RouterOptions{
		Authenticate:     login.Authenticate(p.identity, takes.forManagement),
		AuthorizationURI: func(*http.Request) string { return p.base + "/" + p.install.TenantID },
		Logger:           p.log, NewID: uuid.NewString, Now: time.Now, LinkKey: linkKey, Limits: c.limits(),
		InSubscription: p.resources.InSubscription, GroupExists: p.resources.GroupExists,
	}, resources.Providers(p.resources, p.deployments, p.storage, compute.Provider(p.compute, p.backup), compute.Classic(), keyvault.Provider(p.keyvault),
		recoveryservices.Provider(p.backup, recoveryservices.Options{Now: time.Now, NewID: uuid.NewString}), principals.Provider(p.identity.Directory()),
		authorization.Provider(p.identity))...)
	if err != nil {
		return nil, err
	}
	p.routes = manager.Routes()
	vaults := keyvault.DataPlane(p.keyvault, keyvault.Options{
		Authenticate: func(ctx context.Context, r *http.Request, _ string) (context.Context, error) {
			return login.Authenticate(p.identity, takes.forKeyVaults)(ctx, r)
		},
		Authority: p.base + "/" + p.install.TenantID, Suffix: vaultSuffix, Logger: p.log, NewID: uuid.NewString})
	blobs := blob.Handler(p.storage, blob.Options{
		Authenticate: login.Authenticate(p.identity, takes.forStorage),
		Authority:    p.base + "/" + p.install.TenantID, Suffix: "blob." + p.domain, Disks: p.compute, Now: time.Now, NewID: uuid.NewString, Logger: p.log})
	tokens := login.Handler(p.identity, login.Options{Bases: takes.bases, Takes: takes.has, ARMAudience: p.base, KeyVaultDNS: vaultSuffix, StorageDNS: host,
		Now: time.Now, NewID: uuid.NewString, Logger: p.log})
	directory := graph.Handler(p.identity, graph.Options{Authenticate: login.Authenticate(p.identity, takes.forManagement), Logger: p.log})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case below(r.Host, "vault."+p.domain) || strings.HasPrefix(r.URL.Path, "/keyvault/"):
			vaults.ServeHTTP(w, r)
		case below(r.Host, "blob."+p.domain) || strings.HasPrefix(r.URL.Path, "/blob/"):
			blobs.ServeHTTP(w, r)
		case login.Owns(r.URL.Path):
			tokens.ServeHTTP(w, r)
		case graph.Owns(r.URL.Path):
			directory.ServeHTTP(w, r)
		default:
			manager.ServeHTTP(w, r)
		}
	}), nil
}

// limits leave room for whoever scripts against the server, and stop a loop that went wrong.
func (c config) limits() arm.Limits {
	if c.Requests == 0 {
		return arm.Limits{}
	}
	changes := max(1, c.Requests/5)
	return arm.Limits{Reads: c.Requests, Writes: changes, Deletes: changes}
}

func portOf(host string) string {
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		return ""
	}
	return ":" + port
}

// below reports whether a Host header names something below a domain, whatever its port.
func below(host, domain string) bool {
	return strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, portOf(host))), "."+domain)
}

// newDeployments ties each type that a template may create to the service that creates it.
func (p *parts) newDeployments() *deployment.Service {
	deployers := map[string]deployment.Deployer{
		"Microsoft.Compute/virtualMachines": func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			vm, err := decode[computes.VM](id, body)
			if err == nil {
				vm.ID = id
				_, _, err = p.compute.PutVM(ctx, vm)
			}
			return err
		},
		"Microsoft.Compute/disks": func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			disk, err := decode[computes.Disk](id, body)
			if err == nil {
				disk.ID = id
				disk, _, err = p.compute.PutDisk(ctx, disk)
			}
			return p.awaitCopy(ctx, disk.Operation(), err)
		},
		"Microsoft.Compute/snapshots": func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			snapshot, err := decode[computes.Snapshot](id, body)
			if err == nil {
				snapshot.ID = id
				snapshot, _, err = p.compute.PutSnapshot(ctx, snapshot)
			}
			return p.awaitCopy(ctx, snapshot.Operation(), err)
		},
	}
	for _, typ := range documents.DocumentTypes {
		deployers[typ] = func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			_, _, err := p.resources.PutDocument(ctx, id, body)
			return err
		}
	}
	for _, typ := range documents.PartTypes {
		deployers[typ] = func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			_, _, err := p.resources.PutPart(ctx, id, body)
			return err
		}
	}
	return deployment.New(deployment.Options{DB: p.db, Authorizer: p.identity, TenantID: p.install.TenantID, Deployers: deployers,
		GroupLocation: func(ctx context.Context, group string) (string, error) {
			g, err := p.resources.Group(ctx, group)
			return g.Location, err
		},
		Fetch: p.readOwnBlob, Now: time.Now, NewID: uuid.NewString, Logger: p.log})
}

// awaitCopy waits for a disk or snapshot that takes its time: what depends on it in a template comes after it.
func (p *parts) awaitCopy(ctx context.Context, operation string, err error) error {
	if err != nil || operation == "" {
		return err
	}
	return p.compute.Await(ctx, operation)
}

func decode[T any](id armid.ID, body json.RawMessage) (v T, err error) {
	if err := json.Unmarshal(body, &v); err != nil {
		return v, problem.New(problem.Invalid, "InvalidRequestContent", "The body of %s cannot be read: %v.", id.Name(), err).
			WithTarget(id.String()).WithAdvice("Correct the resource in the template.")
	}
	return v, nil
}

// readOwnBlob reads a template that lies in a storage account of this server, as the caller. Other places
// are never asked: a server must not fetch what a stranger names.
func (p *parts) readOwnBlob(ctx context.Context, uri string) ([]byte, error) {
	account, container, name, ok := p.storage.ParseURL(uri)
	if !ok {
		return nil, problem.New(problem.Invalid, "InvalidContentLink", "%.200q is not the URL of a blob of this server.", uri).
			WithAdvice("Upload the template into a storage account here, or send it in the request.")
	}
	blob, data, err := p.storage.ReadBlob(ctx, account, container, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = data.Close() }()
	if blob.Size > arm.MaxBody {
		return nil, problem.New(problem.Invalid, "InvalidContentLink", "The template %.200q has more than %d bytes.", uri, arm.MaxBody).WithAdvice("Use a smaller template.")
	}
	return io.ReadAll(data)
}

// imageFabric gives the fabric of image files the shape that the backup service asks for.
type imageFabric struct{ *image.Fabric }

// NewDisk implements backup.Fabric.
func (f imageFabric) NewDisk(ctx context.Context, dir, name string, size, data int64) (backup.NewDisk, error) {
	d, err := f.NewSparseDisk(ctx, dir, name, size, data)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// imageFiles does the same for the compute service.
type imageFiles struct{ *image.Fabric }

// Inspect implements compute.Images.
func (f imageFiles) Inspect(ctx context.Context, path string) (computes.Image, error) {
	i, err := f.Fabric.Inspect(ctx, path)
	return computes.Image{Path: i.Path, Format: i.Format, Size: i.Size}, err
}
