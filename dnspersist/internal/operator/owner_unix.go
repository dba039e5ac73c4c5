//go:build unix

package operator

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf returns the name of a folder's owner if that is another user than the process has.
// The owner of a folder that is not there is not known.
func ownerOf(path string) (owner string, known, foreign bool) {
	info, err := os.Stat(path)
	if err != nil {
		return "", false, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return "", ok, false
	}
	id := strconv.Itoa(int(stat.Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username, true, true
	}
	return "#" + id, true, true
}
