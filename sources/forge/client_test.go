package forge

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// appServer is what GitHub does for an app with two installations.
type appServer struct {
	t   *testing.T
	key *rsa.PublicKey

	mu    sync.Mutex
	made  []string // tokens, newest last
	life  time.Duration
	bad   map[string]bool // tokens that are refused
	asked []string
}

func (s *appServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/api/v3"))
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	answer := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	path := strings.TrimPrefix(r.URL.Path, "/api/v3")
	isApp := path == "/app" || strings.HasPrefix(path, "/app/") || strings.HasSuffix(path, "/installation")
	switch {
	case isApp && !s.signed(bearer):
		answer(401, map[string]string{"message": "A JSON web token could not be decoded"})
	case !isApp && (!slices.Contains(s.made, bearer) || s.bad[bearer]):
		answer(401, map[string]string{"message": "Bad credentials"})
	case path == "/app":
		answer(200, map[string]string{"slug": "fairlead"})
	case path == "/repos/team/config/installation":
		answer(200, map[string]int{"id": 11})
	case path == "/repos/other/config/installation":
		answer(200, map[string]int{"id": 12})
	case strings.HasSuffix(path, "/access_tokens"):
		token := fmt.Sprint("token-", len(s.made), "-of-", strings.Split(path, "/")[3])
		s.made = append(s.made, token)
		answer(201, map[string]any{"token": token, "expires_at": time.Now().Add(s.life)})
	case strings.Contains(path, "/pulls/"):
		answer(200, map[string]any{"number": 1, "state": "open"})
	default:
		answer(404, map[string]string{"message": "Not Found"})
	}
}

// signed reports whether text is a JSON web token of the app, good for at most ten minutes.
func (s *appServer) signed(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return false
	}
	sig, _ := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	b, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Issuer          string `json:"iss"`
		Issued, Expires int64
		Exp             int64 `json:"exp"`
		Iat             int64 `json:"iat"`
	}
	return rsa.VerifyPKCS1v15(s.key, crypto.SHA256, sum[:], sig) == nil && json.Unmarshal(b, &claims) == nil &&
		claims.Issuer == "Iv23" && claims.Exp-claims.Iat <= 600 && claims.Iat <= time.Now().Unix()
}

func (s *appServer) count(request string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.asked {
		if a == request {
			n++
		}
	}
	return n
}

func TestGitHubApp(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &appServer{t: t, key: &key.PublicKey, life: time.Hour, bad: map[string]bool{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	f, err := New(Config{Kind: GitHub, URL: server.URL, App: &App{ClientID: "Iv23", Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})}})
	if err != nil {
		t.Fatal(err)
	}
	get := func(repo string) error {
		t.Helper()
		_, err := f.PullRequest(t.Context(), repo, 1)
		return err
	}
	const made = "POST /app/installations/11/access_tokens"
	if err := errors.Join(get("team/config"), get("team/config"), get("other/config")); err != nil {
		t.Fatal(err)
	}
	if s.count(made) != 1 || s.count("GET /repos/team/config/installation") != 1 || s.count("POST /app/installations/12/access_tokens") != 1 {
		t.Errorf("asked %v", s.asked)
	}
	if self, err := f.Self(t.Context(), "team/config"); err != nil || self != "fairlead[bot]" {
		t.Errorf("self %q, %v", self, err)
	}
	// A token that was revoked is replaced, once.
	s.mu.Lock()
	s.bad[s.made[0]] = true
	s.life = 3 * time.Minute // the next ones are due for renewal at once
	s.mu.Unlock()
	if err := get("team/config"); err != nil || s.count(made) != 2 {
		t.Errorf("after a token was revoked: %v, %d tokens were made", err, s.count(made))
	}
	if err := get("team/config"); err != nil || s.count(made) != 3 {
		t.Errorf("before a token expires: %v, %d tokens were made", err, s.count(made))
	}
	if err := get("unknown/config"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "find the installation of the GitHub App for unknown/config") {
		t.Errorf("a repository without an installation: %v", err)
	}
}

// answers are given one after the other, in a bubble in which waiting takes no time.
type answers struct {
	list []func() (*http.Response, error)
	at   []time.Duration // when each was asked for
	from time.Time
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	a.at = append(a.at, time.Since(a.from))
	next := a.list[0]
	if len(a.list) > 1 {
		a.list = a.list[1:]
	}
	return next()
}

func say(status int, body string, header ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func TestRepetitions(t *testing.T) {
	broken := func() (*http.Response, error) { return nil, errors.New("connection reset by peer") }
	const good = `{"number":7,"state":"open"}`
	for name, tt := range map[string]struct {
		answers   []func() (*http.Response, error)
		requests  int
		class     error
		from, to  time.Duration // how long it takes
		temporary bool
	}{
		"good":                         {[]func() (*http.Response, error){say(200, good)}, 1, nil, 0, 0, false},
		"bad weather":                  {[]func() (*http.Response, error){say(502, "<html>"), broken, say(200, good)}, 3, nil, 750 * time.Millisecond, 4 * time.Second, false},
		"no end of it":                 {[]func() (*http.Response, error){say(503, "")}, 4, ErrUnavailable, time.Second, 10 * time.Second, true},
		"patience in seconds":          {[]func() (*http.Response, error){say(429, "", "Retry-After", "7"), say(200, good)}, 2, nil, 7 * time.Second, 8 * time.Second, false},
		"a limit with a time":          {[]func() (*http.Response, error){say(403, `{"message":"API rate limit exceeded"}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "946684815"), say(200, good)}, 2, nil, 15 * time.Second, 16 * time.Second, false},
		"a limit for long":             {[]func() (*http.Response, error){say(429, "", "RateLimit-Remaining", "0", "RateLimit-Reset", "600")}, 1, ErrLimited, 0, 0, true},
		"a limit that says nothing":    {[]func() (*http.Response, error){say(429, "")}, 4, ErrLimited, time.Second, 10 * time.Second, true},
		"not allowed":                  {[]func() (*http.Response, error){say(403, `{"message":"Resource not accessible"}`)}, 1, ErrForbidden, 0, 0, false},
		"expired":                      {[]func() (*http.Response, error){say(401, "")}, 1, ErrUnauthorized, 0, 0, false},
		"a page to sign in":            {[]func() (*http.Response, error){say(203, "<html>")}, 1, ErrUnauthorized, 0, 0, false},
		"refused":                      {[]func() (*http.Response, error){say(422, `{"message":"Validation Failed","errors":[{"message":"no"}]}`)}, 1, ErrRefused, 0, 0, false},
		"not JSON":                     {[]func() (*http.Response, error){say(200, "<html>")}, 1, ErrUnreadable, 0, 0, false},
		"empty":                        {[]func() (*http.Response, error){say(200, "")}, 1, ErrUnreadable, 0, 0, false},
		"of another type":              {[]func() (*http.Response, error){say(200, `{"number":"seven"}`)}, 1, ErrUnreadable, 0, 0, false},
		"a redirect to somewhere else": {[]func() (*http.Response, error){say(302, "", "Location", "https://evil.example.org/")}, 1, ErrRefused, 0, 0, false},
		"too large": {[]func() (*http.Response, error){func() (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(io.LimitReader(zeros{}, maxAnswer+10))}, nil
		}}, 1, ErrUnreadable, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{list: tt.answers, from: time.Now()}
				f, err := New(Config{Kind: GitHub, Token: func() (string, error) { return "hush", nil }, transport: a})
				if err != nil {
					t.Fatal(err)
				}
				p, err := f.PullRequest(context.Background(), "team/config", 7)
				took := time.Since(a.from)
				if !errors.Is(err, tt.class) || tt.class == nil && (err != nil || p.Number != 7) {
					t.Errorf("got %+v, %v", p, err)
				}
				if len(a.at) != tt.requests || took < tt.from || took > tt.to {
					t.Errorf("%d requests at %v took %v, want %d in %v to %v", len(a.at), a.at, took, tt.requests, tt.from, tt.to)
				}
				var e *APIError
				if errors.As(err, &e) && (e.Temporary() != tt.temporary || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "\n")) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// The next page of Bitbucket is at a URL that the service gives; the token is sent to no other host.
func TestPagesStayOnTheHost(t *testing.T) {
	a := &answers{list: []func() (*http.Response, error){say(200, `{"values":[],"next":"https://evil.example.org/2.0/x"}`)}}
	f, err := New(Config{Kind: Bitbucket, Token: func() (string, error) { return "hush", nil }, transport: a})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.OpenPullRequests(t.Context(), "team/config"); !errors.Is(err, ErrUnreadable) || len(a.at) != 1 {
		t.Errorf("got %v after %d requests", err, len(a.at))
	}
}

// A list without an end ends.
func TestListsEnd(t *testing.T) {
	full := `[` + strings.Repeat(`{"number":1,"state":"open"},`, pageSize-1) + `{"number":1,"state":"open"}]`
	for kind, body := range map[Kind]string{
		GitHub: full, GitLab: full, Gitea: full, Bitbucket: `{"values":[{"id":1,"state":"OPEN"}],"next":"https://api.bitbucket.org/2.0/again"}`,
		BitbucketServer: `{"values":[{"id":1}],"isLastPage":false,"nextPageStart":0}`, AzureDevOps: `{"value":` + strings.ReplaceAll(full, "number", "pullRequestId") + `}`,
	} {
		a := &answers{list: []func() (*http.Response, error){say(200, body, "Link", `<x>; rel="next"`)}}
		url := map[Kind]string{Gitea: "https://gitea.example.org", BitbucketServer: "https://bitbucket.example.org"}[kind]
		f, err := New(Config{Kind: kind, URL: url, transport: a})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.OpenPullRequests(t.Context(), "team/shop/config"); err != nil || len(a.at) > 2*maxPages {
			t.Errorf("%s: %v after %d requests", kind, err, len(a.at))
		}
	}
}
