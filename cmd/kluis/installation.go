package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"kluis/internal/identity"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

// installation is what makes this server itself and never changes: the ids under which its resources
// are known to clients.
type installation struct {
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
}

const installationFile = "installation.json"

// checkSeal refuses a data folder that has lost its root key. The root key is made before the installation, so
// the one without the other is no first start, and a new root key would open nothing.
func checkSeal(dir string) error {
	_, installed := os.Stat(filepath.Join(dir, installationFile))
	root := filepath.Join(dir, "seal", seal.RootFile)
	if _, err := os.Stat(root); installed == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the root key %s is missing, and without it nothing that is sealed can be opened; put the folder back from your copy", root)
	}
	return nil
}

// openInstallation reads the ids, or makes them at the first start.
func openInstallation(dir string) (i installation, err error) {
	path := filepath.Join(dir, installationFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		i = installation{uuid.NewString(), uuid.NewString()}
		return i, writeJSON(path, i)
	}
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(text, &i); err != nil {
		return i, fmt.Errorf("read %s: %w", path, err)
	}
	return i, nil
}

// admin is what the first principal needs to use the server: the CLI, the demo and tests read it.
type admin struct {
	Endpoint       string `json:"endpoint"`
	CAFile         string `json:"caFile"`
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
	ClientID       string `json:"clientId"`
	ClientSecret   string `json:"clientSecret"`
}

// writeAdmin makes sure that admin.json holds credentials that work. The secret is stored only as a
// hash, so when the file is missing (a first start that was killed, or a lost file) a new one is made.
func writeAdmin(ctx context.Context, path string, a admin, service *identity.Service) error {
	p, clientSecret, created, err := service.Bootstrap(ctx, "admin")
	if err != nil {
		return err
	}
	old, err := readAdmin(path)
	switch {
	case err == nil && (old.ClientID != p.AppID || old.TenantID != a.TenantID):
		return fmt.Errorf("%s holds the credentials of another installation: does --database name the database that this data folder was used with? "+
			"If a new one is meant, remove the file and start again to get new credentials", path)
	case err == nil && !created:
		clientSecret = secret.New([]byte(old.ClientSecret))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case !created:
		if clientSecret, err = service.NewSecret(ctx, p.AppID); err != nil {
			return err
		}
	}
	a.ClientID, a.ClientSecret = p.AppID, string(clientSecret.Reveal())
	if a == old {
		return nil
	}
	return writeJSON(path, a)
}

func readAdmin(path string) (a admin, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("read %s: %w; remove the file and start again to get new credentials", path, err)
	}
	return a, nil
}

// writeJSON replaces a file, readable by its owner only, whole or not at all.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
