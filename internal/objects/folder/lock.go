package folder

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"kluis/internal/objects"
)

// Lock takes a lock; see objects.Locker. It is a file lock on .name.lock, beside where the object of that
// name would be; the file stays when the lock is let go.
func (f *Folder) Lock(name string) (unlock func() error, err error) {
	if err := objects.CheckName(name); err != nil {
		return nil, err
	}
	dir, base := path.Split(name)
	if err := f.makeDir(path.Clean(dir)); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	file, err := f.root.OpenFile(path.Join(dir, "."+base+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = objects.ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return file.Close, nil
}

var _ objects.Locker = (*Folder)(nil)
