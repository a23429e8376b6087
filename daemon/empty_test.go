package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

const (
	namedMap   = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: b}\n"
	withFiles  = "resources: [web.yaml, db.yaml, c0.yaml, c1.yaml, c2.yaml]\n"
	repository = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: repo, namespace: default}\nspec: {url: '%s', interval: 1h, ref: {branch: main}%s}\n"
)

// blind is an engine whose list is empty though everything runs.
type blind struct {
	runtimes.Engine
	is *atomic.Bool
}

func (b blind) List(ctx context.Context) ([]runtimes.Container, error) {
	if b.is.Load() {
		return nil, nil
	}
	return b.Engine.List(ctx)
}

// fleet declares the application "shop" of a repository, by objects in the directory "root", and the application
// "loc" of a directory. Both run pods.
func fleet(h *host) {
	h.t.Helper()
	declaredShop(h)
	h.remove("repo/shop/web.yaml")
	h.declare("loc")
	for _, dir := range []string{"repo/shop/", "loc/"} {
		prefix := strings.Trim(strings.ReplaceAll(dir, "repo/", ""), "/")
		h.file(dir+"web.yaml", deployment(prefix+"-web", "web:1", 2))
		h.file(dir+"db.yaml", deployment(prefix+"-db", "web:2", 1))
		for i := range 3 {
			h.file(fmt.Sprintf("%sc%d.yaml", dir, i), fmt.Sprintf(namedMap, fmt.Sprintf("%s-c%d", prefix, i)))
		}
		h.file(dir+"kustomization.yaml", withFiles)
	}
	h.url = serve(h)
	h.file("root/source.yaml", fmt.Sprintf(repository, h.url, ""))
	h.file("repo/other/x.yaml", fmt.Sprintf(namedMap, "x"))
	commit(h)
}

// serve serves the repository as a Git server does, so that the daemon has a clone of it.
func serve(h *host) string {
	h.t.Helper()
	backend := filepath.Join(strings.TrimSpace(run(h, "git", "--exec-path")), "git-http-backend")
	server := httptest.NewServer(&cgi.Handler{
		Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + h.dir, "GIT_HTTP_EXPORT_ALL=1"}, Stderr: io.Discard,
	})
	h.t.Cleanup(server.Close)
	return server.URL + "/repo/.git"
}

// settle has every source and application looked at twice, and waits until nothing is under way.
func settle(h *host, s *System) {
	h.t.Helper()
	for range 2 {
		before := map[string]int{}
		for _, st := range s.statuses() {
			before[st.Config.Name] = st.Pass
		}
		_ = s.fetchAll(h.t.Context(), nil)
		if err := s.Reconcile(h.t.Context(), nil); err != nil {
			h.t.Fatal(err)
		}
		h.eventually(s, "everything was looked at", func() bool {
			for _, st := range s.statuses() {
				if st.Walking || st.Pass < before[st.Config.Name]+1 {
					return false
				}
			}
			return true
		})
	}
}

// each edits every file of both applications.
func each(h *host, edit func(name string, content string) (string, string)) {
	h.t.Helper()
	for _, dir := range []string{"repo/shop", "loc"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, dir))
		if err != nil {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() == "kustomization.yaml" {
				continue
			}
			path := filepath.Join(dir, e.Name())
			b, err := os.ReadFile(filepath.Join(h.dir, path))
			if err != nil {
				h.t.Fatal(err)
			}
			name, content := edit(e.Name(), string(b))
			if name != e.Name() {
				h.remove(path)
			}
			h.file(filepath.Join(dir, name), content)
		}
	}
}

// both writes a file into the directories of both applications.
func both(h *host, name, content string) {
	h.file("repo/shop/"+name, content)
	h.file("loc/"+name, content)
}

// An accident that makes a source look empty, or smaller than it is, deletes nothing that runs: neither while the daemon
// runs nor when it starts afterwards.
func TestLooksEmpty(t *testing.T) {
	var dark atomic.Bool
	withoutFiles := func(h *host) {
		h.remove("repo/shop/kustomization.yaml")
		h.remove("loc/kustomization.yaml")
	}
	shop := strings.ReplaceAll(fluxApp, "NAME", "shop")
	// what happens in the sources, then a commit of everything; stopped is what happens while the daemon does not run.
	cases := map[string]struct {
		edit    func(h *host)
		stopped func(h *host)
		engine  func(h *host) // after the commit, while the daemon runs
	}{
		"a branch without files":   {edit: func(h *host) { inRepo(h, "rm", "-rq", "."); h.remove("loc"); h.file("loc/.keep", "") }},
		"a path that was deleted":  {edit: func(h *host) { h.remove("repo/shop"); h.remove("loc") }},
		"a path that was renamed":  {edit: func(h *host) { inRepo(h, "mv", "shop", "store") }},
		"a path that is misspelt":  {edit: func(h *host) { h.file("root/shop.yaml", strings.Replace(shop, "./shop", "./shpo", 1)) }},
		"a path of something else": {edit: func(h *host) { h.file("root/shop.yaml", strings.Replace(shop, "./shop", "./other", 1)) }},
		"a directory that is empty": {edit: func(h *host) {
			h.remove("loc")
			h.remove("repo/shop")
			h.file("loc/.keep", "")
			h.file("repo/shop/.keep", "")
		}},
		"a kustomization without resources": {edit: func(h *host) { both(h, "kustomization.yaml", "resources: []\n") }},
		"a kustomization that is empty":     {edit: func(h *host) { both(h, "kustomization.yaml", "") }},
		"resources that are commented out":  {edit: func(h *host) { both(h, "kustomization.yaml", "#"+withFiles) }},
		"a kustomization with one resource": {edit: func(h *host) { both(h, "kustomization.yaml", "resources: [c0.yaml]\n") }},
		"a base that vanished":              {edit: func(h *host) { both(h, "kustomization.yaml", "resources: [../base]\n") }},
		"a base without anything": {edit: func(h *host) {
			h.file("loc/base/kustomization.yaml", "resources: []\n")
			h.file("repo/shop/base/kustomization.yaml", "resources: []\n")
			both(h, "kustomization.yaml", "resources: [base]\n")
		}},
		"a component that vanished": {edit: func(h *host) { both(h, "kustomization.yaml", withFiles+"components: [../gone]\n") }},
		"a generator that fails": {edit: func(h *host) {
			both(h, "kustomization.yaml", withFiles+"configMapGenerator: [{name: g, files: [gone.txt]}]\n")
		}},
		"a patch that deletes everything": {edit: func(h *host) {
			both(h, "kustomization.yaml", withFiles+"patches: [{target: {kind: '.*'}, patch: '{\"apiVersion\": \"v1\", \"kind\": \"x\", \"metadata\": {\"name\": \"x\"}, \"$patch\": \"delete\"}'}]\n")
		}},
		"a namespace that moves everything": {edit: func(h *host) { both(h, "kustomization.yaml", "namespace: shpo\n"+withFiles) }},
		"a prefix that renames everything":  {edit: func(h *host) { both(h, "kustomization.yaml", "namePrefix: x-\n"+withFiles) }},
		"a targetNamespace that moves all": {edit: func(h *host) {
			h.file("root/shop.yaml", strings.Replace(shop, "prune: true", "prune: true, targetNamespace: shpo", 1))
		}},
		"files that are all ignored": {edit: func(h *host) { h.file("repo/.sourceignore", "*\n") }},
		"ignore rules of the source": {edit: func(h *host) {
			h.file("root/source.yaml", fmt.Sprintf(repository, h.url, ", ignore: '/*'"))
		}},
		"a sparse checkout of something else": {edit: func(h *host) {
			h.file("root/source.yaml", fmt.Sprintf(repository, h.url, ", sparseCheckout: [other]"))
		}},
		"documents that are commented out": {edit: func(h *host) {
			each(h, func(n, c string) (string, string) { return n, "# " + strings.ReplaceAll(c, "\n", "\n# ") + "\n" })
		}},
		"documents commented out, no list": {edit: func(h *host) {
			withoutFiles(h)
			each(h, func(n, c string) (string, string) { return n, "# " + strings.ReplaceAll(c, "\n", "\n# ") + "\n" })
		}},
		"files without content":     {edit: func(h *host) { withoutFiles(h); each(h, func(n, _ string) (string, string) { return n, "" }) }},
		"files of separators":       {edit: func(h *host) { withoutFiles(h); each(h, func(n, _ string) (string, string) { return n, "---\n---\n" }) }},
		"files with another ending": {edit: func(h *host) { withoutFiles(h); each(h, func(n, c string) (string, string) { return n + ".txt", c }) }},
		"lists without items": {edit: func(h *host) {
			withoutFiles(h)
			each(h, func(n, _ string) (string, string) { return n, "apiVersion: v1\nkind: List\nitems: []\n" })
		}},
		"files of null": {edit: func(h *host) { withoutFiles(h); each(h, func(n, _ string) (string, string) { return n, "null\n" }) }},
		"pointers of a large file storage": {edit: func(h *host) {
			each(h, func(n, _ string) (string, string) {
				return n, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
			})
		}},
		"a merge with conflicts": {edit: func(h *host) {
			each(h, func(n, c string) (string, string) { return n, "<<<<<<< HEAD\n" + c + "=======\n>>>>>>> x\n" })
		}},
		"an error page in place of files": {edit: func(h *host) {
			each(h, func(n, _ string) (string, string) { return n, "<html><body>503</body></html>\n" })
		}},
		"files that are cut off": {edit: func(h *host) { each(h, func(n, c string) (string, string) { return n, c[:len(c)/2] }) }},
		"names that substitution empties": {edit: func(h *host) {
			h.file("root/shop.yaml", strings.Replace(shop, "prune: true", "prune: true, postBuild: {substitute: {a: b}}", 1))
			each(h, func(n, c string) (string, string) { return n, strings.Replace(c, "name: shop", "name: ${gone}", 1) })
		}},
		"variables from what vanished": {edit: func(h *host) {
			h.file("root/shop.yaml", strings.Replace(shop, "prune: true", "prune: true, postBuild: {substituteFrom: [{kind: ConfigMap, name: gone}]}", 1))
		}},
		"files that cannot be decrypted": {edit: func(h *host) {
			each(h, func(n, c string) (string, string) {
				return n, c + "sops: {mac: 'ENC[AES256_GCM,data:x]', age: [{recipient: age1x, enc: x}], version: 3.9.0}\n"
			})
		}},
		"a submodule in place of the path": {edit: func(h *host) {
			h.remove("repo/shop")
			inRepo(h, "rm", "-rq", "--cached", "shop")
			inRepo(h, "update-index", "--add", "--cacheinfo", "160000,1111111111111111111111111111111111111111,shop")
		}},
		"a link that leads to itself":      {edit: func(h *host) { link(h, "shop", "repo/shop"); link(h, "loc", "loc") }},
		"a link that leads nowhere":        {edit: func(h *host) { link(h, "gone", "repo/shop"); link(h, "gone", "loc") }},
		"a file in place of the directory": {edit: func(h *host) { h.remove("repo/shop"); h.file("repo/shop", ""); h.remove("loc"); h.file("loc", "") }},
		"a file that cannot be read":       {edit: func(h *host) { h.remove("loc/web.yaml"); run(h, "mkfifo", filepath.Join(h.dir, "loc/web.yaml")) }},
		"a file that is a link to nowhere": {edit: func(h *host) {
			withoutFiles(h)
			link(h, "gone.yaml", "loc/web.yaml")
			link(h, "gone.yaml", "loc/db.yaml")
			link(h, "gone.yaml", "repo/shop/web.yaml")
			link(h, "gone.yaml", "repo/shop/db.yaml")
		}},
		"a reference that does not exist": {edit: func(h *host) {
			h.file("root/source.yaml", strings.Replace(fmt.Sprintf(repository, h.url, ""), "branch: main", "branch: mian", 1))
		}},
		"a branch that was deleted": {edit: func(h *host) { inRepo(h, "checkout", "-q", "-b", "other"); inRepo(h, "branch", "-qD", "main") }},
		"a push of an unrelated history": {edit: func(h *host) {
			inRepo(h, "checkout", "-q", "--orphan", "fresh")
			inRepo(h, "rm", "-rqf", ".")
			h.file("repo/README.md", "new\n")
			commit(h)
			inRepo(h, "branch", "-qM", "fresh", "main")
		}},
		"a repository without commits": {edit: func(h *host) {
			h.remove("repo")
			run(h, "git", "init", "-q", "-b", "main", filepath.Join(h.dir, "repo"))
		}},
		"a repository that is away": {engine: func(h *host) { h.remove("repo") }},
		"another repository of that name": {edit: func(h *host) {
			h.remove("repo")
			run(h, "git", "init", "-q", "-b", "main", filepath.Join(h.dir, "repo"))
			h.file("repo/README.md", "x\n")
		}},
		"a repository whose objects are lost":  {engine: func(h *host) { commit(h); h.remove("repo/.git/objects"); h.file("repo/.git/objects/info/x", "") }},
		"a clone that is damaged":              {stopped: func(h *host) { spoil(h, "state/sources") }},
		"a clone that is lost":                 {stopped: func(h *host) { h.remove("state/sources") }},
		"a clone that cannot be written":       {stopped: func(h *host) { h.remove("state/sources"); h.file("state/sources", "") }},
		"a clone that is lost, and its source": {stopped: func(h *host) { h.remove("state/sources"); h.remove("repo"); h.remove("loc") }},
		"a declaration that is suspended": {edit: func(h *host) {
			h.file("root/shop.yaml", strings.Replace(shop, "prune: true", "prune: true, suspend: true", 1))
			h.remove("repo/shop")
		}},
		"a source that is suspended": {edit: func(h *host) {
			h.file("root/source.yaml", fmt.Sprintf(repository, h.url, ", suspend: true"))
			h.remove("repo/shop")
		}},
		"a declaration that is gone":           {edit: func(h *host) { h.remove("root/shop.yaml") }},
		"a declaration that is commented out":  {edit: func(h *host) { h.file("root/shop.yaml", "# "+strings.ReplaceAll(shop, "\n", "\n# ")+"\n") }},
		"a declaration with a mistake":         {edit: func(h *host) { h.file("root/shop.yaml", strings.Replace(shop, "prune: true", "prun: true", 1)) }},
		"a declaration of another name":        {edit: func(h *host) { h.file("root/shop.yaml", strings.Replace(shop, "name: shop", "name: shpo", 1)) }},
		"a source that is declared no more":    {edit: func(h *host) { h.remove("root/source.yaml") }},
		"declarations that are all gone":       {edit: func(h *host) { h.remove("root/shop.yaml"); h.remove("root/source.yaml") }},
		"the declaring directory is not there": {edit: func(h *host) { h.remove("root") }},
		"the declaring directory unmounted":    {stopped: func(h *host) { h.remove("root"); h.file("root/.keep", "") }},
		"settings without applications":        {stopped: func(h *host) { h.set.Applications = nil }},
		"a setting that is misspelt":           {stopped: func(h *host) { h.set.Applications[1].Location += "x" }},
		"settings of another path":             {stopped: func(h *host) { h.set.Applications[1].Path = "gone" }},
		"settings of another namespace":        {stopped: func(h *host) { h.set.Applications[1].Namespace = "shpo" }},
		"an engine that lists nothing":         {engine: func(h *host) { dark.Store(true) }},
		"an engine that does not answer":       {engine: func(h *host) { h.engine.Break(fake.Fault{Kind: fake.CallList}) }},
		"a state directory that is lost":       {stopped: func(h *host) { h.remove("state") }},
		"records that are lost":                {stopped: func(h *host) { h.remove("state/applications") }},
		"records that are damaged":             {stopped: func(h *host) { spoil(h, "state/applications") }},
		"records that are lost, and sources":   {stopped: func(h *host) { h.remove("state/applications"); h.remove("repo/shop"); h.remove("loc"); commit(h) }},
		"a key that is lost":                   {stopped: func(h *host) { h.remove("state/key") }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dark.Store(false)
			h := newHost(t)
			h.wrap = func(e runtimes.Engine) runtimes.Engine { return blind{e, &dark} }
			fleet(h)
			s := h.open(Run)
			h.state(s, "shop", "Healthy Applied")
			h.state(s, "loc", "Healthy Applied")
			before := runningIDs(h)
			if len(before) < 6 {
				t.Fatalf("only %d containers run", len(before))
			}
			still := func(when string) {
				t.Helper()
				after := runningIDs(h)
				for id, what := range before {
					if after[id] == "" {
						var b strings.Builder
						for _, st := range s.statuses() {
							fmt.Fprintf(&b, "%s: %s %s: %s\n", st.Config.Name, st.Health, st.Reason, st.Detail)
						}
						t.Fatalf("%s, %s was stopped; applications:\n%s", when, what, b.String())
					}
				}
			}
			if tc.edit != nil {
				tc.edit(h)
				if _, err := os.Stat(filepath.Join(h.dir, "repo/.git")); err == nil {
					commit(h)
				}
			}
			if tc.engine != nil {
				tc.engine(h)
			}
			settle(h, s)
			still("while the daemon ran")
			h.stop(s)
			if tc.stopped != nil {
				tc.stopped(h)
			}
			s, err := h.try(Run)
			if err != nil {
				still("when it did not start: " + err.Error())
				return
			}
			settle(h, s)
			still("after a restart")
		})
	}
}

// runningIDs are the containers of pods that run, with the pod's name.
func runningIDs(h *host) map[string]string {
	out := map[string]string{}
	for _, c := range h.engine.Containers() {
		if c.Running && !c.Foreign {
			out[c.ID] = c.Pod.String() + "/" + c.Container.Container
		}
	}
	return out
}

func link(h *host, to, name string) {
	h.t.Helper()
	h.remove(name)
	if err := os.Symlink(to, filepath.Join(h.dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

// spoil cuts every file below a directory in half.
func spoil(h *host, dir string) {
	h.t.Helper()
	err := filepath.Walk(filepath.Join(h.dir, dir), func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		_ = os.Chmod(path, 0o600)
		return os.Truncate(path, info.Size()/2)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
