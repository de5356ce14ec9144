package compute_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// switchboard notes what is asked of hosts, and of the key vault, and fails as it is told.
type switchboard struct {
	asked []string
	fail  error // of the host
	shut  error // of the key vault
	given []secret.Bytes
	specs []fabric.MachineSpec
	stuck string // the only call that fails; empty: all do
}

func (s *switchboard) note(what, host, uuid string, keys []fabric.KeyFile) error {
	for _, k := range keys {
		what += " " + k.Name + "=" + string(k.Key.Reveal())
	}
	s.asked = append(s.asked, what+" "+host+"/"+uuid[:4])
	if !strings.HasPrefix(what, s.stuck) {
		return nil
	}
	return s.fail
}

func (s *switchboard) Define(_ context.Context, host string, spec fabric.MachineSpec) (m fabric.Machine, err error) {
	s.specs = append(s.specs, spec)
	m = fabric.Machine{UUID: spec.UUID, Name: spec.Name, State: fabric.Stopped, Definition: []byte("<domain/>")}
	for i, d := range spec.Disks {
		m.Disks = append(m.Disks, fabric.MachineDisk{Target: "vd" + string(rune('a'+i)), Path: d.Path, Format: d.Format, Size: d.ExpectedSize})
	}
	return m, s.note("define", host, spec.UUID, nil)
}

func (s *switchboard) Undefine(_ context.Context, host, uuid string) error {
	return s.note("undefine", host, uuid, nil)
}

func (s *switchboard) NetworkOf(_ context.Context, nic armid.ID) (string, error) {
	return "net-of-" + nic.Name(), nil
}

func (s *switchboard) Start(_ context.Context, host, uuid string, keys []fabric.KeyFile) error {
	return s.note("start", host, uuid, keys)
}
func (s *switchboard) Rekey(_ context.Context, host, uuid string, keys []fabric.KeyFile) error {
	return s.note("rekey", host, uuid, keys)
}
func (s *switchboard) Stop(_ context.Context, host, uuid string) error {
	return s.note("stop", host, uuid, nil)
}
func (s *switchboard) Destroy(_ context.Context, host, uuid string) error {
	return s.note("destroy", host, uuid, nil)
}

func (s *switchboard) DiskKey(_ context.Context, secretURL, _ string) (string, secret.Bytes, error) {
	if s.shut != nil {
		return "", secret.Bytes{}, s.shut
	}
	_, name, _ := strings.Cut(secretURL, "/secrets/")
	key := secret.New([]byte("key-" + strings.Split(name, "/")[0]))
	s.given = append(s.given, key)
	return "", key, nil
}

func (s *switchboard) did(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("asked of the host (-want +got):\n%s", diff)
	}
	s.asked = nil
	for _, k := range s.given {
		if k.Len() != 0 && slices.ContainsFunc(k.Reveal(), func(b byte) bool { return b != 0 }) {
			t.Error("a key was not wiped")
		}
	}
}

func (h *host) encrypt(disk, secretName string) {
	h.t.Helper()
	settings := `{"properties":{"encryptionSettingsCollection":{"enabled":true,"encryptionSettings":[{"diskEncryptionKey":{
		"secretUrl":"https://kv.vault.localhost/secrets/` + secretName + `/1","sourceVault":{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/kv"}}}]}}}`
	if _, err := h.ChangeDisk(h.t.Context(), subscription.Group("lab").Resource(compute.DiskType, disk), json.RawMessage(settings)); err != nil {
		h.t.Fatal(err)
	}
}

// What is asked of a VM's power is done on its host, with the keys of its disks where it starts, and shown at once.
func TestPower(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		m := machine(uuidOne, "web", "vda", "vdb", "vdc")
		m.State = fabric.Stopped
		h.discover("lab", m)
		h.encrypt("web-vda", "os")
		h.encrypt("web-vdc", "data")
		id := onHost("lab", "web")
		state := func(want string) {
			t.Helper()
			if got := h.mustView(id).Statuses[1].Code; got != "PowerState/"+want {
				t.Errorf("the VM is %s, want %s", got, want)
			}
		}
		const start = "start LinuxPassPhraseFileName=key-os LinuxPassPhraseFileName_1_1=key-data lab/1fa8"
		for _, step := range []struct {
			do    func() error
			want  []string
			state string
		}{
			{func() error { return h.Run(ctx, id, "start") }, []string{start}, "running"},
			{func() error { return h.Run(ctx, id, "start") }, nil, "running"},
			{func() error { return h.Run(ctx, id, "restart") }, []string{"stop lab/1fa8", start}, "running"},
			{func() error { return h.Stop(ctx, id, "powerOff", false) }, []string{"stop lab/1fa8"}, "stopped"},
			{func() error { return h.Run(ctx, id, "start") }, []string{start}, "running"},
			{func() error { return h.Stop(ctx, id, "powerOff", true) }, []string{"destroy lab/1fa8"}, "stopped"},
			{func() error { return h.Stop(ctx, id, "deallocate", false) }, []string{"stop lab/1fa8"}, "deallocated"},
		} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			h.board.did(t, step.want...)
			state(step.state)
		}
		h.discover("lab", m)
		state("deallocated")
		h.Rebooted(ctx, "lab", uuidOne)
		h.board.did(t, "rekey LinuxPassPhraseFileName=key-os LinuxPassPhraseFileName_1_1=key-data lab/1fa8")
		h.Rebooted(ctx, "lab", uuidTwo)
		wantProblem(t, h.Run(ctx, id, "redeploy"), problem.Unsupported, "OperationNotSupported")
		h.board.did(t)
	})
}

// A VM whose keys cannot be had is neither started nor, for a restart, stopped; a host that says no is quoted.
func TestPowerRefused(t *testing.T) {
	h, ctx := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")), t.Context()
	h.discover("lab", machine(uuidOne, "web", "vda"))
	h.encrypt("web-vda", "os")
	id := onHost("lab", "web")
	denied := problem.New(problem.Denied, "Forbidden", "The key vault is not enabled.").WithAdvice("Enable it.")
	denied.Details = []*problem.Error{{Code: "AccessDenied"}}
	for err, code := range map[error]string{denied: "AccessDenied", errors.New("the key doesn't unwrap the value"): "KeyVaultSecretUnwrapFailed"} {
		h.board.shut = err
		got := h.Run(ctx, id, "restart")
		wantProblem(t, got, problem.Conflict, code)
		if !strings.Contains(got.Error(), "web-vda") {
			t.Errorf("which disk: %v", got)
		}
	}
	h.board.shut = nil
	h.board.did(t)
	for kind, want := range map[fabric.HostKind]struct {
		kind problem.Kind
		code string
	}{fabric.Away: {problem.Unavailable, "HostUnavailable"}, fabric.Gone: {problem.NotFound, "ResourceNotFound"}, fabric.Refused: {problem.Conflict, "HostRefused"}} {
		h.board.fail = &fabric.HostError{Host: "lab", Kind: kind, Err: errors.New("no")}
		wantProblem(t, h.Stop(ctx, id, "powerOff", false), want.kind, want.code)
	}
	h.board.fail = nil
	h.discover("left", machine(uuidTwo, "old", "vda"))
	wantProblem(t, h.Run(ctx, onHost("left", "old"), "start"), problem.Conflict, "HostNotConfigured")
}
