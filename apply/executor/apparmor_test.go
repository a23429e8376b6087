package executor

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/runtimes"
)

func TestAppArmor(t *testing.T) {
	strict := "strict"
	local := &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &strict}
	for name, c := range map[string]struct {
		profile *corev1.AppArmorProfile
		enabled bool
		want    string
		refused string
	}{
		"nothing said":               {enabled: true},
		"the engine's own":           {profile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}},
		"unconfined, no AppArmor":    {profile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}, want: "unconfined"},
		"a profile":                  {profile: local, enabled: true, want: "strict"},
		"a profile, no AppArmor":     {profile: local, refused: "the engine has no AppArmor"},
		"a profile without its name": {profile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost}, enabled: true, refused: "localhostProfile must be set"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := appArmor(c.profile, c.enabled)
			if got != c.want {
				t.Errorf("got %q, not %q", got, c.want)
			}
			if c.refused == "" && err != nil || c.refused != "" && (!errors.Is(err, runtimes.ErrInvalid) || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("got the error %v, wanted %q", err, c.refused)
			}
		})
	}
}
