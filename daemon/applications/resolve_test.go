package applications

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render"
)

func lookupIn(m map[Ref]map[string]string) Lookup {
	return func(ref Ref) (map[string][]byte, bool) {
		ref.Optional = false
		data, ok := m[ref]
		out := map[string][]byte{}
		for k, v := range data {
			out[k] = []byte(v)
		}
		return out, ok
	}
}

func TestResolveSubstitutions(t *testing.T) {
	lookup := lookupIn(map[Ref]map[string]string{
		{Kind: "ConfigMap", Namespace: "a", Name: "one"}: {"x": "1", "y": "1", "z": "1"},
		{Kind: "Secret", Namespace: "a", Name: "two"}:    {"y": "2\n", "z": "2"},
		{Kind: "ConfigMap", Namespace: "a", Name: "bad"}: {"not-a-name": "1", "binary": "\xff", "nul": "a\x00"},
	})
	one, two := Ref{Kind: "ConfigMap", Namespace: "a", Name: "one"}, Ref{Kind: "Secret", Namespace: "a", Name: "two"}
	for _, tt := range []struct {
		name   string
		inline map[string]string
		from   []Ref
		want   map[string]string
		diags  string
	}{
		{name: "nothing turns it off"},
		{name: "later wins and inline wins over all", inline: map[string]string{"z": "inline\n"}, from: []Ref{one, two},
			want: map[string]string{"x": "1", "y": "2", "z": "inline"}},
		{name: "missing", from: []Ref{{Kind: "Secret", Namespace: "a", Name: "no"}},
			diags: "error: spec.postBuild.substituteFrom[0]: there is no Secret a/no (declare it, or set optional: true)\n"},
		{name: "missing and optional", from: []Ref{{Kind: "Secret", Namespace: "a", Name: "no", Optional: true}, one},
			want: map[string]string{"x": "1", "y": "1", "z": "1"}},
		{name: "names and values are checked", from: []Ref{{Kind: "ConfigMap", Namespace: "a", Name: "bad"}},
			diags: `error: spec.postBuild.substituteFrom[0]: the key "not-a-name" of ConfigMap a/bad cannot be the name of a variable (a name has letters, digits and underscores, and does not begin with a digit)
error: spec.postBuild.substituteFrom[0]: the value of binary in ConfigMap a/bad is not text
error: spec.postBuild.substituteFrom[0]: the value of nul in ConfigMap a/bad is not text
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, diags := ResolveSubstitutions(Application{Render: render.Options{Substitute: tt.inline}, SubstituteFrom: tt.from}, lookup)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tt.diags, diags.String()); diff != "" {
				t.Errorf("diagnostics: -want +got:\n%s", diff)
			}
		})
	}
}

func TestResolveDecryption(t *testing.T) {
	secret := func(name string) Ref { return Ref{Kind: "Secret", Namespace: "a", Name: name} }
	lookup := lookupIn(map[Ref]map[string]string{
		secret("two"):   {"a.agekey": "# comment\nAGE-SECRET-KEY-1A\n\nAGE-SECRET-KEY-1B\n", "b.asc": "PGP"},
		secret("none"):  {"b.asc": "PGP"},
		secret("wrong"): {"a.agekey": "hunter2"},
	})
	for _, tt := range []struct {
		name   string
		app    Application
		want   []string
		errors bool
	}{
		{name: "off", app: Application{}},
		{name: "the daemon's keys", app: Application{Decrypt: true}},
		{name: "two keys", app: Application{Decrypt: true, DecryptionSecret: secret("two")}, want: []string{"AGE-SECRET-KEY-1A", "AGE-SECRET-KEY-1B"}},
		{name: "no age key", app: Application{Decrypt: true, DecryptionSecret: secret("none")}, errors: true},
		{name: "not a key", app: Application{Decrypt: true, DecryptionSecret: secret("wrong")}, errors: true},
		{name: "no secret", app: Application{Decrypt: true, DecryptionSecret: secret("absent")}, errors: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, diags := ResolveDecryption(tt.app, lookup)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diags.HasErrors() != tt.errors {
				t.Errorf("errors: want %v, got:\n%s", tt.errors, diags)
			}
		})
	}
}

func TestSetRevision(t *testing.T) {
	commit := "0123456789abcdef0123456789abcdef01234567"
	for in, want := range map[string]Repository{
		"":                 {Revision: "HEAD"},
		"HEAD":             {Revision: "HEAD"},
		"main":             {Revision: "main"},
		"release/1.2":      {Revision: "release/1.2"},
		"v1.2.3":           {Revision: "v1.2.3"},
		"1.2":              {Revision: "1.2"},
		"x":                {Revision: "x"},
		commit:             {Commit: commit},
		commit[:7]:         {Revision: commit[:7]},
		"refs/pull/1/head": {RefName: "refs/pull/1/head"},
		"1.2.*":            {SemVer: "1.2.*"},
		">=1.0.0 <2.0.0":   {SemVer: ">=1.0.0 <2.0.0"},
		"^1.2":             {SemVer: "^1.2"},
		"*":                {SemVer: "*"},
	} {
		var got Repository
		got.SetRevision(in)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: -want +got:\n%s", in, diff)
		}
	}
}

func TestNoCredentialIsShown(t *testing.T) {
	g := Repository{URL: "https://me:hunter2@example.com/r"}
	g.HideCredentials()
	if g.URL != "https://example.com/r" || g.Auth.Username != "me" || g.Auth.Password != "hunter2" {
		t.Errorf("credentials were not moved: %s %s", g.URL, g.Auth.Username)
	}
	if got := g.Auth.String(); got != "username,password" {
		t.Errorf("Auth shows %q", got)
	}
	for in, want := range map[string]string{
		"https://token@example.com/r":     "https://example.com/r",
		"ssh://git@example.com/r":         "ssh://git@example.com/r",
		"ssh://git:hunter2@example.com/r": "ssh://git@example.com/r",
		"git@example.com:r":               "git@example.com:r",
	} {
		if got := ShownURL(in); got != want {
			t.Errorf("%s: want %s, got %s", in, want, got)
		}
	}
}

func TestNearest(t *testing.T) {
	fields := []string{"prune", "path", "interval", "suspend", "retryInterval"}
	for in, want := range map[string]string{"prnue": "prune", "Path": "path", "intervall": "interval", "colour": "", "paths": "path", "xxxx": ""} {
		if got, _ := Nearest(in, fields); got != want {
			t.Errorf("%s: want %q, got %q", in, want, got)
		}
	}
}

func TestArgoCredentialsEndAtASlash(t *testing.T) {
	for _, tt := range []struct {
		url, prefix string
		want        bool
	}{
		{"https://example.com/org/repo", "https://example.com/org", true},
		{"https://example.com/org", "https://example.com/org", true},
		{"https://example.com/org-evil/repo", "https://example.com/org", false},
		{"git@example.com:org/repo", "git@example.com:", true},
	} {
		if got := begins(tt.url, tt.prefix); got != tt.want {
			t.Errorf("%s below %s: got %v", tt.url, tt.prefix, got)
		}
	}
}
