package registry

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	real "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// server is a real registry behind a door that counts and refuses.
type server struct {
	address string
	mu      sync.Mutex
	asked   []string
	door    func(w http.ResponseWriter, r *http.Request) (handled bool)
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	inner := real.New(real.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.Path)
		door := s.door
		s.mu.Unlock()
		if door == nil || !door(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	s.address = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *server) close(door func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door, s.asked = door, nil
}

// count is how many requests went to a path with an end.
func (s *server) count(end string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.asked {
		if strings.HasSuffix(a, end) {
			n++
		}
	}
	return n
}

// push pushes an image and returns its digest.
func (s *server) push(t *testing.T, tags ...string) string {
	t.Helper()
	img, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		ref, err := name.ParseReference(s.address + "/team/web:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTagsAndDigest(t *testing.T) {
	s := newServer(t)
	digest := s.push(t, "1.0.0", "latest", "a")
	c := client(t, Options{})
	tags, err := c.Tags(t.Context(), s.address+"/team/web", nil)
	if d := cmp.Diff([]string{"1.0.0", "a", "latest"}, tags); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if got, err := c.Digest(t.Context(), s.address+"/team/web", "latest", nil); err != nil || got != digest {
		t.Errorf("%s, %v; want %s", got, err, digest)
	}
	if _, err := c.Tags(t.Context(), s.address+"/team/none", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.Digest(t.Context(), s.address+"/team/web", "none", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.Tags(t.Context(), "https://x/y", nil); err == nil {
		t.Error("a URL is taken for an image")
	}
	// A registry that does not take HEAD.
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	})
	if got, err := c.Digest(t.Context(), s.address+"/team/web", "latest", nil); err != nil || got != digest {
		t.Errorf("without HEAD: %s, %v", got, err)
	}
}

func TestCredentials(t *testing.T) {
	s := newServer(t)
	s.push(t, "1")
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if user, pass, _ := r.BasicAuth(); user == "puller" && pass == "hush" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	c := client(t, Options{})
	if tags, err := c.Tags(t.Context(), s.address+"/team/web", []Auth{{Username: "puller", Password: "wrong-hush"}, {Username: "puller", Password: "hush"}}); err != nil || len(tags) != 1 {
		t.Errorf("%v, %v", tags, err)
	}
	for _, auths := range [][]Auth{nil, {{Username: "puller", Password: "wrong-hush"}}} {
		if _, err := c.Tags(t.Context(), s.address+"/team/web", auths); !errors.Is(err, ErrUnauthorized) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, auths, auths), "hush") {
			t.Errorf("%v", err)
		}
	}
}

func TestPages(t *testing.T) {
	s := newServer(t)
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		n, _ := strconv.Atoi(r.URL.Query().Get("last"))
		if n < 3 {
			w.Header().Set("Link", fmt.Sprintf(`</v2/team/web/tags/list?n=1&last=%d>; rel="next"`, n+1))
		}
		fmt.Fprintf(w, `{"name":"team/web","tags":["t%d"]}`, n)
		return true
	})
	tags, err := client(t, Options{}).Tags(t.Context(), s.address+"/team/web", nil)
	if d := cmp.Diff([]string{"t0", "t1", "t2", "t3"}, tags); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	// A list without an end, and one that goes elsewhere.
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		w.Header().Set("Link", `</v2/team/web/tags/list?n=1>; rel="next"`)
		fmt.Fprintf(w, `{"tags":[%s"x"]}`, strings.Repeat(`"xxxxx",`, 20_000))
		return true
	})
	if _, err := client(t, Options{}).Tags(t.Context(), s.address+"/team/web", nil); err == nil || !strings.Contains(err.Error(), "more than 100000 tags") {
		t.Errorf("%v", err)
	}
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Link", `<http://127.0.0.2:1/v2/team/web/tags/list?n=1>; rel="next"`)
		fmt.Fprint(w, `{"tags":["a"]}`)
		return true
	})
	if _, err := client(t, Options{}).Tags(t.Context(), s.address+"/team/web", nil); err == nil {
		t.Error("a page of another host was asked for")
	}
}

func TestLimits(t *testing.T) {
	s := newServer(t)
	s.push(t, "1")
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	c := client(t, Options{})
	for range 3 {
		if _, err := c.Tags(t.Context(), s.address+"/team/web", nil); !errors.Is(err, ErrLimited) {
			t.Errorf("%v", err)
		}
	}
	if n := s.count("/tags/list"); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	if left := time.Until(c.Until(s.address + "/team/web")); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("asked again in %s", left)
	}
}

func TestAnswersThatHaveNotChanged(t *testing.T) {
	s := newServer(t)
	sent := 0
	s.close(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
		sent++
		fmt.Fprint(w, `{"tags":["b","a"]}`)
		return true
	})
	c := client(t, Options{})
	for range 3 {
		if tags, err := c.Tags(t.Context(), s.address+"/team/web", nil); err != nil || len(tags) != 2 {
			t.Errorf("%v, %v", tags, err)
		}
	}
	if sent != 1 {
		t.Errorf("the list was sent %d times", sent)
	}
}

// A host that is not this machine is never spoken to without TLS.
func TestNoPlainHTTP(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "localhost": true, "10.0.0.1": false, "registry.local": false} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://192.0.2.1/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := client(t, Options{}).gate.RoundTrip(r); err == nil {
		res.Body.Close()
		t.Error("a password could go over the wire")
	} else if !strings.Contains(err.Error(), "insecure") {
		t.Errorf("%v", err)
	}
}
