package routing

import (
	"encoding/binary"
)

// stays reports whether a client may stay with the target that the kernel remembers for it: the Service that has the
// frontend now must be the one of which the target is an endpoint.
func (r *Routes) stays(memory set, key, to []byte) bool {
	if len(to) != int(layouts[memory].DataType.Bytes) { // of a table with another layout
		return false
	}
	who, ok := r.targets.who[binary.NativeEndian.Uint32(to)]
	if !ok {
		return false
	}
	from := []set{services, outsideServices}
	if memory == portAffinities {
		from = []set{nodePorts, outsidePorts}
	}
	for _, s := range from {
		k := elementKey{set: s}
		copy(k.key[:], key[4:]) // after the client
		if c := r.ledger.shared[k]; c.who != nil && c.who.ref == who.service {
			return true
		}
	}
	return false
}

// forgetClients makes the kernel forget the clients of frontends that had another Service before.
func (r *Routes) forgetClients(c *change) error {
	if !c.moved || len(r.targets.of) == 0 {
		return nil
	}
	return r.kernel.forget(r.stays)
}
