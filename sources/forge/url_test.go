package forge

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeys(t *testing.T) {
	for want, locations := range map[string][]string{
		"git.example.org/team/app": {
			"https://git.example.org/team/app", "https://git.example.org/team/app.git", "http://git.example.org:3000/team/app.git/", "https://user:hush@Git.Example.Org/Team/App.git",
			"git@git.example.org:team/app.git", "git.example.org:team/app", "git@git.example.org:/team/app", "ssh://git@git.example.org/team/app.git", "ssh://git@git.example.org:2222/team/app",
			"git://git.example.org/team/app.git", "git+ssh://git@git.example.org/team/app", "https://git.example.org./team/app",
		},
		"git.example.org/group/sub/app":   {"https://git.example.org/group/sub/app.git", "git@git.example.org:group/sub/app.git"},
		"github.com/team/app":             {"https://github.com/team/app", "git@github.com:team/app.git", "ssh://git@ssh.github.com:443/team/app.git"},
		"bitbucket.org/team/app":          {"https://bitbucket.org/team/app", "ssh://git@altssh.bitbucket.org:443/team/app.git"},
		"bitbucket.example.org/team/app":  {"https://bitbucket.example.org/scm/TEAM/app.git", "https://bitbucket.example.org/projects/TEAM/repos/app", "https://bitbucket.example.org/projects/TEAM/repos/app/browse", "ssh://git@bitbucket.example.org:7999/team/app.git", "https://bitbucket.example.org/git/scm/team/app"},
		"bitbucket.example.org/~jane/app": {"https://bitbucket.example.org/scm/~jane/app.git", "https://bitbucket.example.org/users/jane/repos/app/browse", "ssh://git@bitbucket.example.org:7999/~jane/app.git"},
		"dev.azure.com/org/my shop/app": {
			"https://dev.azure.com/org/My%20Shop/_git/app", "https://org@dev.azure.com/org/My%20Shop/_git/app", "git@ssh.dev.azure.com:v3/org/My%20Shop/app",
			"https://org.visualstudio.com/My%20Shop/_git/app", "https://org.visualstudio.com/DefaultCollection/My%20Shop/_git/app", "org@vs-ssh.visualstudio.com:v3/org/My%20Shop/app",
		},
		"dev.azure.com/org/app/app":               {"https://dev.azure.com/org/_git/app", "https://dev.azure.com/org/app/_git/app"},
		"tfs.example.org/tfs/collection/shop/app": {"https://tfs.example.org/tfs/Collection/Shop/_git/app", "ssh://tfs.example.org:22/tfs/Collection/Shop/_ssh/app"},
		"[::1]/team/app":                          nil,
		"::1/team/app":                            {"http://[::1]:3000/team/app.git", "git@[::1]:team/app"},
		"": {
			"", "/srv/app.git", "./app", "file:///srv/app.git", "https://", "https:///app", "https://git.example.org", "https://git.example.org/", "https://git.example.org/.git", ".*", "%", "http://%zz/a", "a b:c",
			"https://git.example.org/a\nb", strings.Repeat("a", 5000) + ":b", "mailto:jane@example.org:x/y"[:6],
		},
	} {
		for _, l := range locations {
			if got := Key(l); got != want {
				t.Errorf("%q: got %q, want %q", l, got, want)
			}
		}
	}
}

func TestRewrites(t *testing.T) {
	rules := []Rewrite{{From: "https://git.example.org", To: "ssh://git@10.0.0.5:2222"}, {From: "git.example.org/team", To: "http://mirror.internal:3000/mirrors/team"}}
	got := Repository{URLs: []string{"https://git.example.org/team/app.git", "git@git.example.org:team/app.git"}}.Keys(rules)
	if diff := cmp.Diff([]string{"git.example.org/team/app", "10.0.0.5/team/app", "mirror.internal/mirrors/team/app"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := (Repository{URLs: []string{"https://git.example.org/teams/app"}}).Keys(rules[1:]); len(got) != 1 {
		t.Errorf("part of a name is taken for the whole: %v", got)
	}
	// A version of Bitbucket Server sends no URLs: any host fits.
	unknown := Repository{Path: "TEAM/app"}.Keys(rules)
	if !Matches("bitbucket.example.org/team/app", unknown) || Matches("bitbucket.example.org/steam/app", unknown) {
		t.Errorf("got %v", unknown)
	}
	for _, bad := range []Repository{{}, {URLs: []string{".*"}}, {Path: "/"}, {URLs: []string{"https://host"}}} {
		if Matches("git.example.org/team/app", bad.Keys(nil)) {
			t.Errorf("%+v matches", bad)
		}
	}
	for _, r := range []Rewrite{{}, {From: "a"}, {From: "a", To: "https://"}, {From: "file:///x", To: "b"}} {
		if r.Valid() {
			t.Errorf("%+v is valid", r)
		}
	}
}

func TestSet(t *testing.T) {
	s := NewSet([]Rewrite{{From: "https://github.com", To: "ssh://mirror.internal"}})
	forges := map[string]Forge{}
	for name, url := range map[string]string{"": "", "server": "https://git.example.org/bitbucket"} {
		kind := GitHub
		if name != "" {
			kind = BitbucketServer
		}
		f, err := New(Config{Kind: kind, URL: url})
		if err != nil {
			t.Fatal(err)
		}
		forges[name] = f
		s.Add(url, f)
	}
	for location, want := range map[string]struct{ forge, repo string }{
		"git@github.com:Team/app.git":                    {"", "team/app"},
		"ssh://git@mirror.internal/team/app":             {"", "team/app"},
		"https://git.example.org/bitbucket/scm/TEAM/app": {"server", "team/app"},
		"https://git.example.org/scm/TEAM/app.git":       {"server", "team/app"},
		"ssh://git@git.example.org:7999/team/app.git":    {"server", "team/app"},
	} {
		f, repo, ok := s.Find("file:///x", location)
		if !ok || f != forges[want.forge] || repo != want.repo {
			t.Errorf("%s: got %v, %q, %v", location, f, repo, ok)
		}
	}
	if _, _, ok := s.Find("https://gitlab.com/team/app", ""); ok {
		t.Error("a forge that is not there is found")
	}
}

func TestCommands(t *testing.T) {
	for body, want := range map[string][]string{
		"/fairlead plan": {"plan"}, "  \r\n/fairlead\tapprove  1a2b \r\nplease": {"approve", "1a2b"}, "/fairlead": {},
	} {
		got, ok := ParseCommand(body)
		if !ok || !cmp.Equal(got, want) {
			t.Errorf("%q: got %v, %v", body, got, ok)
		}
	}
	for _, body := range []string{"", "hello", "> /fairlead plan", "please /fairlead plan", "hello\n/fairlead plan", "/fairleader x", "/fairlead a\x1b[1m", "/fairlead " + strings.Repeat("x", 2000)} {
		if got, ok := ParseCommand(body); ok {
			t.Errorf("%.40q is a command: %v", body, got)
		}
	}
}

func TestMarkers(t *testing.T) {
	for kind, want := range map[Kind]string{GitHub: "<!-- fairlead:preview -->", Bitbucket: "[//]: # (fairlead:preview)"} {
		if got := Marker(kind, "preview"); got != want {
			t.Errorf("%s: got %s", kind, got)
		}
	}
	if got := Marker(GitLab, "a-->b\n--)"); strings.Count(got, "-->") != 1 || strings.ContainsAny(got, "\n") {
		t.Errorf("the name ends the comment: %s", got)
	}
}

func TestConfigErrors(t *testing.T) {
	token := func() (string, error) { return "t", nil }
	for name, c := range map[string]Config{
		"Gitea needs a url":        {Kind: Gitea},
		"not one: write it like":   {Kind: GitHub, URL: "github.com"},
		"more than a place":        {Kind: GitHub, URL: "https://a:b@github.com"},
		"holds no certificate":     {Kind: GitHub, CA: []byte("x")},
		"has no GitHub Apps":       {Kind: GitLab, App: &App{ID: 1}},
		"leave one of them out":    {Kind: GitHub, App: &App{ID: 1}, Token: token},
		"is not in PEM":            {Kind: GitHub, App: &App{ID: 1, Key: []byte("x")}},
		`"generic" has no API`:     {Kind: Generic, URL: "https://x.example.org"},
		`"sourceforge" has no API`: {Kind: "sourceforge", URL: "https://x.example.org"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	if _, err := ParseKind("gogs"); err == nil || !strings.Contains(err.Error(), "github, gitlab") {
		t.Errorf("got %v", err)
	}
	f, err := New(Config{Kind: GitHub, Token: func() (string, error) { return "two\nlines", nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.PullRequest(context.Background(), "a/b", 1); err == nil || strings.Contains(err.Error(), "two") || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
