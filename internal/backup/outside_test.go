package backup

import (
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/problem"
)

// knows asks nobody; it only knows the hosts of Azure.
type knows struct{ Outside }

func (knows) Knows(url string) bool { return strings.HasPrefix(url, "https://kv1.vault.azure.net/") }

// A pair lies on one side. Without key vaults outside, every URL is one of this server's own, as ever.
func TestWhereAPairLies(t *testing.T) {
	own, outside := "https://kv1.vault.localhost/", "https://kv1.vault.azure.net/"
	for _, c := range []struct {
		asks         Outside
		key, secret  string
		lies, refuse bool
	}{
		{nil, own, own, false, false}, {nil, outside, outside, false, false},
		{knows{}, own, own, false, false}, {knows{}, outside, outside, true, false},
		{knows{}, own, outside, false, true}, {knows{}, outside, own, false, true},
	} {
		s := &Service{o: Options{Outside: c.asks}}
		lies, err := s.liesOutside(armid.ID{}, compute.DiskEncryption{KeyURL: c.key + "keys/k/1", SecretURL: c.secret + "secrets/s/1"})
		if lies != c.lies || (err != nil) != c.refuse || c.refuse && !problem.Is(err, "UserErrorKeyAndSecretInDifferentPlaces") {
			t.Errorf("key %s, secret %s: %v, %v", c.key, c.secret, lies, err)
		}
	}
}
