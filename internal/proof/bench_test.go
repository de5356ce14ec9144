package proof_test

import (
	"context"
	"io"
	"testing"

	"kluis/internal/proof"
	"kluis/internal/secret"
	"kluis/internal/volume/volumetest"
)

// large is an image on a disk of a terabyte, the rest of which is zeros.
type large []byte

func (d large) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(d)) {
		copy(p, d[off:])
	}
	return len(p), nil
}

var _ io.ReaderAt = large(nil)

// BenchmarkProve measures a proof, and how much of a disk it reads. Key derivation is as cheap as it gets:
// what it costs beyond that, whoever encrypted the disk has chosen.
func BenchmarkProve(b *testing.B) {
	plain := fileSystem(b)
	windows, bek := bitLocker(b, ntfs(b), volumetest.BitLockerOptions{})
	for _, test := range []struct {
		name  string
		image []byte
		key   string
	}{
		{"luks1", encrypted(b, plain, passphrase, volumetest.Options{Version: 1}), passphrase},
		{"luks2", encrypted(b, plain, passphrase, volumetest.Options{Version: 2}), passphrase},
		{"bitlocker", windows, string(bek)},
	} {
		b.Run(test.name, func(b *testing.B) {
			var read int64
			for b.Loop() {
				d := proof.Disk{Name: "os", ReaderAt: large(test.image), Size: 1 << 40, ExpectEncrypted: true, BEK: secret.New([]byte(test.key))}
				v, err := proof.Prove(context.Background(), []proof.Disk{d}, now)
				if err != nil || v.State != proof.Proved {
					b.Fatalf("the verdict is %+v, error %v", v, err)
				}
				read = v.Disks[0].BytesRead
			}
			b.ReportMetric(float64(read), "bytes-read/op")
		})
	}
}
