package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/webhook"
)

const secret = "correct horse battery staple"

// cloned are the sources of a test: names by keys. What is asked of them is kept.
type cloned struct {
	names map[string]string

	mu     sync.Mutex
	looked []string
	pulls  []forge.Event
}

func (s *cloned) Look(keys []string) []string {
	var out []string
	for key, name := range s.names {
		if forge.Matches(key, keys) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = append(s.looked, out...)
	return out
}

func (s *cloned) PullRequest(ev forge.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulls = append(s.pulls, ev)
}

func newServer(t testing.TB, change func(o *Options)) (*Server, *cloned) {
	t.Helper()
	src := &cloned{names: map[string]string{"git.example.org/team/config": "config", "mirror.internal/team/config": "mirror"}}
	o := Options{
		Endpoints: map[string]webhook.Endpoint{
			"/hooks/github": {Forge: forge.GitHub, Secrets: []string{secret}},
			"/hooks/azure":  {Forge: forge.AzureDevOps, Secrets: []string{secret}, Username: "fairlead"},
		},
		Sources: src, PullRequests: src, Log: zerolog.Nop(), Rewrites: []forge.Rewrite{{From: "git.example.org", To: "mirror.internal"}},
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, src
}

func sign(body string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

func push(repository string) string {
	return `{"ref":"refs/heads/main","repository":{"full_name":"` + repository + `","clone_url":"https://git.example.org/` + repository + `.git"}}`
}

// request is a signed delivery of GitHub.
func request(body, id string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/hooks/github", strings.NewReader(body))
	for k, v := range map[string]string{"Content-Type": "application/json", "X-GitHub-Event": "push", "X-GitHub-Delivery": id, "X-Hub-Signature-256": sign(body)} {
		r.Header.Set(k, v)
	}
	return r
}

// endless is a body that never ends.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

// T-W1, T-D3: what is wrong is answered with the reason, and has no effect.
func TestAnswers(t *testing.T) {
	body := push("team/config")
	unending := &endless{}
	for name, tt := range map[string]struct {
		change func(r *http.Request)
		status int
		want   string
		looked []string
	}{
		"good":                 {nil, 202, "looking at config, mirror", []string{"config", "mirror"}},
		"with a character set": {func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, 202, "looking at", []string{"config", "mirror"}},
		"nowhere":              {func(r *http.Request) { r.URL.Path = "/hooks/gitlab" }, 404, "there is no hook here", nil},
		"the root":             {func(r *http.Request) { r.URL.Path = "/" }, 404, "there is no hook here", nil},
		"GET":                  {func(r *http.Request) { r.Method = http.MethodGet }, 405, "by POST", nil},
		"a form":               {func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "set the content type of this hook to application/json", nil},
		"no content type":      {func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "must be application/json", nil},
		"XML":                  {func(r *http.Request) { r.Header.Set("Content-Type", "text/xml") }, 415, "must be application/json", nil},
		"compressed":           {func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, "compressed", nil},
		"unsigned":             {func(r *http.Request) { r.Header.Del("X-Hub-Signature-256") }, 401, "not signed", nil},
		"wrongly signed":       {func(r *http.Request) { r.Header.Set("X-Hub-Signature-256", sign("x")) }, 401, "the signature is wrong", nil},
		"of another forge": {func(r *http.Request) {
			r.Header.Set("X-Gitea-Event", "push")
			r.Header.Set("X-Gitea-Signature", sign(body)[7:])
		}, 401, "this is a delivery of Gitea, and this endpoint is for GitHub", nil},
		"of nobody":             {func(r *http.Request) { r.Header.Del("X-GitHub-Event"); r.Header.Del("X-Hub-Signature-256") }, 401, "no forge sends such headers", nil},
		"said to be a gigabyte": {func(r *http.Request) { r.ContentLength, r.Body = 1<<30, io.NopCloser(unending) }, 413, "more than 65536 bytes (hooks.maxBody)", nil},
		"without an end":        {func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(unending) }, 413, "more than 65536 bytes", nil},
		"longer than it says":   {func(r *http.Request) { r.ContentLength = 10 }, 401, "the signature is wrong", nil},
		"shorter than it says":  {func(r *http.Request) { r.ContentLength = int64(len(body)) + 10 }, 400, "ended before its end", nil},
		"not JSON":              {func(r *http.Request) { resign(r, "hello") }, 400, "the body is not JSON", nil},
		"empty":                 {func(r *http.Request) { resign(r, "") }, 400, "the body is not JSON", nil},
		"without a repository":  {func(r *http.Request) { resign(r, `{"ref":"refs/heads/main"}`) }, 400, "names no repository", nil},
		"an expression": {func(r *http.Request) {
			resign(r, `{"ref":"refs/heads/main","repository":{"full_name":".*","clone_url":".*"}}`)
		}, 202, "no source is cloned from this repository", nil},
		"of another repository": {func(r *http.Request) { resign(r, push("team/other")) }, 202, "no source is cloned from this repository", nil},
		"a ping":                {func(r *http.Request) { r.Header.Set("X-GitHub-Event", "ping") }, 200, "this hook works", nil},
		"something else":        {func(r *http.Request) { r.Header.Set("X-GitHub-Event", "star") }, 200, "nothing is done", nil},
		"Azure without a password": {func(r *http.Request) {
			r.URL.Path = "/hooks/azure"
			r.Header.Del("X-GitHub-Event")
			r.Header.Del("X-Hub-Signature-256")
		}, 401, "no forge sends such headers; this endpoint is for Azure DevOps", nil},
		"Azure, wrong password": {func(r *http.Request) {
			r.URL.Path = "/hooks/azure"
			r.Header.Del("X-GitHub-Event")
			r.Header.Del("X-Hub-Signature-256")
			r.SetBasicAuth("fairlead", "wrong")
		}, 401, "the user name or the password is wrong", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, src := newServer(t, func(o *Options) { o.MaxBody = 64 << 10 })
			r := request(body, "1")
			if tt.change != nil {
				tt.change(r)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tt.status, tt.want)
			}
			if strings.Contains(w.Body.String(), secret) {
				t.Error("the answer shows the secret")
			}
			if diff := cmp.Diff(tt.looked, src.looked); diff != "" || len(src.pulls) > 0 {
				t.Errorf("looked at (-want +got)\n%s%v", diff, src.pulls)
			}
			if n := s.Stats().Deliveries; len(n) != 1 || n[0].Number != 1 {
				t.Errorf("counted %+v", n)
			}
			if !s.room.TryAcquire(s.size) {
				t.Error("room for bodies was not released")
			}
		})
	}
	if unending.read > 1<<20 {
		t.Errorf("%d bytes of endless bodies were read", unending.read)
	}
}

// resign replaces the body.
func resign(r *http.Request, body string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	r.Header.Set("X-Hub-Signature-256", sign(body))
}

// T-W3: a delivery that comes twice counts once; one that was signed with a secret that is gone, not at all.
func TestReplays(t *testing.T) {
	s, src := newServer(t, nil)
	serve := func(s *Server, id string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, request(push("team/config"), id))
		return w
	}
	if w := serve(s, "1"); w.Code != 202 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if w := serve(s, "1"); w.Code != 200 || !strings.Contains(w.Body.String(), "delivered before") {
		t.Errorf("the second time: %d %s", w.Code, w.Body)
	}
	if len(src.looked) != 2 {
		t.Errorf("looked at %v", src.looked)
	}
	for _, secrets := range [][]string{{"new"}, {"new", secret}} {
		s, _ := newServer(t, func(o *Options) {
			o.Endpoints = map[string]webhook.Endpoint{"/hooks/github": {Forge: forge.GitHub, Secrets: secrets}}
		})
		want := map[int]int{1: 401, 2: 202}[len(secrets)]
		if w := serve(s, "2"); w.Code != want {
			t.Errorf("with secrets %q: got %d %s", secrets, w.Code, w.Body)
		}
	}
}

// Pull requests are told once, and what they are about.
func TestPullRequests(t *testing.T) {
	s, src := newServer(t, nil)
	for i, body := range []string{
		`{"action":"opened","number":7,"pull_request":{"number":7},"repository":{"full_name":"team/config","clone_url":"https://git.example.org/team/config"}}`,
		`{"action":"closed","number":7,"pull_request":{"number":7,"merged":true},"repository":{"full_name":"team/config","clone_url":"https://git.example.org/team/config"}}`,
	} {
		r := request(body, fmt.Sprint(i))
		r.Header.Set("X-GitHub-Event", "pull_request")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 202 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	var got []string
	for _, ev := range src.pulls {
		got = append(got, fmt.Sprint(ev.Kind, " ", ev.PullRequest))
	}
	if diff := cmp.Diff([]string{"pull-request-opened 7", "pull-request-merged 7"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !slices.Equal(src.looked, []string{"config", "mirror"}) { // the merge moved the branch
		t.Errorf("looked at %v", src.looked)
	}
	if d, ok := s.Last("config"); !ok || d.Event != forge.PullMerged || d.Forge != forge.GitHub {
		t.Errorf("last delivery %+v, %v", d, ok)
	}
}

// A command is followed once, whatever name it is delivered under.
func TestCommandsAreFollowedOnce(t *testing.T) {
	s, src := newServer(t, nil)
	body := `{"action":"created","issue":{"number":7,"pull_request":{}},"comment":{"id":9,"body":"/fairlead approve 1a2b","user":{"login":"jane"}},"repository":{"full_name":"team/config","clone_url":"https://git.example.org/team/config"}}`
	for _, id := range []string{"1", "2", "2"} {
		r := request(body, id)
		r.Header.Set("X-GitHub-Event", "issue_comment")
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	if len(src.pulls) != 1 || !slices.Equal(src.pulls[0].Comment.Command, []string{"approve", "1a2b"}) || src.pulls[0].Comment.Author != "jane" {
		t.Errorf("got %+v", src.pulls)
	}
}

// followed are images whose tags are followed.
type followed []string

func (f *followed) LookAtImages(images []string) int {
	*f = append(*f, images...)
	return 1
}

// TestRegistries holds that a registry's delivery has the tags of its images looked at, and only with the secret.
func TestRegistries(t *testing.T) {
	var asked followed
	s, src := newServer(t, func(o *Options) {
		o.Images = &asked
		o.Endpoints["/hooks/quay"] = webhook.Endpoint{Forge: webhook.Quay, Secrets: []string{secret}}
		o.Endpoints["/hooks/distribution"] = webhook.Endpoint{Forge: webhook.Distribution, Secrets: []string{secret}}
	})
	deliver := func(path, kind, authorization, body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const quay, token = `{"docker_url": "quay.io/team/web"}`, "?token=correct+horse+battery+staple"
	const events = `{"events": [{"action": "push", "target": {"repository": "team/api"}, "request": {"host": "registry.internal:5000"}}]}`
	for _, c := range []struct {
		path, kind, authorization, body string
		code                            int
		text                            string
	}{
		{"/hooks/quay" + token, "application/json", "", quay, http.StatusAccepted, "looking at the tags of quay.io/team/web"},
		{"/hooks/quay", "application/json", "", quay, http.StatusUnauthorized, "add ?token="},
		{"/hooks/quay?token=guess", "application/json", "", quay, http.StatusUnauthorized, "is not the secret"},
		{"/hooks/quay" + token, "text/plain", "", quay, http.StatusUnsupportedMediaType, "application/json"},
		{"/hooks/distribution", "application/vnd.docker.distribution.events.v2+json", "Bearer " + secret, events, http.StatusAccepted, "registry.internal:5000/team/api"},
		{"/hooks/distribution", "application/json", "Bearer guess", events, http.StatusUnauthorized, "is not the secret"},
		{"/hooks/github" + token, "application/json", "", quay, http.StatusUnauthorized, "no forge"},
	} {
		if code, text := deliver(c.path, c.kind, c.authorization, c.body); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %q", c.path, code, text)
		}
	}
	if want := (followed{"quay.io/team/web", "registry.internal:5000/team/api"}); !slices.Equal(asked, want) {
		t.Errorf("looked at %q, want %q", asked, want)
	}
	if len(src.looked)+len(src.pulls) > 0 {
		t.Errorf("sources %q, pull requests %v", src.looked, src.pulls)
	}
}

func TestUnusableOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"hook /a: a hook of GitHub needs a secret":            {Endpoints: map[string]webhook.Endpoint{"/a": {Forge: forge.GitHub}}},
		"the secret of the hook of GitLab is empty":           {Endpoints: map[string]webhook.Endpoint{"/a": {Forge: forge.GitLab, Secrets: []string{""}}}},
		`the rewrite from "" to "x" must have a host on both`: {Rewrites: []forge.Rewrite{{To: "x"}}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The log names what was rejected, and never more than some lines a minute.
func TestRejectionsAreLogged(t *testing.T) {
	var log bytes.Buffer
	s, _ := newServer(t, func(o *Options) { o.Log = zerolog.New(&log) })
	for range 1000 {
		r := request(push("team/config"), "1\nforged=line")
		r.Header.Set("X-Hub-Signature-256", "sha256=00")
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	if n := strings.Count(log.String(), "\n"); n < 1 || n > 20 || !strings.Contains(log.String(), "the signature is wrong") || strings.Contains(log.String(), "forged=line\"") {
		t.Errorf("%d lines:\n%.500s", n, log.String())
	}
	if got := s.Stats().Deliveries; len(got) != 1 || got[0] != (Counted{Count{forge.GitHub, Result(webhook.BadSignature)}, 1000}) {
		t.Errorf("counted %+v", got)
	}
}

// Over TLS, with a certificate that is replaced.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := OpenCertificate(cert, key); err == nil || !strings.Contains(err.Error(), "read the certificate of the hooks") {
		t.Errorf("a certificate that is not there: %v", err)
	}
	first := writeCertificate(t, cert, key)
	certificate, err := OpenCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s, src := newServer(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, certificate) }()
	post := func(trusted []byte, id string) (int, error) {
		r := request(push("team/config"), id)
		r.RequestURI, r.URL.Scheme, r.URL.Host = "", "https", l.Addr().String()
		res, err := trusting(t, trusted).Do(r)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		return res.StatusCode, nil
	}
	if code, err := post(first, "1"); code != 202 || err != nil {
		t.Errorf("got %d, %v", code, err)
	}
	second := writeCertificate(t, cert, key)
	if err := os.Chtimes(cert, certificate.modified[0].Add(1e9), certificate.modified[0].Add(1e9)); err != nil {
		t.Fatal(err)
	}
	if code, err := post(second, "2"); code != 202 || err != nil {
		t.Errorf("with the new certificate: got %d, %v", code, err)
	}
	if len(src.looked) != 4 {
		t.Errorf("looked at %v", src.looked)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
