package git

import (
	"net/url"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/google/go-cmp/cmp"
)

func TestParseLocation(t *testing.T) {
	for in, want := range map[string]location{
		"https://example.com/a/b.git":             {scheme: "https", host: "example.com", path: "/a/b.git"},
		"https://ada:pw@example.com:8443/a":       {scheme: "https", user: "ada", password: "pw", host: "example.com:8443", path: "/a"},
		"ssh://git@example.com:2222/a/b":          {scheme: "ssh", user: "git", host: "example.com:2222", path: "/a/b"},
		"ssh://git@example.com/~/b":               {scheme: "ssh", user: "git", host: "example.com", path: "~/b"},
		"git@example.com:a/b.git":                 {scheme: "ssh", user: "git", host: "example.com", path: "a/b.git"},
		"example.com:/srv/b.git":                  {scheme: "ssh", host: "example.com", path: "/srv/b.git"},
		"git@[::1]:a/b":                           {scheme: "ssh", user: "git", host: "[::1]", path: "a/b"},
		"file:///srv/../srv/b":                    {scheme: "file", path: "/srv/b"},
		"/srv/b":                                  {scheme: "file", path: "/srv/b"},
		"https://[2001:db8::1]:443/a%20b/c?x=1#y": {scheme: "https", host: "[2001:db8::1]:443", path: "/a b/c", query: "x=1"},
	} {
		got, err := parseLocation(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(location{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", in, d)
		}
	}
	for _, in := range []string{"", "ftp://example.com/x", "https://", "https://example.com", "https://example.com/", "file://host/x", "git://example.com/x", "ext::sh -c x", "-oProxyCommand=x:y", "a\nb"} {
		if got, err := parseLocation(in); err == nil {
			t.Errorf("%q is taken as %+v", in, got)
		}
	}
}

func TestJoin(t *testing.T) {
	at, _ := parseLocation("https://example.com/team/config.git")
	for in, want := range map[string]string{
		"../lib.git": "https://example.com/team/lib.git", "./sub": "https://example.com/team/config.git/sub", "../../x/y": "https://example.com/x/y",
		"git@other.com:a/b": "git@other.com:a/b",
	} {
		got, err := at.join(in)
		if err != nil || got.shown() != want {
			t.Errorf("%s: %s %v, want %s", in, got.shown(), err, want)
		}
	}
	for _, in := range []string{"../../../x", "../..", "../../.."} {
		if got, err := at.join(in); err == nil {
			t.Errorf("%s: %s", in, got.shown())
		}
	}
	same, _ := parseLocation("https://example.com/other")
	other, _ := parseLocation("https://example.com.evil.org/other")
	lower, _ := parseLocation("http://example.com/other")
	if !at.sameHost(same) || at.sameHost(other) || at.sameHost(lower) {
		t.Error("credentials would go to the wrong host, or not to the right one")
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://ada:pw@example.com/a":        "https://***@example.com/a",
		"get https://t0ken@example.com: no":   "get https://***@example.com: no",
		"https://a:p@ss@example.com/a":        "https://***@example.com/a",
		"ssh://git@example.com/a":             "ssh://git@example.com/a",
		"ssh://git:pw@example.com/a":          "ssh://***@example.com/a",
		"ada:pw@example.com:a":                "***@example.com:a",
		"git@example.com:a/b":                 "git@example.com:a/b",
		"https://example.com/a?token=x and b": "https://example.com/a?*** and b",
		"HTTPS://A:B@X/":                      "HTTPS://***@X/",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("ada", "secret", "example.com", "/a/b")
	f.Add("", "p@ss:w/ord", "[::1]:443", "/x?y#z")
	f.Add("0", "00000 ", "00", "") // a password that is not escaped makes no URL
	f.Fuzz(func(t *testing.T, user, password, host, path string) {
		if len(password) < 6 || strings.Contains("***@example.com/https://"+host+path+user, password) {
			return
		}
		escaped := (&url.URL{Scheme: "https", User: url.UserPassword(user, password), Host: "example.com", Path: "/x"}).String()
		if got := Redact("fetch " + escaped + " failed"); strings.Contains(got, url.UserPassword("", password).String()[1:]) && !strings.Contains(host+path, password) {
			t.Errorf("Redact(%q) = %q", escaped, got)
		}
		if l, err := parseLocation("https://" + user + ":" + password + "@" + host + path); err == nil {
			if l.password != "" && len(l.password) >= 6 && strings.Contains(l.shown(), l.password) && !strings.Contains(l.host+l.path, l.password) {
				t.Errorf("%+v is shown as %q", l, l.shown())
			}
		} else if strings.Contains(err.Error(), ":"+password+"@") {
			t.Errorf("error %v", err)
		}
	})
}

func FuzzRevision(f *testing.F) {
	for _, s := range []string{"", "HEAD", "main", "refs/heads/main", "v1.0.0", "semver:>=1", "semver:", "0123abc", strings.Repeat("a", 40), "heads/main", "../x", "a..b", "-x", "semver:>=1.0.0 || <x"} {
		f.Add(s)
	}
	l := &listing{head: "refs/heads/main", refs: map[string]plumbing.Hash{
		"HEAD": {1}, "refs/heads/main": {1}, "refs/tags/v1.0.0": {2}, "refs/tags/1.0.0": {3}, "refs/pull/1/head": {4},
	}, peeled: map[string]plumbing.Hash{"refs/tags/v1.0.0": {5}}}
	f.Fuzz(func(t *testing.T, s string) {
		o := Options{Revision: s}
		if checkOptions(o) != nil {
			return
		}
		sel, err := resolve(wanted(o), l)
		if err != nil {
			return
		}
		if sel.prefix == "" && sel.commit.IsZero() {
			t.Errorf("%q selects nothing: %+v", s, sel)
		}
		if sel.ref != "" && l.refs[sel.ref] != sel.object {
			t.Errorf("%q selects %+v, which the reference does not hold", s, sel)
		}
		if again, _ := resolve(wanted(o), l); again != sel {
			t.Errorf("%q selects %+v and then %+v", s, sel, again)
		}
	})
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseTree(data)
		for _, e := range list {
			if err == nil && (e.name == "" || e.name == ".." || strings.ContainsAny(e.name, "/\x00")) {
				t.Errorf("name %q", e.name)
			}
		}
	})
}
