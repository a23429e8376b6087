package settings

import (
	"os"
	"strings"
	"testing"
)

// FuzzParse reads arbitrary settings: nothing panics, what is wrong is said with the file, and what was read can be
// completed, checked and declared.
func FuzzParse(f *testing.F) {
	f.Add([]byte("stateDir: /var/lib/fairlead\napplications:\n- {location: 'https://example.com/a', ref: 'semver:>=1'}\n"))
	f.Add([]byte("consul: {address: x, token: y}\nservices: {clusterIPs: 10.0.0.0/8}\ndefaults: {interval: 1m}\n"))
	f.Add([]byte("applications: [{location: .., path: ../.., auth: {passwordFile: /x}}]\n"))
	f.Add([]byte("a: &a [*a]\n---\nb: c\n"))
	if b, err := os.ReadFile("testdata/full.yaml"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := parse("fairlead.yaml", content)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fairlead.yaml") {
				t.Errorf("an error without its file: %v", err)
			}
			return
		}
		s = s.WithDefaults()
		_ = s.Check() // nothing is read by it
		for i := range s.Applications {
			s.Applications[i].Auth = Auth{} // names files of this machine
		}
		d, _ := s.Declared()
		for _, a := range d.Applications {
			if a.Name == "" || a.Source == "" {
				t.Errorf("an application without a name: %+v", a)
			}
		}
	})
}
