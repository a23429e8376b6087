package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/forgetest"
)

// BenchmarkPreview is from a forge's delivery that a pull request has a new commit until its comment and all of its
// statuses are there: an application of a hundred objects, in a repository of five thousand files, most of which are not read. The
// repository is served by Git over HTTP, the forge is in memory behind its HTTP API, and the engine is in memory. The goal is 1 s.
func BenchmarkPreview(b *testing.B) {
	const objects, files = 100, 5000
	h := newHost(b)
	r := newGitRepo(h)
	all := map[string]string{}
	web := func(i, version int) (string, string) {
		return fmt.Sprintf("shop/web-%02d.yaml", i), deployment(fmt.Sprintf("web-%02d", i), fmt.Sprintf("web:%d", version), 1)
	}
	for i := range objects / 5 {
		file, content := web(i, 1)
		all[file] = content
		for j := range 4 {
			all[fmt.Sprintf("shop/config-%02d-%d.yaml", i, j)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%02d-%d}\ndata: {a: \"1\", b: \"%s\"}\n", i, j, strings.Repeat("x", 200))
		}
	}
	for i := len(all); i < files; i++ {
		all[fmt.Sprintf("src/package-%02d/file-%04d.go", i%50, i)] = fmt.Sprintf("package p%d\n\n%s", i%50, strings.Repeat(fmt.Sprintf("// Line of %d.\n", i), 40))
	}
	r.commit("Begin", all)
	fake := forgetest.NewFake(b, forge.GitHub)
	// Keys leave out the port, so the repository that is served and that of the forge are one.
	at := filepath.Join(h.dir, fake.Repository())
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(r.dir, at)); err != nil {
		b.Fatal(err)
	}
	url := strings.TrimSuffix(r.serve(), "/repo") + "/" + fake.Repository()
	const secret = "correct horse"
	token, err := fake.Config().Token()
	if err != nil {
		b.Fatal(err)
	}
	h.file("secret", secret)
	h.file("token", token)
	h.set.Installation = "bench"
	h.set.Hooks = &settings.Hooks{Listen: "127.0.0.1:0", Endpoints: []settings.Endpoint{{Forge: "github", SecretFile: filepath.Join(h.dir, "secret")}}}
	h.set.Forges = []settings.Forge{{Kind: "github", URL: fake.Config().URL, TokenFile: filepath.Join(h.dir, "token")}}
	h.set.Applications = []settings.Application{{Name: "shop", Location: url, Path: "shop", Ref: "main"}}
	s := h.open(Run)
	serve, err := s.serveHooks(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve() }()
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	h.state(s, "shop", "Healthy Applied")
	fake.Subscribe(nil, "http://"+s.hooksFrom().Address+"/hooks/github", secret)
	client, err := forge.New(fake.Config())
	if err != nil {
		b.Fatal(err)
	}
	posted := func(head, want string) {
		deadline := time.Now().Add(time.Minute)
		for {
			st, _, err := client.Status(b.Context(), fake.Repository(), head, "fairlead/bench")
			switch {
			case err != nil:
				b.Fatal(err)
			case st.Description == want:
				return
			case time.Now().After(deadline):
				b.Fatalf("the status of %s is %+v, want %s", head, st, want)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	change := func(n int) {
		file, _ := web(n%(objects/5), 1)
		r.commit("Change", map[string]string{file: strings.Replace(deployment(fmt.Sprintf("web-%02d", n%(objects/5)), "web:2", 1), "web:2", fmt.Sprintf("web:2@sha256:%064d", n), 1)})
	}
	r.git("checkout", "-q", "-b", "change-1")
	r.git("symbolic-ref", "refs/pull/1/head", "refs/heads/change-1") // where GitHub keeps it
	change(0)
	pull := fake.Open(nil, "Change", false)
	posted(pull.Head, "1 to add, 1 to change, 1 to destroy")
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		r.git("reset", "-q", "--hard", "main")
		change(n)
		b.StartTimer()
		posted(fake.Push(nil, pull.Number), "1 to add, 1 to change, 1 to destroy")
	}
	if comments, err := client.Comments(b.Context(), fake.Repository(), pull.Number); err != nil || len(comments) != 1 {
		b.Fatalf("%d comments, %v", len(comments), err)
	}
}
