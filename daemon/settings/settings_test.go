package settings

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/sources/forge/webhook"
)

func TestReadErrors(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"unknown key":     {"stateDir: /s\nstatDir: /t\n", `f.yaml:2: unknown key "statDir"; known here: ageKeyFile, allowUnsupported, applications, configDir, consul, defaults, dns, engine, events, forges, hooks, installation, listen, log, network, notifications, pods, registry, runDir, services, socket, stateDir`},
		"unknown below":   {"log:\n  levl: info\n", `f.yaml:2: unknown key "levl"; known here: format, level`},
		"twice":           {"socket: /a\nsocket: /b\n", `f.yaml:2: mapping key "socket" already defined at line 1`},
		"wrong type":      {"events:\n  keep: many\n", "f.yaml:2: `many` is not a number"},
		"duration":        {"defaults:\n  interval: 5\n", `f.yaml:2: "5" is not a duration: write it like 30s, 5m or 1h`},
		"several at once": {"a: 1\nb: 2\n", "f.yaml:1: unknown key \"a\""},
		"syntax":          {"log: [\n", "f.yaml: 1: did not find expected node content"},
		"two documents":   {"socket: /a\n---\nsocket: /b\n", "f.yaml: has several documents: keep one"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("f.yaml", []byte(tt.content))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fairlead.yaml")
	err := os.WriteFile(file, []byte(`
listen: 127.0.0.1:9440
defaults: {interval: 30s}
applications:
  - location: https://git.example.org/shop.git
    path: overlays/prod
    ref: semver:>=1.0.0
    prune: false
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	s = s.WithDefaults()
	if found := s.Check(); found != nil {
		t.Errorf("found %q in good settings", found)
	}
	if time.Duration(s.Defaults.Interval) != 30*time.Second || s.StateDir != "/var/lib/fairlead" || s.RunDir != "/run/fairlead" {
		t.Errorf("got %+v", s)
	}
	d, list := s.Declared()
	if len(list) > 0 {
		t.Errorf("findings: %s", list)
	}
	if a := d.Applications[0]; a.Name != "shop-prod" || a.Source != "shop-prod" || a.Path != "overlays/prod" || a.Prune {
		t.Errorf("got application %+v", a)
	}
	if r := d.Sources[0].Repository; r.SemVer != ">=1.0.0" || r.URL != "https://git.example.org/shop.git" {
		t.Errorf("got repository %+v", r)
	}
}

func TestCheck(t *testing.T) {
	s := Settings{
		Installation: "No", StateDir: "relative", Socket: "/" + strings.Repeat("x", 100), Listen: "9440",
		Network: Network{CIDR: "10.0.0.0", Nameservers: []string{"dns"}}, Log: Log{Level: "loud", Format: "xml"}, Events: Events{Keep: -1},
		Services:     Services{CIDR: "10.0.0.0/30", NodePorts: "9-8", LoadBalancers: []string{"192.0.2.1-192.0.2.9", "192.0.2.8/31"}},
		DNS:          DNS{Listen: []string{"127.0.0.1"}, Domains: map[string][]string{"consul": {"localhost:8600"}}},
		Applications: []Application{{Location: "/a/x"}, {Location: "/b/x"}, {}},
	}.WithDefaults()
	var got []string
	for _, f := range s.Check() {
		key, _, _ := strings.Cut(f, ":")
		got = append(got, key)
	}
	want := []string{"installation", "stateDir", "socket", "listen", "network.cidr", "network.nameservers", "services.cidr", "services.nodePorts", "services.loadBalancers", "dns.listen", "dns.domains", "log.level", "log.format", "events.keep", "applications[1].name", "applications[2].location"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestHooks(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	t.Setenv("FAIRLEAD_TEST_SECRET", "hush")
	s := Settings{
		Hooks: &Hooks{Listen: "127.0.0.1:0", Endpoints: []Endpoint{
			{Forge: "github", SecretFile: file("secret", "new secret\n\nold secret\n")}, {Forge: "gitlab", Path: "/x", SecretEnv: "FAIRLEAD_TEST_SECRET"},
		}, Rewrites: []Rewrite{{From: "https://github.com", To: "ssh://git@mirror.example.org"}}},
		Forges: []Forge{{Kind: "github", TokenFile: file("token", "t\n"), Approvers: []string{"jane"}}, {Kind: "gitea", URL: "https://git.example.org", TokenEnv: "FAIRLEAD_TEST_SECRET"}},
	}.WithDefaults()
	if found := s.Check(); found != nil {
		t.Fatal(found)
	}
	got, err := s.Hooks.Proved()
	want := map[string]webhook.Endpoint{
		"/hooks/github": {Forge: "github", Secrets: []string{"new secret", "old secret"}}, "/x": {Forge: "gitlab", Secrets: []string{"hush"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if s.Hooks.BodySize() != 2<<20 {
		t.Errorf("the largest body has %d bytes", s.Hooks.BodySize())
	}
	set, of, err := s.OpenForges("fairlead/test")
	if err != nil {
		t.Fatal(err)
	}
	if f, repo, ok := set.Find("ssh://git@mirror.example.org/team/config.git"); !ok || f.Kind() != "github" || repo != "team/config" || !slices.Equal(of[f].Approvers, []string{"jane"}) {
		t.Errorf("got %v, %q, %+v", f, repo, of[f])
	}

	for content, want := range map[string]string{"": "needs a secret", "  \n": "needs a secret"} {
		s.Hooks.Endpoints = []Endpoint{{Forge: "github", SecretFile: file("secret", content)}}
		if _, err := s.Hooks.Proved(); err == nil || !strings.Contains(err.Error(), "hooks.endpoints[0]: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", content, err)
		}
	}
	s.Forges = []Forge{{Kind: "github", TokenFile: file("token", "\n")}, {Kind: "github", TokenEnv: "FAIRLEAD_TEST_NONE"}, {Kind: "github", App: &ForgeApp{ID: 1, KeyFile: file("key", "x")}}}
	if _, _, err := s.OpenForges(""); err == nil || strings.Count(err.Error(), "forges[") != 3 {
		t.Errorf("got %v", err)
	}
}

func TestHooksCheck(t *testing.T) {
	s := Settings{
		Hooks: &Hooks{Listen: "9443", TLS: HooksTLS{CertFile: "/c"}, MaxBody: "1TB", Endpoints: []Endpoint{
			{Forge: "gogs"}, {Forge: "github", Path: "hooks"}, {Forge: "azure-devops", SecretFile: "/s"}, {Forge: "gitlab", SecretFile: "/s", SecretEnv: "S"}, {Forge: "gitlab", SecretFile: "/s"},
		}, Rewrites: []Rewrite{{From: "a"}}},
		Forges: []Forge{{}, {Kind: "generic"}, {Kind: "github"}, {Kind: "github", App: &ForgeApp{}, Approvers: []string{"jane", " joe"}}},
	}.WithDefaults()
	var got []string
	for _, f := range s.Check() {
		key, _, _ := strings.Cut(f, ":")
		got = append(got, key)
	}
	want := []string{
		"hooks.listen", "hooks.tls", "hooks.maxBody", "hooks.endpoints[0].forge", "hooks.endpoints[1].path", "hooks.endpoints[1]", "hooks.endpoints[2].username",
		"hooks.endpoints[3]", "hooks.endpoints[4].path", "hooks.rewrites[0]", "forges[0].kind", "forges[1].kind", "forges[2]", "forges[3].approvers[1]", "forges[3].app",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestKindsThatAreApproved(t *testing.T) {
	s := Settings{Applications: []Application{{Location: "/srv/shop", ApproveKinds: []string{"Deployment.apps", "deployments"}}}}.WithDefaults()
	s.Defaults.Approval.Kinds = []string{"Secret", "*.rbac.authorization.k8s.io", "secret/x"}
	want := []string{
		`defaults.approval.kinds: "secret/x" is no kind: write it like Secret, Deployment.apps or *.rbac.authorization.k8s.io`,
		`applications[0].approveKinds: "deployments" is no kind: write it like Secret, Deployment.apps or *.rbac.authorization.k8s.io`,
	}
	if diff := cmp.Diff(want, s.Check()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ location, path, want string }{
		{"https://git.example.org/team/shop.git", "", "shop"},
		{"https://git.example.org/team/shop.git", "./overlays/prod/", "shop-prod"},
		{"git@git.example.org:shop", "", "shop"},
		{"/srv/Config Repo", "a", "config-repo-a"},
		{"file:///", "", "application"},
	} {
		if got := (Application{Location: tt.location, Path: tt.path}).name(); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.location, tt.path, got, tt.want)
		}
	}
}

// A work tree is read as it lies there, unless a reference says that commits are meant.
func TestWorkTree(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	bare := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", bare).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	for name, tt := range map[string]struct {
		a    Application
		kind applications.SourceKind
	}{
		"work tree":                  {Application{Location: dir}, applications.Local},
		"work tree with a reference": {Application{Location: dir, Ref: "main"}, applications.Git},
		"bare repository":            {Application{Location: bare}, applications.Git},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tt.a.source()
			if err != nil || s.Kind != tt.kind {
				t.Errorf("got %v, %v; want %v", s.Kind, err, tt.kind)
			}
			if s.Kind == applications.Git && s.Repository.URL != "file://"+tt.a.Location {
				t.Errorf("got URL %s", s.Repository.URL)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := (Application{Location: "https://x/y", Auth: Auth{PasswordFile: token}}).source()
	if err != nil || s.Repository.Auth.Password != "hush" || s.Repository.Auth.Username != "git" {
		t.Errorf("got %q, %v", s.Repository.Auth.Username, err)
	}
	settings := Settings{Applications: []Application{{Location: "https://x/y", Auth: Auth{CAFile: filepath.Join(dir, "none")}}}}
	d, list := settings.Declared()
	if !list.HasErrors() || !d.Sources[0].Broken() || !strings.Contains(list.String(), "read the CA certificates: open ") {
		t.Errorf("a missing file is not reported: %s", list)
	}
}

// Every key has its row in docs/settings.md.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	for s := range structs(reflect.TypeFor[Settings]()) {
		for _, k := range keys(s.Name()) {
			if !strings.Contains(string(page), "`"+k+"`") && !strings.Contains(string(page), "."+k+"`") &&
				!strings.Contains(string(page), "`"+k+".") {
				t.Errorf("docs/settings.md does not say what %s of %s is", k, s.Name())
			}
		}
	}
}

func TestAddressRanges(t *testing.T) {
	s := Services{LoadBalancers: []string{"192.0.2.64/30", "192.0.2.9", "192.0.2.10 - 192.0.2.20"}}
	got, err := s.LoadBalancerRanges()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, r := range got {
		words = append(words, r.First.String()+"-"+r.Last.String())
	}
	if diff := cmp.Diff([]string{"192.0.2.9-192.0.2.9", "192.0.2.10-192.0.2.20", "192.0.2.64-192.0.2.67"}, words); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, wrong := range []string{"", "x", "192.0.2.9-192.0.2.8", "fd00::1", "10.0.0.0/8", "192.0.2.1-fd00::1"} {
		if _, err := (Services{LoadBalancers: []string{wrong}}).LoadBalancerRanges(); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestPruneLimits(t *testing.T) {
	s, err := parse("f.yaml", []byte("defaults: {pruneLimit: {maxShare: 20}}\napplications: [{location: /x, pruneLimit: {maxCount: 0}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	s = s.WithDefaults()
	if found := s.Check(); len(found) > 0 {
		t.Fatal(found)
	}
	d, _ := s.Declared()
	if *s.Defaults.PruneLimit.MaxShare != 20 || *s.Defaults.PruneLimit.MaxCount != 4 || *d.Applications[0].MaxCount != 0 || d.Applications[0].MaxShare != nil {
		t.Errorf("got %+v", d.Applications[0])
	}
	s.Applications[0].PruneLimit.MaxShare = new(int)
	*s.Applications[0].PruneLimit.MaxShare = 101
	if found := s.Check(); len(found) != 1 || !strings.HasPrefix(found[0], "applications[0].pruneLimit.maxShare: ") {
		t.Errorf("got %q", found)
	}
}
