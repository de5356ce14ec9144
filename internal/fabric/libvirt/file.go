package libvirt

import (
	"fmt"
	"io/fs"
	"syscall"
)

// identity is device and inode of a file.
func identity(info fs.FileInfo) string {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x:%x", s.Dev, s.Ino)
}
