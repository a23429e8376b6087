package routing

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// chiSquare is how far counts are from what is expected of them.
func chiSquare(seen map[string]int, want map[string]float64) float64 {
	sum := 0.0
	for name, w := range want {
		sum += math.Pow(float64(seen[name])-w, 2) / w
	}
	return sum
}

func TestRandomFollowsWeights(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(3), l.pod("client")
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	for i, w := range []int{20, 60, 40} {
		web.Endpoints[i].Weight = w
	}
	l.set(r, web)
	seen := client.spread(t, 600, "10.202.0.10:80")
	if x := chiSquare(seen, map[string]float64{"pod0": 100, "pod1": 300, "pod2": 200}); x > 20 { // p = 0.00005
		t.Errorf("600 connections at weights 1, 3 and 2 were %v, chi-square %.1f", seen, x)
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(3), l.pod("client")
	r := l.routes()
	web, other := route("web", "10.202.0.10", pods...), route("other", "10.202.0.11", pods...)
	web.Balancing, other.Balancing = plan.RoundRobin, plan.RoundRobin
	web.Endpoints[0].Weight = 2
	l.set(r, other, web)
	for turn := range 3 {
		// The other Service's connections must not move this one's turn.
		client.spread(t, 1, "10.202.0.11:80")
		seen := client.spread(t, 4, "10.202.0.10:80")
		if seen["pod0"] != 2 || seen["pod1"] != 1 || seen["pod2"] != 1 {
			t.Errorf("turn %d at weights 2, 1 and 1 was %v", turn, seen)
		}
	}
}

func TestSourceHashKeepsAClient(t *testing.T) {
	l := newLab(t)
	pods := l.servers(4)
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Balancing = plan.SourceHash
	l.set(r, web)
	client := l.pod("client")
	addresses := make([]string, 40)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.201.7.%d", i+1)
		addAddress(t, client, addresses[i])
	}
	at := func() map[string]string {
		out := map[string]string{}
		for _, a := range addresses {
			for range 2 {
				for who := range client.spread(t, 1, "10.202.0.10:80", a+":0") {
					if out[a] != "" && out[a] != who {
						t.Fatalf("client %s went to %s and to %s", a, out[a], who)
					}
					out[a] = who
				}
			}
		}
		return out
	}
	before := at()
	used := map[string]int{}
	for _, who := range before {
		used[who]++
	}
	if len(used) != 4 {
		t.Errorf("40 clients are spread as %v, want all 4 endpoints", used)
	}
	less := route("web", "10.202.0.10", pods[:3]...)
	less.Balancing = plan.SourceHash
	l.set(r, less)
	moved := 0
	for a, who := range at() {
		if before[a] != "pod3" && who != before[a] {
			moved++
		}
	}
	if moved > 8 {
		t.Errorf("%d of %d clients whose endpoint stayed were sent to another one", moved, 40-used["pod3"])
	}
	// The same endpoints give the same choice, in whatever way they came about, also to another process.
	l.set(r, web)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	l.set(l.routes(), web)
	for a, who := range at() {
		if who != before[a] {
			t.Errorf("client %s was at %s and is at %s", a, before[a], who)
		}
	}
}

func TestSlots(t *testing.T) {
	at := func(n int) (out []netip.AddrPort) {
		for i := range n {
			out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80))
		}
		return out
	}
	count := func(slots []netip.AddrPort) map[netip.AddrPort]int {
		out := map[netip.AddrPort]int{}
		for _, s := range slots {
			out[s]++
		}
		return out
	}
	if got := slots(at(2), []int{50, 100}); len(got) != 3 {
		t.Errorf("weights 50 and 100 took %d slots, want 3", len(got))
	}
	weights := make([]int, 300)
	for i := range weights {
		weights[i] = 1 + i%100
	}
	if got := slots(at(300), weights); len(got) > maxSlots+300 || len(count(got)) != 300 {
		t.Errorf("300 endpoints of many weights took %d slots and %d were in them", len(got), len(count(got)))
	}
	for _, n := range []int{2, 3, 7, 30, 300} {
		w := make([]int, n)
		for i := range w {
			w[i] = 1
		}
		got := hashSlots(at(n), w)
		for a, c := range count(got) {
			if f := float64(c) * float64(n) / float64(len(got)); f < 0.85 || f > 1.15 {
				t.Errorf("of %d equal endpoints, %s has %.2f of its share", n, a, f)
			}
		}
		less := hashSlots(at(n)[1:], w[1:])
		moved := 0
		for i := range min(len(got), len(less)) {
			if got[i] != at(n)[0] && got[i] != less[i] {
				moved++
			}
		}
		if len(got) == len(less) && moved > len(got)/4 {
			t.Errorf("without one of %d endpoints, %d of %d slots of the others moved", n, moved, len(got))
		}
	}
}

func withAffinity(r *plan.Route, seconds int32) *plan.Route {
	r.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	r.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	return r
}

func TestSessionAffinity(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(4), l.pod("client")
	r := l.routes()
	l.set(r, withAffinity(route("web", "10.202.0.10", pods...), 2))
	only := func() string {
		t.Helper()
		seen := client.spread(t, 8, "10.202.0.10:80")
		if len(seen) != 1 {
			t.Fatalf("8 connections of one client went to %v", seen)
		}
		for who := range seen {
			return who
		}
		return ""
	}
	first := only()
	// Each connection begins the time anew.
	for range 4 {
		time.Sleep(time.Second)
		if who := only(); who != first {
			t.Fatalf("the client was at %s and is at %s, within its time", first, who)
		}
	}
	// Another process takes it over.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = l.routes()
	l.set(r, withAffinity(route("web", "10.202.0.10", pods...), 2))
	if who := only(); who != first {
		t.Errorf("the client was at %s and is at %s after a restart", first, who)
	}
	// Without its endpoint it gets another one, and stays there.
	var rest []*place
	for _, p := range pods {
		if p.name != first {
			rest = append(rest, p)
		}
	}
	l.set(r, withAffinity(route("web", "10.202.0.10", rest...), 2))
	if second := only(); second == first {
		t.Errorf("the client is still at %s, which is gone", first)
	}
	l.set(r, withAffinity(route("web", "10.202.0.10", pods...), 1))
	seen := map[string]bool{}
	for range 6 {
		time.Sleep(1100 * time.Millisecond)
		seen[only()] = true
	}
	if len(seen) < 2 {
		t.Errorf("after its time the client always came to %v again", seen)
	}
}
