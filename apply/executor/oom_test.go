package executor

import "testing"

func TestLowestOOMScore(t *testing.T) {
	for name, c := range map[string]struct {
		status, own string
		want        int
	}{
		"all capabilities":     {"Name:\tx\nCapEff:\t000001ffffffffff\n", "0\n", -1000},
		"without SYS_RESOURCE": {"CapEff:\t000001fffeffffff\n", "-500\n", -500},
		"unknown":              {"", "", -1000},
	} {
		if got := lowestOOMScore(c.status, c.own); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
