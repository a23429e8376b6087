package schedule

import "slices"

// The weights of the scorers, each of which gives 0 to 1000; those of Kubernetes' default profile where it has the same.
const (
	weightTaints   = 3
	weightAffinity = 2
	weightImages   = 1
	weightFit      = 1
	weightPacked   = 4
	weightEven     = 1
	weightApart    = 2
	weightZones    = 2
	weightSpread   = 2
	weightPods     = 2
)

// nodeScore is the score of a node for a class that follows from the node and what is on it; never when it does not fit.
func (b *Board) nodeScore(c *class, i int32) int32 {
	s := c.static[i]
	if s == never || !b.resources.fits(i, &c.request) {
		return never
	}
	if len(c.ports) > 0 {
		if _, taken := b.nodes[i].taken(c.ports); taken {
			return never
		}
	}
	ofCPU, ofMemory := b.resources.shares(i, &c.request)
	used, uneven := int32(ofCPU+ofMemory)/2, int32(max(ofCPU-ofMemory, ofMemory-ofCPU))
	s += weightEven * (1000 - uneven)
	if b.opt.Profile == Packed {
		return s + weightPacked*used
	}
	return s + weightFit*(1000-used) + weightApart*(1000/(1+c.owner.on[i]))
}

// zoneScore prefers zones with fewer pods of the same workload.
func (b *Board) zoneScore(c *class, zone int32) int32 {
	if b.opt.Profile == Packed || len(b.zones.names) < 2 || int(zone) >= len(c.owner.zones) {
		return 0
	}
	most := int32(0)
	for _, n := range c.owner.zones {
		most = max(most, n)
	}
	if most == 0 {
		return weightZones * 1000
	}
	return weightZones * 1000 * (most - c.owner.zones[zone]) / most
}

// weigher returns what the nodes' scores get for what a class would rather have, and what follows from where other pods
// are; nil for nothing. The scores of nodes are compared with each other, as in Kubernetes, so all that fit are looked at
// first.
func (b *Board) weigher(c *class) func(i int32) int32 {
	if len(c.soft)+len(c.preferred) == 0 {
		return nil
	}
	var crowd, liking span
	bars := b.bars(c)
	for n, s := range c.score {
		if s == never || slices.ContainsFunc(bars, func(x bar) bool { return x.stops(n) }) || len(c.affinity) > 0 && !c.near(int32(n)) {
			continue
		}
		if in, counts := c.crowd(int32(n)); counts {
			crowd.add(in)
		}
		liking.add(c.liking(int32(n)))
	}
	return func(i int32) int32 {
		s := int32(0)
		if len(c.soft) > 0 {
			if in, counts := c.crowd(i); counts && crowd.most > 0 {
				s += weightSpread * int32(1000*(crowd.most+crowd.least-in)/crowd.most)
			} else if counts {
				s += weightSpread * 1000
			}
		}
		if liking.most > liking.least {
			s += weightPods * int32(1000*(c.liking(i)-liking.least)/(liking.most-liking.least))
		}
		return s
	}
}

// span is the least and the most of some numbers.
type span struct {
	least, most int64
	some        bool
}

func (s *span) add(n int64) {
	if !s.some {
		s.least, s.most, s.some = n, n, true
	}
	s.least, s.most = min(s.least, n), max(s.most, n)
}
