package proxy

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkChoose is what counting costs a connection to one of many endpoints.
func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{3, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := &listener{known: make(chan struct{}), backends: make(map[netip.AddrPort]*backend)}
			to := make(map[netip.AddrPort]int)
			for i := range n {
				to[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 90, 0, byte(i)}), 80)] = 1
			}
			l.set("shop", to)
			for b.Loop() {
				l.release(l.choose(nil), false)
			}
		})
	}
}
