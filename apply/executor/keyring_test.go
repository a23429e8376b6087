package executor

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

func TestKeyringLookup(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers []string
		image   string // normalised, without tag
		want    []string
	}{
		{"host", []string{"registry.example.com"}, "registry.example.com/team/app", []string{"registry.example.com"}},
		{"another host", []string{"registry.example.com"}, "example.com/team/app", nil},
		{"a host with another end", []string{"example.com"}, "example.com.evil.org/app", nil},
		{"port", []string{"registry.example.com:5000"}, "registry.example.com:5000/app", []string{"registry.example.com:5000"}},
		{"no port", []string{"registry.example.com"}, "registry.example.com:5000/app", nil},
		{"scheme and version", []string{"https://registry.example.com/v2/"}, "registry.example.com/app", []string{"https://registry.example.com/v2/"}},
		{"path", []string{"registry.example.com/team"}, "registry.example.com/team/app", []string{"registry.example.com/team"}},
		{"another path", []string{"registry.example.com/team"}, "registry.example.com/other/app", nil},
		{"the most specific first", []string{"registry.example.com", "registry.example.com/team/app", "registry.example.com/team"},
			"registry.example.com/team/app", []string{"registry.example.com/team/app", "registry.example.com/team", "registry.example.com"}},
		{"pattern", []string{"*.example.com"}, "eu.example.com/app", []string{"*.example.com"}},
		{"a pattern is one part", []string{"*.example.com"}, "a.eu.example.com/app", nil},
		{"a pattern in a part", []string{"reg-*.example.com"}, "reg-1.example.com/app", []string{"reg-*.example.com"}},
		{"Docker Hub", []string{"https://index.docker.io/v1/"}, "docker.io/library/nginx", []string{"https://index.docker.io/v1/"}},
		{"Docker Hub by its name", []string{"docker.io", "https://index.docker.io/v1/"}, "docker.io/team/app", []string{"docker.io"}},
		{"Docker Hub's are for no other", []string{"https://index.docker.io/v1/"}, "registry.example.com/app", nil},
		{"no registry", []string{"https://", "registry.example.com"}, "registry.example.com/app", []string{"registry.example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var entries []string
			for _, s := range tt.servers {
				entries = append(entries, `"`+s+`":{"username":"u","password":"p"}`)
			}
			var k keyring
			if err := k.addAuths([]byte("{" + strings.Join(entries, ",") + "}")); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range k.lookup(tt.image) {
				got = append(got, a.ServerAddress)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSecretsRing(t *testing.T) {
	secret := func(key, value string) plan.Config {
		return plan.Config{Ref: object.Ref{Kind: "Secret", Namespace: "default", Name: "pull"}, Data: map[string][]byte{key: []byte(value)}}
	}
	encoded := base64.StdEncoding.EncodeToString([]byte("me:pass:word"))
	padless := base64.RawStdEncoding.EncodeToString([]byte("me:pass"))
	for _, tt := range []struct {
		name    string
		secret  plan.Config
		want    []*runtimes.Auth
		invalid bool
	}{
		{"config.json", secret(".dockerconfigjson", `{"auths":{"r.io":{"username":"u","password":"p"}}}`),
			[]*runtimes.Auth{{Username: "u", Password: "p", ServerAddress: "r.io"}}, false},
		{"dockercfg", secret(".dockercfg", `{"r.io":{"username":"u","password":"p","email":"e"}}`),
			[]*runtimes.Auth{{Username: "u", Password: "p", ServerAddress: "r.io"}}, false},
		{"auth", secret(".dockerconfigjson", `{"auths":{"r.io":{"auth":"`+encoded+`"}}}`),
			[]*runtimes.Auth{{Username: "me", Password: "pass:word", ServerAddress: "r.io"}}, false},
		{"auth without padding", secret(".dockerconfigjson", `{"auths":{"r.io":{"auth":"`+padless+`"}}}`),
			[]*runtimes.Auth{{Username: "me", Password: "pass", ServerAddress: "r.io"}}, false},
		{"identity token", secret(".dockerconfigjson", `{"auths":{"r.io":{"identitytoken":"tok"}}}`),
			[]*runtimes.Auth{{IdentityToken: "tok", ServerAddress: "r.io"}}, false},
		{"helper", secret(".dockerconfigjson", `{"auths":{"r.io":{}},"credsStore":"pass"}`), nil, false},
		{"nothing", secret(".dockerconfigjson", `{}`), nil, false},
		{"another Secret", secret("password", "x"), nil, false},
		{"no JSON", secret(".dockerconfigjson", `hush`), nil, true},
		{"no object", secret(".dockercfg", `["hush"]`), nil, true},
		{"auth that is no base64", secret(".dockercfg", `{"r.io":{"auth":"hush!"}}`), nil, true},
		{"auth without a password", secret(".dockercfg", `{"r.io":{"auth":"aHVzaA=="}}`), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := secretsRing([]plan.Config{tt.secret})
			if tt.invalid {
				if !errors.Is(err, runtimes.ErrInvalid) || !strings.Contains(err.Error(), "default/pull") || strings.Contains(err.Error(), "hush") {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, k.lookup("r.io/app")); d != "" {
				t.Error(d)
			}
		})
	}
}
