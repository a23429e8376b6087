package settings

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/applications"
)

func TestReadErrors(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"unknown key":     {"stateDir: /s\nstatDir: /t\n", `f.yaml:2: unknown key "statDir"; known here: ageKeyFile, allowUnsupported, applications, configDir, defaults, engine, events, installation, listen, log, network, pods, registry, runDir, socket, stateDir`},
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
		Applications: []Application{{Location: "/a/x"}, {Location: "/b/x"}, {}},
	}.WithDefaults()
	var got []string
	for _, f := range s.Check() {
		key, _, _ := strings.Cut(f, ":")
		got = append(got, key)
	}
	want := []string{"installation", "stateDir", "socket", "listen", "network.cidr", "network.nameservers", "log.level", "log.format", "events.keep", "applications[1].name", "applications[2].location"}
	if diff := cmp.Diff(want, got); diff != "" {
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
