package routing

import (
	"hash/fnv"
	"net/netip"

	"slices"
)

// maxSlots bounds how many slots weights make.
const maxSlots = 1024

// slots repeats each endpoint as often as its weight says, spread evenly over the whole, and no longer than needed.
func slots(at []netip.AddrPort, weights []int) []netip.AddrPort {
	w := reduce(weights)
	total := 0
	for _, n := range w {
		total += n
	}
	if total == len(at) {
		return at
	}
	// In each slot all earn their weight; who has most is next, and pays the total.
	out, credit := make([]netip.AddrPort, 0, total), make([]int, len(w))
	for range total {
		best := 0
		for i := range w {
			credit[i] += w[i]
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		out = append(out, at[best])
	}
	return out
}

// reduce makes weights as small as their ratios allow, and smaller where that would be more than maxSlots.
func reduce(weights []int) []int {
	w := slices.Clone(weights)
	total, common := 0, 0
	for i := range w {
		w[i] = min(max(w[i], 1), 100)
		total += w[i]
		common = gcd(common, w[i])
	}
	for i := range w {
		w[i] /= common
	}
	if total /= common; total > maxSlots {
		for i := range w {
			w[i] = max(w[i]*maxSlots/total, 1)
		}
	}
	return w
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// hashSizes are the numbers of slots for hashing, each prime.
var hashSizes = []int{61, 251, 1021, 4093, 16381}

// hashSlots fills a table of which each client address has one slot. It follows from the endpoints alone, and a change
// of the endpoints moves few slots from one remaining endpoint to another: every endpoint has an order of its own of
// all slots, and in turns, as often as its weight says, each takes the first one that is free.
func hashSlots(at []netip.AddrPort, weights []int) []netip.AddrPort {
	if len(at) == 1 {
		return at
	}
	w := reduce(weights)
	total := 0
	for _, n := range w {
		total += n
	}
	size := hashSizes[len(hashSizes)-1]
	for _, s := range hashSizes {
		if s >= 8*total {
			size = s
			break
		}
	}
	type order struct{ offset, skip, next int }
	orders := make([]order, len(at))
	for i, a := range at {
		h := fnv.New64a()
		h.Write(target(a))
		n := mix(h.Sum64())
		orders[i] = order{offset: int(uint32(n) % uint32(size)), skip: int(uint32(n>>32)%uint32(size-1)) + 1}
	}
	out, filled := make([]netip.AddrPort, size), 0
	for {
		for i := range orders {
			for range w[i] {
				o := &orders[i]
				slot := 0
				for {
					slot = (o.offset + o.next*o.skip) % size
					o.next++
					if !out[slot].IsValid() {
						break
					}
				}
				out[slot] = at[i]
				if filled++; filled == size {
					return out
				}
			}
		}
	}
}

// mix spreads the bits of a hash, so that addresses in a row have orders with nothing in common.
func mix(n uint64) uint64 {
	n ^= n >> 33
	n *= 0xff51afd7ed558ccd
	n ^= n >> 33
	n *= 0xc4ceb9fe1a85ec53
	return n ^ n>>33
}
