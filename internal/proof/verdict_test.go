package proof_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kluis/internal/proof"
	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

func unzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVerdict looks at recovery points of several disks.
func TestVerdict(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	plain := fileSystem(t)
	content := read(t, plain)
	os1 := encrypted(t, plain, "key of os", volumetest.Options{Version: 1})
	data := encrypted(t, plain, "key of data", volumetest.Options{Version: 2})
	unexpected := func(d proof.Disk) proof.Disk {
		d.ExpectEncrypted = false
		return d
	}
	for _, test := range []struct {
		name   string
		disks  []proof.Disk
		want   proof.State
		states string
		reason []string
	}{
		{"two disks", []proof.Disk{disk("os", os1, "key of os"), disk("data", data, "key of data")}, proof.Proved, "proved proved", nil},
		{"swapped keys", []proof.Disk{disk("os", os1, "key of data"), disk("data", data, "key of os")}, proof.Failed, "failed failed",
			[]string{"disk os: the key in the recovery point opens none of the key slots", "disk data: the key in the recovery point opens none"}},
		{"one swapped", []proof.Disk{disk("os", os1, "key of os"), disk("data", os1, "key of data")}, proof.Failed, "proved failed", []string{"disk data: "}},
		{"a plain disk beside", []proof.Disk{disk("os", os1, "key of os"), unexpected(disk("data", content, ""))}, proof.Proved, "proved notEncrypted", nil},
		{"plain", []proof.Disk{unexpected(disk("os", content, ""))}, proof.NotEncrypted, "notEncrypted", nil},
		{"empty", []proof.Disk{unexpected(disk("os", make([]byte, 1<<20), ""))}, proof.NotEncrypted, "notEncrypted", nil},
		{"encrypted although the settings don't say so", []proof.Disk{unexpected(disk("os", os1, "key of os"))}, proof.Proved, "proved", nil},
		{"no disks", nil, proof.Failed, "", []string{"the recovery point has no disk"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := prove(t, test.disks...)
			var states []string
			for _, d := range v.Disks {
				states = append(states, string(d.State))
			}
			if got := strings.Join(states, " "); v.State != test.want || got != test.states || !v.Time.Equal(now()) {
				t.Errorf("the verdict is %+v", v)
			}
			if (v.Reason == "") != (test.want != proof.Failed) || (v.Advice == "") != (v.Reason == "") {
				t.Errorf("reason %q, advice %q", v.Reason, v.Advice)
			}
			for _, reason := range test.reason {
				if !strings.Contains(v.Reason, reason) {
					t.Errorf("the reason is %q, without %q", v.Reason, reason)
				}
			}
		})
	}
}

// TestInside puts other things than a file system into a volume.
func TestInside(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	ext4 := read(t, fileSystem(t))
	sample := func(name string, size int) []byte {
		b := make([]byte, size)
		copy(b, unzip(t, filepath.Join("../volume/filesystem/testdata", name+".gz")))
		return b
	}
	table := unzip(t, "../volume/testdata/gpt.gz")
	partitioned := bytes.Clone(table)
	copy(partitioned[4096*512:], ext4)
	nested := bytes.Clone(table)
	copy(nested[4096*512:], "LUKS\xba\xbe\x00\x01")
	for _, test := range []struct {
		name    string
		content []byte
		want    proof.State
		system  string
	}{
		{"swap", sample("swap", 1<<20), proof.Proved, "swap"},
		{"LVM", sample("lvm", 64<<20), proof.Proved, "lvm"},
		{"partitions", partitioned, proof.Proved, "ext4"},
		{"empty partitions", table, proof.Failed, ""},
		{"another LUKS header", nested, proof.Failed, ""},
		{"zeros", make([]byte, 1<<20), proof.Failed, ""},
		{"noise", bytes.Repeat([]byte("noise..."), 1<<16), proof.Failed, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "content")
			if err := os.WriteFile(path, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			v := prove(t, disk("os", encrypted(t, path, passphrase, volumetest.Options{Version: 1}), passphrase))
			if v.State != test.want || v.Disks[0].FileSystem != test.system {
				t.Errorf("the verdict is %+v", v)
			}
		})
	}
}

// TestPartition proves a volume in a partition, and names the partition when it doesn't open.
func TestPartition(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := volumetest.MakeFileSystem(context.Background(), plain, 1<<20, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	image := unzip(t, "../volume/testdata/gpt.gz")
	copy(image[4096*512:], encrypted(t, plain, passphrase, volumetest.Options{Version: 1}))
	if v := prove(t, disk("os", image, passphrase)); v.State != proof.Proved || v.Disks[0].FileSystem != "ext4" {
		t.Errorf("the verdict is %+v", v)
	}
	if v := prove(t, disk("os", image, "another")); v.State != proof.Failed || !strings.HasPrefix(v.Disks[0].Reason, "partition 2: the key in the") {
		t.Errorf("with another key: %+v", v)
	}
	image[1024+200] ^= 1
	if v := prove(t, disk("os", image, passphrase)); v.State != proof.Failed || !strings.Contains(v.Reason, "GPT entries") {
		t.Errorf("with a damaged table: %+v", v)
	}
}

// TestKeySlots counts the key slots of a volume that has several.
func TestKeySlots(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	dir := t.TempDir()
	out, second := filepath.Join(dir, "volume"), filepath.Join(dir, "second")
	if err := volumetest.Encrypt(context.Background(), fileSystem(t), out, []byte(passphrase), volumetest.Options{Version: 1}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(second, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cryptsetup", "--batch-mode", "--disable-locks", "--key-file", "-", "--pbkdf-force-iterations", "1000", "luksAddKey", out, second)
	cmd.Stdin = strings.NewReader(passphrase)
	if printed, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	v := prove(t, disk("os", read(t, out), "third"))
	if want := "the key in the recovery point opens none of the 2 key slots"; v.Disks[0].Reason != want {
		t.Errorf("the reason is %q", v.Disks[0].Reason)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if v, err := proof.Prove(ctx, []proof.Disk{disk("os", make([]byte, 1<<20), "")}, now); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestSabotageAtRandom flips a bit anywhere before the data: a verdict of proved is only right when the
// volume still opens as it did.
func TestSabotageAtRandom(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	image := encrypted(t, fileSystem(t), passphrase, volumetest.Options{Version: 2})
	// Both copies of the header, and the key-slot area in use.
	rapid.Check(t, func(t *rapid.T) {
		at, bit := rapid.IntRange(0, 32<<10+64*4000-1).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "bit")
		image[at] ^= 1 << bit
		defer func() { image[at] ^= 1 << bit }()
		v, err := proof.Prove(context.Background(), []proof.Disk{disk("os", image, passphrase)}, now)
		if err != nil || v.State != proof.Failed || v.Reason == "" || v.Advice == "" {
			t.Fatalf("the verdict is %+v, error %v", v, err)
		}
	})
}

func TestJSON(t *testing.T) {
	v := proof.Verdict{State: proof.Failed, Reason: "r", Advice: "a", Time: now(), Disks: []proof.DiskVerdict{{
		Name: "os", State: proof.Failed, Reason: "r", Advice: "a", Encryption: "LUKS2 aes-xts-plain64", UUID: "u", FileSystem: "ext4", BytesRead: 7}}}
	got, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"state":"failed","reason":"r","advice":"a","disks":[{"name":"os","state":"failed","reason":"r","advice":"a",` +
		`"encryption":"LUKS2 aes-xts-plain64","uuid":"u","fileSystem":"ext4","bytesRead":7}],"time":"2025-03-01T03:00:00Z"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if printed, err := json.Marshal(secret.New([]byte(passphrase))); err != nil || strings.Contains(string(printed), passphrase) {
		t.Error("a BEK can be marshalled")
	}
}
