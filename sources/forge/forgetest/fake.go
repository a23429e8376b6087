package forgetest

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // names of commits
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Fake is a forge in memory with one repository. It implements Host and Faulty.
type Fake struct {
	kind    forge.Kind
	dialect dialect
	server  *httptest.Server

	mu       sync.Mutex
	pulls    []*pull
	comments []*comment
	statuses map[string][]status // by commit, newest last
	hooks    []hook
	ids      int
	commits  int
	main     string
	faults   []fault
	requests int
	expired  bool
	waiting  sync.WaitGroup // deliveries under way
}

const token = "the-token-of-fairlead"

// The accounts: ours, and somebody's.
const (
	us   = "fairlead-bot"
	them = "jane"
)

type pull struct {
	number        int
	title, branch string
	head, base    string
	state         forge.PullRequestState
	fork          bool
	mergeCommit   string
}

type comment struct {
	id, number, version int
	author, body        string
}

// status is as a service keeps it, in its own words.
type status struct{ key, name, state, description, url string }

type hook struct{ url, secret string }

type fault struct {
	status int
	header map[string]string
}

// dialect is how a service speaks.
type dialect interface {
	// repo is the name of the repository, and clone what follows the server in its URL.
	repo() string
	clone() string
	// routes are the API's; each is called with the lock held.
	routes(f *Fake, mux *http.ServeMux)
	// authorized reports whether a request has the token.
	authorized(r *http.Request) bool
	// delivery is the header and the body of an event; nil for one that is not told.
	delivery(f *Fake, e event) (map[string]string, any)
}

// event is what a fake tells.
type event struct {
	kind    forge.EventKind
	pull    *pull
	comment *comment
}

// NewFake starts a fake of a service. It ends with the test.
func NewFake(t testing.TB, kind forge.Kind) *Fake {
	t.Helper()
	f := &Fake{kind: kind, statuses: map[string][]status{}}
	f.dialect = map[forge.Kind]dialect{
		forge.GitHub: gitHub{}, forge.GitLab: gitLab{}, forge.Bitbucket: bitbucket{}, forge.BitbucketServer: bitbucketServer{}, forge.AzureDevOps: azure{},
	}[kind]
	if f.dialect == nil {
		t.Fatalf("there is no fake of %s", kind)
	}
	f.main = f.commit()
	mux := http.NewServeMux()
	f.dialect.routes(f, mux)
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.requests++
		switch {
		case len(f.faults) > 0:
			for k, v := range f.faults[0].header {
				w.Header().Set(k, v)
			}
			answer(w, f.faults[0].status, map[string]any{"message": "bad weather"})
			f.faults = f.faults[1:]
		case f.expired || !f.dialect.authorized(r):
			code := http.StatusUnauthorized
			if kind == forge.AzureDevOps {
				code = http.StatusNonAuthoritativeInfo // with a page to sign in
			}
			answer(w, code, map[string]any{"message": "Bad credentials"})
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		f.server.Close()
		f.waiting.Wait()
	})
	return f
}

// Config implements Host.
func (f *Fake) Config() forge.Config {
	return forge.Config{Kind: f.kind, URL: f.server.URL, Token: func() (string, error) { return token, nil }}
}

// Repository implements Host.
func (f *Fake) Repository() string { return f.dialect.repo() }

// CloneURL implements Host.
func (f *Fake) CloneURL() string { return f.server.URL + f.dialect.clone() }

// Many implements Host.
func (f *Fake) Many() int { return 123 }

// Fail implements Faulty.
func (f *Fake) Fail(n, status int, header map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.faults = append(f.faults, fault{status, header})
	}
}

// Requests implements Faulty.
func (f *Fake) Requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// Expire implements Faulty.
func (f *Fake) Expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expired = true
}

// commit returns the name of a new commit.
func (f *Fake) commit() string {
	f.commits++
	sum := sha1.Sum([]byte(strconv.Itoa(f.commits))) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

func (f *Fake) id() int {
	f.ids++
	return 1000 + f.ids
}

// Open implements Host.
func (f *Fake) Open(_ *testing.T, title string, fork bool) Pull {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &pull{number: len(f.pulls) + 1, title: title, head: f.commit(), base: f.main, state: forge.Open, fork: fork}
	p.branch = fmt.Sprint("change-", p.number)
	f.pulls = append(f.pulls, p)
	f.tell(event{kind: forge.Opened, pull: p})
	return Pull{p.number, p.head, p.base}
}

// Push implements Host.
func (f *Fake) Push(_ *testing.T, number int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pulls[number-1]
	p.head = f.commit()
	f.tell(event{kind: forge.Updated, pull: p})
	return p.head
}

// PushBranch implements Host.
func (f *Fake) PushBranch(*testing.T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.main = f.commit()
	f.tell(event{kind: forge.Pushed})
}

// Merge implements Host.
func (f *Fake) Merge(_ *testing.T, number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pulls[number-1]
	f.main = f.commit()
	p.state, p.mergeCommit = forge.Merged, f.main
	f.tell(event{kind: forge.PullMerged, pull: p})
}

// Close implements Host.
func (f *Fake) Close(_ *testing.T, number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pulls[number-1]
	p.state = forge.Closed
	f.tell(event{kind: forge.PullClosed, pull: p})
}

// CommentAs implements Host.
func (f *Fake) CommentAs(_ *testing.T, number int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.comment(number, them, body)
}

func (f *Fake) comment(number int, author, body string) *comment {
	c := &comment{id: f.id(), number: number, author: author, body: body}
	f.comments = append(f.comments, c)
	f.tell(event{kind: forge.Commanded, pull: f.pulls[number-1], comment: c})
	return c
}

// Subscribe implements Host.
func (f *Fake) Subscribe(_ *testing.T, url, secret string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = append(f.hooks, hook{url, secret})
}

// tell delivers an event. The caller holds f.mu.
func (f *Fake) tell(e event) {
	header, payload := f.dialect.delivery(f, e)
	if payload == nil {
		return
	}
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // made here
	}
	for _, h := range f.hooks {
		r, err := http.NewRequest(http.MethodPost, h.url, strings.NewReader(string(body)))
		if err != nil {
			panic(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for k, v := range header {
			r.Header.Set(k, v)
		}
		mac := hmac.New(sha256.New, []byte(h.secret))
		mac.Write(body)
		switch sum := hex.EncodeToString(mac.Sum(nil)); f.kind {
		case forge.GitHub:
			r.Header.Set("X-Hub-Signature-256", "sha256="+sum)
		case forge.GitLab:
			r.Header.Set("X-Gitlab-Token", h.secret)
		case forge.AzureDevOps:
			r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("fairlead:"+h.secret)))
		default:
			r.Header.Set("X-Hub-Signature", "sha256="+sum)
		}
		f.waiting.Go(func() {
			if res, err := http.DefaultClient.Do(r); err == nil { // whoever waits for it finds out
				res.Body.Close()
			}
		})
	}
}

// object is a JSON object.
type object = map[string]any

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, object{"message": message})
}

// body reads the JSON of a request.
func body(r *http.Request) object {
	var o object
	_ = json.NewDecoder(r.Body).Decode(&o) // what is not there is missing
	return o
}

func text(o object, path ...string) string {
	for _, p := range path[:len(path)-1] {
		o, _ = o[p].(object)
	}
	s, _ := o[path[len(path)-1]].(string)
	return s
}

// page returns a page of a list, and whether it is the last.
func page[T any](all []T, q url.Values, number, size string, most int) ([]T, bool) {
	n, _ := strconv.Atoi(q.Get(number))
	per, _ := strconv.Atoi(q.Get(size))
	if per == 0 {
		per = min(20, most)
	}
	per = min(per, most)
	from := min(max(n-1, 0)*per, len(all))
	to := min(from+per, len(all))
	return all[from:to], to == len(all)
}

// pullOf returns the pull request that a path names, or answers that there is none.
func (f *Fake) pullOf(w http.ResponseWriter, r *http.Request) *pull {
	n, _ := strconv.Atoi(r.PathValue("n"))
	if n < 1 || n > len(f.pulls) {
		refuse(w, http.StatusNotFound, "Not Found")
		return nil
	}
	return f.pulls[n-1]
}

// open are the open pull requests, newest first.
func (f *Fake) open() []*pull {
	var out []*pull
	for _, p := range slices.Backward(f.pulls) {
		if p.state == forge.Open {
			out = append(out, p)
		}
	}
	return out
}

// commentsOf are those of a pull request, oldest first.
func (f *Fake) commentsOf(number int) []*comment {
	var out []*comment
	for _, c := range f.comments {
		if c.number == number {
			out = append(out, c)
		}
	}
	return out
}

// ownComment returns the comment that a path names, or answers that it may not be changed.
func (f *Fake) ownComment(w http.ResponseWriter, id string) *comment {
	i := slices.IndexFunc(f.comments, func(c *comment) bool { return strconv.Itoa(c.id) == id })
	switch {
	case i < 0:
		refuse(w, http.StatusNotFound, "Not Found")
		return nil
	case f.comments[i].author != us:
		refuse(w, http.StatusForbidden, "Forbidden")
		return nil
	}
	return f.comments[i]
}

// newest are the newest statuses of a commit, one of each key.
func (f *Fake) newest(commit string) []status {
	var out []status
	for _, s := range slices.Backward(f.statuses[commit]) {
		if !slices.ContainsFunc(out, func(o status) bool { return o.key == s.key }) {
			out = append(out, s)
		}
	}
	return out
}

func (f *Fake) deliveryID() string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012d", f.id())
}

func bearer(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+token }
