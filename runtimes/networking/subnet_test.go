package networking

import (
	"net/netip"
	"testing"
)

func TestFirstFree(t *testing.T) {
	p := netip.MustParsePrefix
	candidates := []netip.Prefix{p("10.90.0.0/16"), p("10.91.0.0/16"), p("10.92.0.0/16")}
	for name, tt := range map[string]struct {
		used []netip.Prefix
		want string
	}{
		"nothing used":      {nil, "10.90.0.0/16"},
		"a host inside":     {[]netip.Prefix{p("10.90.3.4/32")}, "10.91.0.0/16"},
		"a wider one":       {[]netip.Prefix{p("10.90.0.0/15")}, "10.92.0.0/16"},
		"elsewhere":         {[]netip.Prefix{p("192.168.0.0/16")}, "10.90.0.0/16"},
		"everything in use": {[]netip.Prefix{p("10.0.0.0/8")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := firstFree(candidates, tt.used)
			if tt.want == "" {
				if err == nil {
					t.Errorf("got %s where nothing is free", got)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}
