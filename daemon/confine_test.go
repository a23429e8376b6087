package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestPlaceOf(t *testing.T) {
	for url, want := range map[string]place{
		"https://git.example.org/a.git": onNetwork, "ssh://git@10.1.2.3/a": onNetwork, "git@git.example.org:a/b": onNetwork,
		"http://localhost:3000/a": onLoopback, "http://LOCALHOST./a": onLoopback, "http://a.localhost/": onLoopback, "http://127.9.9.9/a": onLoopback,
		"http://[::1]/a": onLoopback, "http://[::ffff:127.0.0.1]/a": onLoopback, "http://0.0.0.0/a": onLoopback, "git@127.0.0.1:a/b": onLoopback,
		"http://169.254.169.254/latest": onLoopback, "http://[fe80::1%25eth0]/a": onLoopback, "http://user@localhost/a": onLoopback,
		"file:///srv/a": onDisk, "/srv/a": onDisk, "../a": onDisk,
	} {
		if got := placeOf(applications.Source{Kind: applications.Git, Repository: applications.Repository{URL: url}}); got != want {
			t.Errorf("%s lies on %s, not on %s", url, got, want)
		}
	}
	if got := placeOf(applications.Source{Kind: applications.Local, Dir: "/srv"}); got != onDisk {
		t.Errorf("a directory lies on %s", got)
	}
}

// TestARepositoryNamesNothingNearer: what a repository declares lies no nearer to this machine than itself.
func TestARepositoryNamesNothingNearer(t *testing.T) {
	declared := func(url string) applications.Source {
		return applications.Source{
			Name: "inner", Kind: applications.Git, Repository: applications.Repository{URL: url, Branch: "main"},
			Ref: object.Ref{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository", Name: "inner"}, Origin: object.Origin{Path: "a.yaml", Line: 3},
		}
	}
	for outer, inner := range map[string]map[string]bool{
		"https://git.example.org/a": {"https://git.example.net/b": true, "http://127.0.0.1/b": false, "file:///b": false},
		"https://127.0.0.1/a":       {"https://git.example.net/b": true, "http://localhost/b": true, "file:///b": false},
		"file:///a":                 {"https://git.example.net/b": true, "http://localhost/b": true, "file:///b": true},
	} {
		for url, allowed := range inner {
			h := newHost(t)
			s := h.open(Once)
			s.mu.Lock()
			s.sources["outer"] = &sourceEntry{decl: declared(outer)}
			s.applications["root"] = &applicationEntry{decl: applications.Application{}}
			s.applications["root"].decl.Source = "outer"
			d, found := s.confine("root", applications.Declared{Sources: []applications.Source{declared(url)}})
			_, trusted := s.confine(bySettings, applications.Declared{Sources: []applications.Source{declared(url)}})
			delete(s.applications, "root")
			delete(s.sources, "outer")
			s.mu.Unlock()
			if d.Sources[0].Broken() == allowed || found.HasErrors() == allowed {
				t.Errorf("%s declares %s: %v", outer, url, found)
			}
			if !allowed && !strings.HasPrefix(found.String(), "a.yaml:3") {
				t.Errorf("%v does not say where", found)
			}
			if len(trusted) > 0 {
				t.Errorf("the settings declare %s: %v", url, trusted)
			}
			h.stop(s)
		}
	}
}

// TestNobodyTakesOverASource: a second declaration of a source's name, without the signatures that the first asks for,
// stops the source, whichever comes first in the order of names.
func TestNobodyTakesOverASource(t *testing.T) {
	for _, second := range []string{"another", "zulu"} {
		t.Run(second, func(t *testing.T) {
			h := newHost(t)
			ada := newSigning(h, "ada")
			declaredShop(h)
			trust(h, ada)
			repo := "file://" + filepath.Join(h.dir, "repo")
			h.file("root/source.yaml", fmt.Sprintf(repository, repo, ", verify: {mode: HEAD, secretRef: {name: signers}}"))
			ada.commit(h, "signed by Ada")
			h.declare(second)
			h.file(second+"/none.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n")
			s := h.open(Run)
			h.state(s, "shop", "Healthy Applied")

			h.file("repo/shop/web.yaml", deployment("web", "web:2", 1))
			inRepo(h, "-c", "user.name=Eve", "-c", "user.email=eve@example.com", "commit", "-q", "-a", "-m", "not signed")
			h.file(second+"/source.yaml", fmt.Sprintf(repository, repo, ""))
			h.state(s, second, "Failed RenderFailed", "source repo is declared by application")
			h.state(s, "shop", "Degraded SourceFailed", "source repo is declared by application", "and, differently, by application")
			h.runs("web:1")

			h.remove(second + "/source.yaml")
			h.state(s, "shop", "Degraded RevisionRefused", "is not signed")
			h.runs("web:1")
		})
	}
}
