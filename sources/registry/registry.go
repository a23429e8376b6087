// Package registry asks image registries which tags a repository has, and which image a tag is. It pulls nothing.
package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	pageSize  = 1000
	maxTags   = 100_000  // of a repository
	maxAnswer = 16 << 20 // bytes of one answer
	maxKept   = 64       // answers that are kept to ask whether they have changed
	longest   = time.Hour
)

// Classes of errors, for errors.Is.
var (
	// ErrUnauthorized: the credentials are missing, wrong, or may not read the repository.
	ErrUnauthorized = errors.New("the registry refuses the credentials")
	// ErrNotFound: there is no such repository or tag.
	ErrNotFound = errors.New("the registry has no such repository or tag")
	// ErrLimited: the registry wants to be left alone for a while.
	ErrLimited = errors.New("the registry limits requests")
	// ErrUnavailable: the registry cannot be reached, or does not work.
	ErrUnavailable = errors.New("the registry does not answer")
)

// Auth are credentials. They appear in no error.
type Auth struct{ Username, Password, IdentityToken string }

// String tells nothing, so that credentials cannot be printed by accident.
func (Auth) String() string { return "(credentials)" }

// GoString tells nothing.
func (a Auth) GoString() string { return a.String() }

// Options say how registries are reached.
type Options struct {
	// CA holds certificates in PEM that are trusted besides the system's; ClientCert and ClientKey are PEM.
	CA, ClientCert, ClientKey []byte
	// Insecure allows HTTP without TLS, which is otherwise used on this machine only.
	Insecure bool
	// UserAgent names this program.
	UserAgent string
}

// Client asks registries. It is safe for concurrent use. Answers that have not changed are not sent again where the registry
// marks them, and a registry that limits requests is not asked before it wants to be.
type Client struct {
	options Options
	gate    *gate
}

// New returns a client. Nothing is asked yet.
func New(o Options) (*Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 1 << 20,
		ResponseHeaderTimeout: 30 * time.Second, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if len(o.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("ca.crt holds no certificate in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if len(o.ClientCert) > 0 || len(o.ClientKey) > 0 {
		pair, err := tls.X509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, errors.New("tls.crt and tls.key are not a certificate and its key in PEM")
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &Client{options: o, gate: &gate{next: t, insecure: o.Insecure, limited: map[string]time.Time{}, kept: map[string]*answer{}}}, nil
}

// Repository returns the full name of an image without tag and digest: docker.io/library/nginx for nginx is
// index.docker.io/library/nginx here, as registries' credentials have it.
func Repository(image string) (string, error) {
	r, err := name.NewRepository(image)
	if err != nil {
		return "", fmt.Errorf("%q is not the name of an image without a tag", image)
	}
	return r.Name(), nil
}

func (c *Client) repository(image string) (name.Repository, error) {
	var options []name.Option
	if c.options.Insecure {
		options = append(options, name.Insecure)
	}
	r, err := name.NewRepository(image, options...)
	if err != nil {
		return r, fmt.Errorf("%q is not the name of an image without a tag", image)
	}
	return r, nil
}

// each calls ask with each of the credentials, in their order, until one is taken. Without any nobody logs in.
func (c *Client) each(ctx context.Context, what string, auths []Auth, ask func(*remote.Puller) error) error {
	if len(auths) == 0 {
		auths = []Auth{{}}
	}
	var err error
	for _, a := range auths {
		var who authn.Authenticator = authn.Anonymous
		if a != (Auth{}) {
			who = authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken})
		}
		var p *remote.Puller
		if p, err = remote.NewPuller(remote.WithAuth(who), remote.WithTransport(c.gate), remote.WithUserAgent(c.options.UserAgent), remote.WithContext(ctx),
			remote.WithPageSize(pageSize), remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout), remote.WithRetryBackoff(remote.Backoff{Duration: time.Second, Factor: 3, Jitter: .2, Steps: 3})); err != nil {
			return explain(what, err)
		}
		if err = ask(p); err == nil {
			return nil
		}
		if err = explain(what, err); !errors.Is(err, ErrUnauthorized) {
			return err
		}
	}
	return err
}

// Tags returns all tags of an image, sorted. It is given without a tag.
func (c *Client) Tags(ctx context.Context, image string, auths []Auth) ([]string, error) {
	repo, err := c.repository(image)
	if err != nil {
		return nil, err
	}
	var out []string
	err = c.each(ctx, image, auths, func(p *remote.Puller) error {
		out = nil
		pages, err := p.Lister(ctx, repo)
		if err != nil {
			return err
		}
		for n := 0; pages.HasNext(); n++ {
			page, err := pages.Next(ctx)
			if err != nil {
				return err
			}
			if out = append(out, page.Tags...); len(out) > maxTags || n > maxTags/10 {
				return fmt.Errorf("it has more than %d tags", maxTags)
			}
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// Digest returns the digest of a tag: of the index where there are several platforms.
func (c *Client) Digest(ctx context.Context, image, tag string, auths []Auth) (string, error) {
	repo, err := c.repository(image)
	if err != nil {
		return "", err
	}
	var out string
	err = c.each(ctx, image+":"+tag, auths, func(p *remote.Puller) error {
		d, err := p.Head(ctx, repo.Tag(tag))
		if err == nil {
			out = d.Digest.String()
			return nil
		}
		if errors.Is(explain(image, err), ErrUnauthorized) || ctx.Err() != nil {
			return err
		}
		whole, err := p.Get(ctx, repo.Tag(tag)) // not every registry takes HEAD
		if err == nil {
			out = whole.Digest.String()
		}
		return err
	})
	return out, err
}

// Until is when a registry may be asked again; zero for now.
func (c *Client) Until(image string) time.Time {
	repo, err := c.repository(image)
	if err != nil {
		return time.Time{}
	}
	return c.gate.until(repo.RegistryStr())
}

// explain words an error, with its class.
func explain(what string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrLimited) {
		return fmt.Errorf("%s: %w", what, err)
	}
	var answered *transport.Error
	if errors.As(err, &answered) {
		class := ErrUnavailable
		switch answered.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			class = ErrUnauthorized
		case http.StatusNotFound:
			class = ErrNotFound
		case http.StatusTooManyRequests:
			class = ErrLimited
		}
		text := http.StatusText(answered.StatusCode)
		for _, d := range answered.Errors {
			if d.Message != "" {
				text += ", " + strings.ToValidUTF8(d.Message[:min(len(d.Message), 200)], "?")
			}
		}
		return fmt.Errorf("%s: %w (%d %s)", what, class, answered.StatusCode, strings.Join(strings.Fields(text), " "))
	}
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, u.Err) // without the URL, which may have a token's query
	}
	return fmt.Errorf("%s: %w", what, err)
}

// gate is the way to all registries: it bounds answers, waits as long as it is asked to, keeps answers that are marked, and lets nothing
// out without TLS that should have it.
type gate struct {
	next     http.RoundTripper
	insecure bool

	mu      sync.Mutex
	limited map[string]time.Time // by host
	kept    map[string]*answer
}

// answer is one that the registry has marked.
type answer struct {
	etag   string
	header http.Header
	body   []byte
	used   time.Time
}

func (g *gate) until(host string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.limited[host]; time.Now().Before(t) {
		return t
	}
	return time.Time{}
}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.insecure && !isLoopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("%w by HTTPS: set insecure on the repository if it has none", ErrUnavailable)
	}
	if t := g.until(r.URL.Host); !t.IsZero() {
		return nil, fmt.Errorf("%w until %s", ErrLimited, t.UTC().Format(time.RFC3339))
	}
	key := r.Header.Get("Authorization") + " " + r.URL.String()
	lists := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tags/list")
	g.mu.Lock()
	have := g.kept[key]
	g.mu.Unlock()
	if lists && have != nil {
		r = r.Clone(r.Context())
		r.Header.Set("If-None-Match", have.etag)
	}
	res, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusTooManyRequests {
		g.limit(r.URL.Host, res.Header)
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswer), res.Body}
	switch {
	case lists && have != nil && res.StatusCode == http.StatusNotModified:
		res.Body.Close()
		res.StatusCode, res.Status = http.StatusOK, "200 OK"
		res.Header = have.header.Clone()
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(have.body)), int64(len(have.body))
	case lists && res.StatusCode == http.StatusOK && res.Header.Get("ETag") != "":
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return nil, err
		}
		g.keep(key, &answer{etag: res.Header.Get("ETag"), header: res.Header.Clone(), body: body, used: time.Now()})
		res.Body = io.NopCloser(bytes.NewReader(body))
	}
	return res, nil
}

func (g *gate) keep(key string, a *answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kept[key] = a
	for len(g.kept) > maxKept {
		oldest := ""
		for k, v := range g.kept {
			if oldest == "" || v.used.Before(g.kept[oldest].used) {
				oldest = k
			}
		}
		delete(g.kept, oldest)
	}
}

// limit notes how long a registry wants to be left alone; a minute when it does not say, and never more than an hour.
func (g *gate) limit(host string, h http.Header) {
	wait := time.Minute
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 {
		wait = time.Duration(min(n, 86400)) * time.Second
	} else if t, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		wait = time.Until(t)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limited[host] = time.Now().Add(min(max(wait, time.Second), longest))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
