package routing

import (
	"testing"
)

func TestPodsAndHostReachAServiceByItsAddress(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(3), l.pod("client")
	r := l.routes()
	l.set(r, route("web", "10.202.0.10", pods...))
	for name, from := range map[string]*place{"pod": client, "host": nil} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]int{}
			for range 60 {
				got, err := from.ask("10.202.0.10:80")
				if err != nil {
					t.Fatal(err)
				}
				seen[got]++
			}
			t.Log(seen)
			if len(seen) != 3 {
				t.Errorf("60 connections went to %v, want all 3 endpoints, each seeing one client address", seen)
			}
		})
	}
}
