package networking

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// maxDumps bounds how often a list is asked for. Each is short; on a busy machine several in a row are interrupted.
const maxDumps = 20

// whole asks the kernel for a list again while something changed as it was being read: such a list may lack
// entries.
func whole[T any](dump func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		all, err := dump()
		if i == maxDumps || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}
