package proof_test

import (
	"testing"

	"kluis/internal/proof"
)

// A verdict is as bad as its worst disk, and one that was not tried is no proof.
func TestUntriedIsNoProof(t *testing.T) {
	disk := func(s proof.State) proof.DiskVerdict {
		return proof.DiskVerdict{State: s, Reason: string(s), Advice: "do " + string(s)}
	}
	for _, c := range []struct {
		disks  []proof.DiskVerdict
		want   proof.State
		advice string
	}{
		{[]proof.DiskVerdict{disk(proof.Proved), disk(proof.NotEncrypted)}, proof.Proved, ""},
		{[]proof.DiskVerdict{disk(proof.Proved), disk(proof.NotTried)}, proof.NotTried, "do notTried"},
		{[]proof.DiskVerdict{disk(proof.NotTried), disk(proof.Failed), disk(proof.Proved)}, proof.Failed, "do failed"},
	} {
		v := proof.Verdict{Disks: c.disks}
		v.Explain("none of them", "")
		if v.State != c.want || v.Advice != c.advice {
			t.Errorf("%v: %s, advice %q", c.disks, v.State, v.Advice)
		}
	}
}
