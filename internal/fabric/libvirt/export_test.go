package libvirt

import (
	"errors"
	"io"
)

// LiveDir and MarkDir are where a host's backups leave traces, if they leave any.
func (h *Host) LiveDir() string { return h.o.LiveDir }
func (h *Host) MarkDir() string { return h.o.MarkDir }

// AwaitGuard waits until a guard has ended by itself, which it does when it has thawed.
func AwaitGuard(g Guard) (thawed bool, err error) {
	c, ok := g.(*childGuard)
	if !ok {
		return false, errors.New("it is no child")
	}
	said, err := io.ReadAll(c.out)
	return string(said) == guardThawed+"\n", errors.Join(err, c.cmd.Wait())
}

// VariablesOf says where the UEFI variables of a machine are.
func VariablesOf(definition string) (string, error) {
	d, err := parseDomain(definition)
	if err != nil {
		return "", err
	}
	return nvramOf(d), nil
}
