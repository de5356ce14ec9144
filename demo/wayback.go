package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/client"
)

// The second half of the story: everything is lost (7), and comes back (8, 9).

func (s *story) destroy(ctx context.Context) error {
	if err := s.c.DeleteVM(ctx, s.vm); err != nil {
		return err
	}
	for _, name := range []string{vmName + "-os", vmName + "-data"} {
		if err := s.c.DeleteDisk(ctx, s.c.DiskID(group, name)); err != nil {
			return err
		}
	}
	for _, d := range []*disk{s.os, s.data} {
		if err := os.RemoveAll(d.file); err != nil {
			return fmt.Errorf("remove the disk: %w", err)
		}
	}
	uri := s.keyVault.Properties.VaultURI
	for _, d := range []*disk{s.os, s.data} {
		if err := s.destroyContent(ctx, uri, client.KindSecret, nameIn(d.secretURL)); err != nil {
			return err
		}
	}
	if err := s.destroyContent(ctx, uri, client.KindKey, kekName); err != nil {
		return err
	}
	if err := s.c.DeleteKeyVault(ctx, s.keyVault.ARMID()); err != nil {
		return err
	}
	if err := s.c.PurgeKeyVault(ctx, location, keyVaultName); err != nil {
		return err
	}
	if _, err := s.c.KeyVault(ctx, s.keyVault.ARMID()); !client.IsNotFound(err) {
		return errors.Join(errors.New("the key vault is still there"), err)
	}
	s.fact("nothing is left but the recovery points")
	return nil
}

func (s *story) destroyContent(ctx context.Context, uri string, kind client.Kind, name string) error {
	if err := s.c.DeleteContent(ctx, uri, kind, name); err != nil {
		return err
	}
	return s.c.PurgeContent(ctx, uri, kind, name)
}

// nameIn is the name in the URL of a key or secret: https://…/secrets/{name}/{version}.
func nameIn(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	return parts[max(0, len(parts)-2)]
}

// startRestore asks for the disks of a recovery point in a resource group of their own.
func (s *story) startRestore(ctx context.Context, point int) (string, error) {
	s.storage = s.c.StorageAccountID(group, "demostaging")
	if _, err := s.c.PutStorageAccount(ctx, s.storage, location); err != nil {
		return "", err
	}
	target, err := s.c.PutGroup(ctx, fmt.Sprintf("restored-%d", point+1), location)
	if err != nil {
		return "", err
	}
	return s.c.RestoreDisks(ctx, s.item, s.points[point].Name, client.RestoreRequest{
		TargetGroup: target.ARMID(), StorageAccount: s.storage, Region: location,
	})
}

func (s *story) restoreWithoutKeyVault(ctx context.Context) error {
	_, err := s.startRestore(ctx, 0)
	return s.refused(err, "UserErrorKeyVaultNotFound")
}

func (s *story) restoreWithoutKeys(ctx context.Context) error {
	if err := s.makeKeyVault(ctx); err != nil {
		return err
	}
	if err := s.grant(ctx); err != nil { // a new key vault knows nobody
		return err
	}
	_, err := s.startRestore(ctx, 0)
	return s.refused(err, "UserErrorKeyAndSecretNotFound")
}

func (s *story) restoreKeys(ctx context.Context) error {
	point, err := s.c.RecoveryPoint(ctx, s.item.ARMID(), s.points[0].Name)
	if err != nil {
		return err
	}
	restored, err := s.c.RestoreKeys(ctx, s.keyVault.Properties.VaultURI, point)
	if err != nil {
		return err
	}
	for _, r := range restored {
		s.fact("%s", r.URL)
	}
	if len(restored) != 3 {
		return fmt.Errorf("one key and two secrets were expected, %d came back", len(restored))
	}
	return s.c.AddAccessPolicy(ctx, s.keyVault.ARMID(), client.BackupManagementService, client.AzureBackupTemplate())
}

func (s *story) restoreDisks(ctx context.Context, point int) error {
	job, err := s.startRestore(ctx, point)
	if err != nil {
		return err
	}
	j, err := s.c.WaitJob(ctx, s.vault, job, s.watch)
	if err != nil {
		return err
	}
	s.restored = append(s.restored, s.c.Subscription().Group(fmt.Sprintf("restored-%d", point+1)))
	s.fact("disks    %s", j.Properties.Bag("Restored disk(s)"))
	for _, key := range []string{"Config Blob Uri", "Template Blob Uri"} {
		address := j.Properties.Bag(key)
		blob, err := s.c.Blob(ctx, address)
		if err != nil {
			return fmt.Errorf("%s %q: %w", key, address, err)
		}
		s.fact("%-8s %s (%s)", strings.ToLower(strings.Fields(key)[0]), address, human(int64(len(blob))))
		s.template = blob
	}
	return nil
}

func (s *story) deploy(ctx context.Context) error {
	parameters, err := parametersFor(s.template, map[string]string{"VirtualMachineName": vmName})
	if err != nil {
		return err
	}
	target := s.restored[1].ResourceGroup
	if _, err := s.c.Deploy(ctx, s.c.DeploymentID(target, "bring-back"), s.template, parameters); err != nil {
		return err
	}
	vm, err := s.c.VM(ctx, s.c.VMID(target, vmName))
	if err != nil {
		return err
	}
	profile := vm.Properties.StorageProfile
	if profile.OSDisk.ManagedDisk == nil || len(profile.DataDisks) != 1 || profile.DataDisks[0].ManagedDisk == nil {
		return errors.New("the VM has not the two disks that it had")
	}
	s.fact("%s", vm.ID)
	for _, id := range []string{profile.OSDisk.ManagedDisk.ID, profile.DataDisks[0].ManagedDisk.ID} {
		parsed, err := armid.Parse(id)
		if err != nil {
			return fmt.Errorf("read the VM's disks: %w", err)
		}
		d, err := s.c.Disk(ctx, parsed)
		if err != nil {
			return err
		}
		if d.Properties.EncryptionSettingsCollection == nil {
			return fmt.Errorf("the disk %s has lost its encryption settings", d.Name)
		}
		s.fact("with disk %s", d.Name)
	}
	return nil
}

// parametersFor gives a template what it asks for: the given values, and for whatever else has no
// default its own name.
func parametersFor(template json.RawMessage, given map[string]string) (map[string]any, error) {
	var t struct {
		Parameters map[string]struct {
			Default json.RawMessage `json:"defaultValue"`
		} `json:"parameters"`
	}
	if err := json.Unmarshal(template, &t); err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	values := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		if value, ok := given[name]; ok {
			values[name] = value
		} else if t.Parameters[name].Default == nil {
			values[name] = strings.ToLower(name)
		}
	}
	return values, nil
}

// restoredFiles returns the image files of the disks that a restore left in a group, by sha256 of what a
// VM sees on them.
func (s *story) restoredFiles(ctx context.Context, group armid.ID) (map[string]string, error) {
	disks, err := s.c.Disks(ctx, group)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, d := range disks {
		source, err := url.Parse(d.Properties.CreationData.SourceURI)
		if err != nil || source.Scheme != "file" {
			return nil, fmt.Errorf("the disk %s does not say where its image is: %q", d.Name, d.Properties.CreationData.SourceURI)
		}
		sha, _, err := hashImage(ctx, s.dir, filepath.FromSlash(source.Path))
		if err != nil {
			return nil, err
		}
		files[sha] = source.Path
	}
	return files, nil
}

func (s *story) compareDisks(ctx context.Context) error {
	for i, group := range s.restored {
		files, err := s.restoredFiles(ctx, group)
		if err != nil {
			return err
		}
		for _, d := range []*disk{s.os, s.data} {
			if _, ok := files[d.sha[i]]; !ok {
				return fmt.Errorf("no disk of %s is what disk %s was at backup %d", group.ResourceGroup, d.name, i+1)
			}
			s.fact("point %d, %-5s sha256 %s", i+1, d.name, d.sha[i])
		}
	}
	return nil
}

func (s *story) compareFiles(ctx context.Context) error {
	for i, group := range s.restored {
		files, err := s.restoredFiles(ctx, group)
		if err != nil {
			return err
		}
		for _, d := range []*disk{s.os, s.data} {
			// The key comes from the key vault, as it does for a guest that boots.
			key, err := s.c.BEKValue(ctx, s.keyVault.Properties.VaultURI, nameIn(d.secretURL))
			if err != nil {
				return err
			}
			names, want := []string{letterFile}, []string{d.letter}
			if d.ledgerSize > 0 {
				names, want = append(names, ledgerFile), append(want, d.ledger[i])
			}
			got, err := hashFilesWithin(ctx, s.dir, files[d.sha[i]], key, names...)
			if err != nil {
				return err
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("files on disk %s of recovery point %d are not what they were", d.name, i+1)
			}
			s.fact("point %d, %-5s %s", i+1, d.name, strings.Join(names, ", "))
		}
	}
	return nil
}
