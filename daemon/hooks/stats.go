package hooks

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Result is how a delivery ended, as a metric's label. Those of package webhook are results too.
type Result string

// The results.
const (
	Accepted  Result = "accepted"
	Pinged    Result = "ping"
	Ignored   Result = "ignored"  // of no interest here
	Repeated  Result = "repeated" // it was delivered before
	NotFound  Result = "path"     // no endpoint
	BadMethod Result = "method"
	BadType   Result = "type"
	TooLarge  Result = "size"
	Broken    Result = "broken" // it ended too early, or was too slow
	Busy      Result = "busy"
)

// taken reports whether a delivery with the result was proved and understood.
func (r Result) taken() bool {
	return r == Accepted || r == Pinged || r == Ignored || r == Repeated
}

// EndpointStats are the figures of one endpoint.
type EndpointStats struct {
	Forge              forge.Kind
	Accepted, Rejected uint64
}

// Endpoints yields the endpoints, sorted by their paths.
func (s *Server) Endpoints() iter.Seq2[string, EndpointStats] {
	return func(yield func(string, EndpointStats) bool) {
		for _, path := range slices.Sorted(maps.Keys(s.options.Endpoints)) {
			s.mu.Lock()
			e := s.endpoints[path]
			s.mu.Unlock()
			e.Forge = s.options.Endpoints[path].Forge
			if !yield(path, e) {
				return
			}
		}
	}
}

// Count is one kind of outcome.
type Count struct {
	// Forge is that of the endpoint; empty without one.
	Forge  forge.Kind
	Result Result
}

// Delivery is what was delivered about a source last.
type Delivery struct {
	At    time.Time
	Forge forge.Kind
	Event forge.EventKind
	Ref   string
}

// Stats are figures since the start.
type Stats struct {
	Deliveries []Counted
	// Looks counts the looks at sources that were asked for.
	Looks uint64
}

// Counted is a Count with its number.
type Counted struct {
	Count
	Number uint64
}

// count counts the end of a request; path is that of an endpoint, empty for others.
func (s *Server) count(path string, kind forge.Kind, result Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[Count{kind, result}]++
	if path == "" {
		return
	}
	e := s.endpoints[path]
	if result.taken() {
		e.Accepted++
	} else {
		e.Rejected++
	}
	s.endpoints[path] = e
}

// Stats returns the figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{Looks: s.looks}
	for _, c := range slices.SortedFunc(maps.Keys(s.counts), func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Forge, b.Forge), cmp.Compare(a.Result, b.Result))
	}) {
		out.Deliveries = append(out.Deliveries, Counted{c, s.counts[c]})
	}
	return out
}

// Last returns what was delivered about a source last, and false when nothing was.
func (s *Server) Last(source string) (Delivery, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.last[source]
	return d, ok
}
