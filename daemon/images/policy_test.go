package images

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPolicies(t *testing.T) {
	versions := []string{"1.0.0", "v1.2.0", "1.10.0", "1.9.9", "2.0.0-rc.1", "latest", "sha-1234", "0.9"}
	builds := []string{"main-1a2b3c-1700000000", "main-ffffff-1600000000", "dev-9-1900000000", "main-x"}
	for name, tt := range map[string]struct {
		policy    Policy
		tags      []string
		want, err string
	}{
		"semver":                   {Policy{SemVer: "1.x"}, versions, "1.10.0", ""},
		"semver below":             {Policy{SemVer: "<1.10.0"}, versions, "1.9.9", ""},
		"semver, what is before":   {Policy{SemVer: ">=2.0.0-0"}, versions, "2.0.0-rc.1", ""},
		"semver, nothing":          {Policy{SemVer: "3.x"}, versions, "", "none of 8 tags fits semver 3.x"},
		"semver of a part":         {Policy{SemVer: ">=1.0.0", Pattern: `^release-(?P<v>.*)$`, Extract: "$v"}, []string{"release-1.0.0", "release-1.4.0", "2.0.0"}, "release-1.4.0", ""},
		"alphabetical":             {Policy{Alphabetical: Ascending}, []string{"b", "z", "a"}, "z", ""},
		"alphabetical, descending": {Policy{Alphabetical: Descending}, []string{"b", "z", "a"}, "a", ""},
		"dates":                    {Policy{Alphabetical: Ascending, Pattern: `^RELEASE\.(?P<ts>.*)Z$`, Extract: "$ts"}, []string{"RELEASE.2026-01-02Z", "RELEASE.2025-12-31Z", "latest"}, "RELEASE.2026-01-02Z", ""},
		"numerical":                {Policy{Numerical: Ascending}, []string{"9", "10", "8.5"}, "10", ""},
		"numerical, descending":    {Policy{Numerical: Descending}, []string{"9", "10", "8.5"}, "8.5", ""},
		"numerical of a part":      {Policy{Numerical: Ascending, Pattern: `^main-[a-f0-9]+-(?P<ts>[0-9]+)$`, Extract: "$ts"}, builds, "main-1a2b3c-1700000000", ""},
		"numbers and others":       {Policy{Numerical: Ascending}, []string{"1", "one"}, "", "the tag one is no number"},
		"equal":                    {Policy{Numerical: Ascending}, []string{"1.0", "1"}, "1.0", ""},
		"no tags":                  {Policy{Alphabetical: Ascending}, nil, "", "none of 0 tags"},
		"no policy":                {Policy{}, nil, "", "must be one of"},
		"two policies":             {Policy{SemVer: "1", Numerical: Ascending}, nil, "", "must be one of"},
		"no range":                 {Policy{SemVer: "one"}, nil, "", "not a range"},
		"no expression":            {Policy{SemVer: "1", Pattern: "("}, nil, "", "not a regular expression"},
		"no order":                 {Policy{Numerical: "up"}, nil, "", "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				rand.Shuffle(len(tt.tags), func(i, j int) { tt.tags[i], tt.tags[j] = tt.tags[j], tt.tags[i] })
				got, err := tt.policy.Latest(tt.tags)
				if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("%q, %v", got, err)
				}
			}
		})
	}
}
