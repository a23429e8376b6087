package forge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxAnswer   = 16 << 20         // bytes of one answer
	maxPages    = 10               // of a list
	pageSize    = 100              // entries asked for at a time
	attempts    = 4                // of one request
	firstPause  = time.Second / 2  // before the second attempt; it doubles
	longestWait = 20 * time.Second // that a service may ask for before the call gives up instead
)

// Config says how to speak with a forge.
type Config struct {
	Kind Kind
	// URL is where it is, as in a browser. Default: the public service.
	URL string
	// Token returns the token or password. It is asked before every request, so that a renewed one counts at once.
	Token func() (string, error)
	// Username makes it basic authentication.
	Username string
	// App replaces Token by those of an installation of a GitHub App.
	App *App
	// CA holds certificates in PEM that are trusted besides the system's.
	CA []byte
	// Account is the name of the own account, for services that do not tell it to this kind of token.
	Account string
	// Timeout bounds one request. Default 15 s.
	Timeout time.Duration
	// UserAgent names this program. Default fairlead.
	UserAgent string

	transport http.RoundTripper // of tests
}

// public are the addresses of the services that everybody may use.
var public = map[Kind]string{
	GitHub: "https://github.com", GitLab: "https://gitlab.com", Forgejo: "https://codeberg.org",
	Bitbucket: "https://bitbucket.org", AzureDevOps: "https://dev.azure.com",
}

// New returns a forge. Nothing is asked yet.
func New(config Config) (Forge, error) {
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	switch config.Kind {
	case GitHub:
		return newGitHub(c), nil
	case GitLab:
		return newGitLab(c), nil
	case Gitea, Forgejo:
		return newGitea(c), nil
	case Bitbucket:
		return newBitbucket(c), nil
	case BitbucketServer:
		return newBitbucketServer(c), nil
	case AzureDevOps:
		return &azureDevOps{client: c}, nil
	case Generic:
	}
	return nil, fmt.Errorf("%q has no API: use one of github, gitlab, gitea, forgejo, bitbucket, bitbucket-server, azure-devops", string(config.Kind))
}

// client sends requests to one service.
type client struct {
	config Config
	base   *url.URL // without a slash at the end
	api    *url.URL // where the API is, when that is elsewhere
	http   *http.Client
	auth   authorizer

	mu      sync.Mutex
	limited time.Time // no request before
	self    string
}

func newClient(config Config) (*client, error) {
	if config.URL == "" {
		config.URL = public[config.Kind]
	}
	if config.URL == "" {
		return nil, fmt.Errorf("%s needs a url: there is no public one", config.Kind)
	}
	base, err := url.Parse(strings.TrimRight(config.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("the url of %s is not one: write it like https://git.example.org", config.Kind)
	}
	if base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("the url of %s has more than a place: credentials belong in a file", config.Kind)
	}
	if config.Timeout <= 0 {
		config.Timeout = 15 * time.Second
	}
	if config.UserAgent == "" {
		config.UserAgent = "fairlead"
	}
	transport := config.transport
	if transport == nil {
		if transport, err = newTransport(config); err != nil {
			return nil, err
		}
	}
	c := &client{config: config, base: base, api: base}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return fmt.Errorf("%w in a circle", errElsewhere)
		}
		if r.URL.Scheme != via[0].URL.Scheme || r.URL.Host != via[0].URL.Host {
			return fmt.Errorf("%w to %s: set that as the url if it is right", errElsewhere, r.URL.Host)
		}
		return nil
	}}
	c.auth, err = newAuthorizer(c)
	return c, err
}

// errElsewhere: a redirect is not followed.
var errElsewhere = errors.New("the service redirects")

func newTransport(config Config) (*http.Transport, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 5 * time.Second, MaxIdleConns: 10, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 1 << 20,
	}
	if len(config.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(config.CA) {
			return nil, fmt.Errorf("the CA of %s holds no certificate in PEM", config.Kind)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t, nil
}

// Kind implements Forge.
func (c *client) Kind() Kind { return c.config.Kind }

// call is one request.
type call struct {
	method string
	// path is below the API, escaped.
	path  string
	query url.Values
	// url replaces path and query: a whole URL that the service gave.
	url string
	// body is sent as JSON.
	body any
	// repo is the repository that it is about, for tokens that are good for one.
	repo string
	// once: a second time would do it twice, so it is sent again only when the first cannot have arrived.
	once bool
	// bare is sent with an Authorization header that is given instead of the forge's.
	bare string
}

// do sends a request until it is answered, at most attempts times, and reads the answer into out unless that is nil.
func (c *client) do(ctx context.Context, r call, out any) (http.Header, error) {
	pause, renewed := firstPause, false
	for n := 1; ; n++ {
		if err := c.allowed(r); err != nil {
			return nil, err
		}
		header, err := c.try(ctx, r, out)
		if err == nil {
			return header, nil
		}
		var e *APIError
		if !errors.As(err, &e) || ctx.Err() != nil {
			return nil, err
		}
		if e.Class == ErrUnauthorized && !renewed && r.bare == "" && c.auth.renew(r.repo) {
			renewed = true
			continue
		}
		again := e.Class == ErrLimited || e.Class == ErrUnavailable && (!r.once || e.unsent)
		wait := pause/2 + rand.N(pause)
		pause *= 2
		if !e.Until.IsZero() {
			wait = max(time.Until(e.Until), 0) + 50*time.Millisecond
		}
		if !again || n == attempts || wait > longestWait {
			if e.Class == ErrLimited && !e.Until.IsZero() {
				c.limit(e.Until)
			}
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// allowed fails while the service takes no requests.
func (c *client) allowed(r call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.limited) {
		return &APIError{Forge: c.config.Kind, Method: r.method, Path: r.path, Class: ErrLimited, Until: c.limited, unsent: true}
	}
	return nil
}

func (c *client) limit(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Whatever a service says, it is asked again within the hour.
	if most := time.Now().Add(time.Hour); until.After(most) {
		until = most
	}
	c.limited = until
}

// try sends a request once.
func (c *client) try(ctx context.Context, r call, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	fail := &APIError{Forge: c.config.Kind, Method: r.method, Path: r.path}
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	fail.Path = req.URL.Path
	res, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		fail.Class, fail.unsent = ErrUnavailable, errors.As(err, &op) && op.Op == "dial"
		if errors.Is(err, errElsewhere) {
			fail.Class = ErrRefused
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, whose query is of no use to anyone
		}
		fail.cause = err
		return nil, fail
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		fail.Class, fail.Status, fail.cause = ErrUnavailable, res.StatusCode, err
		return nil, fail
	case len(b) > maxAnswer:
		fail.Class, fail.Status, fail.Message = ErrUnreadable, res.StatusCode, fmt.Sprintf("it is larger than %d bytes", maxAnswer)
		return nil, fail
	case res.StatusCode < 200 || res.StatusCode > 299 || res.StatusCode == http.StatusNonAuthoritativeInfo:
		fail.Status, fail.Class, fail.Message, fail.Until = res.StatusCode, classOf(res.StatusCode, res.Header), message(b), until(res.Header)
		if fail.Class != ErrLimited && fail.Class != ErrUnavailable {
			fail.Until = time.Time{}
		}
		return nil, fail
	case out == nil || len(bytes.TrimSpace(b)) == 0 && res.StatusCode == http.StatusNoContent:
		return res.Header, nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		fail.Class, fail.Status, fail.Message = ErrUnreadable, res.StatusCode, wrongJSON(err)
		return nil, fail
	}
	return res.Header, nil
}

func (c *client) request(ctx context.Context, r call) (*http.Request, error) {
	target := r.url
	if target == "" {
		target = c.api.String() + r.path
		if len(r.query) > 0 {
			target += "?" + r.query.Encode()
		}
	} else if u, err := url.Parse(target); err != nil || u.Scheme != c.api.Scheme || u.Host != c.api.Host {
		// The token goes to no other host.
		return nil, &APIError{Forge: c.config.Kind, Method: r.method, Path: r.path, Class: ErrUnreadable, Message: "the next page is on another host"}
	}
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode a request to %s: %w", c.config.Kind, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make a request to %s: %w", c.config.Kind, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.config.UserAgent)
	if r.bare != "" {
		req.Header.Set("Authorization", r.bare)
		return req, nil
	}
	return req, c.auth.authorize(ctx, req, r.repo)
}

func (c *client) get(ctx context.Context, repo, path string, query url.Values, out any) (http.Header, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, query: query, repo: repo}, out)
}

// until is when a service takes requests again, from the headers that it sent.
func until(h http.Header) time.Time {
	if s := h.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil && n >= 0 {
			return time.Now().Add(time.Duration(min(n, 1<<30)) * time.Second)
		}
		if t, err := http.ParseTime(s); err == nil {
			return t
		}
	}
	if h.Get("X-Ratelimit-Remaining") != "0" && h.Get("Ratelimit-Remaining") != "0" {
		return time.Time{}
	}
	for _, name := range []string{"X-Ratelimit-Reset", "Ratelimit-Reset"} {
		if n, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil && n > 0 {
			if n < 100_000_000 { // not the time, but how long
				return time.Now().Add(time.Duration(n) * time.Second)
			}
			return time.Unix(min(n, 1<<40), 0)
		}
	}
	return time.Time{}
}

// message is what a service says of an error, in the forms that the services have.
func message(body []byte) string {
	var m struct {
		Message          any    `json:"message"`
		Error            any    `json:"error"`
		ErrorDescription string `json:"error_description"`
		Errors           []struct {
			Message string `json:"message"`
			Code    string `json:"code"`
		} `json:"errors"`
	}
	_ = json.Unmarshal(body, &m) // what does not fit is left out
	text := func(v any) string {
		switch v := v.(type) {
		case nil:
			return ""
		case string:
			return v
		case map[string]any:
			if s, ok := v["message"].(string); ok {
				return s
			}
		}
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
	parts := []string{text(m.Message), text(m.Error), m.ErrorDescription}
	for _, e := range m.Errors {
		parts = append(parts, e.Message, e.Code)
	}
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return oneLine(strings.Join(out, ": "), 300)
}

// wrongJSON says what is wrong with an answer, without what is in it.
func wrongJSON(err error) string {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Sprintf("the field %s is a JSON %s", t.Field, strings.SplitN(t.Value, " ", 2)[0])
	}
	return "it is not JSON"
}

// ownAccount returns the account of the settings, or what ask finds once.
func (c *client) ownAccount(ask func() (string, error)) (string, error) {
	if c.config.Account != "" {
		return c.config.Account, nil
	}
	c.mu.Lock()
	self := c.self
	c.mu.Unlock()
	if self != "" {
		return self, nil
	}
	self, err := ask()
	if err != nil {
		return "", fmt.Errorf("ask whose credentials these are (set account in the settings where the token may not know): %w", err)
	}
	c.mu.Lock()
	c.self = self
	c.mu.Unlock()
	return self, nil
}
