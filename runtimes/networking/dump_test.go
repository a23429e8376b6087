package networking

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedListsAreReadAgain(t *testing.T) {
	other := errors.New("no permission")
	for _, tt := range []struct {
		name        string
		interrupted int
		then        error
		calls       int
		want        error
	}{
		{"never interrupted", 0, nil, 1, nil},
		{"interrupted twice", 2, nil, 3, nil},
		{"another error", 1, other, 2, other},
		{"interrupted always", 1000, nil, maxDumps, netlink.ErrDumpInterrupted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			got, err := whole(func() (int, error) {
				calls++
				if calls <= tt.interrupted {
					return 0, netlink.ErrDumpInterrupted
				}
				return 7, tt.then
			})
			if calls != tt.calls || !errors.Is(err, tt.want) || (err == nil && got != 7) {
				t.Errorf("%d calls, %v, %d; want %d calls, %v", calls, err, got, tt.calls, tt.want)
			}
		})
	}
}
