package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// session is one conversation with git-upload-pack: a listing and then at most one fetch.
type session interface {
	list(ctx context.Context) (*packp.AdvRefs, error)
	fetch(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	close()
}

// dialer begins sessions.
type dialer interface {
	dial(ctx context.Context) (session, error)
	close()
}

// capabilities are what the server can do.
type capabilities struct {
	list     *capability.List
	anyWant  bool // commits may be asked for by their ids
	filter   bool // parts of what is reachable can be left out
	hasDepth bool
}

func newDialer(at location, a Auth) (dialer, error) {
	if at.scheme == "ssh" {
		return newSSH(at, a)
	}
	return newHTTP(at, a)
}

// httpDialer speaks the smart HTTP protocol.
type httpDialer struct {
	client   transport.Transport
	http     *http.Transport
	endpoint transport.Endpoint
	auth     transport.AuthMethod
}

func newHTTP(at location, a Auth) (*httpDialer, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(a.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(a.CA) {
			return nil, fmt.Errorf("%w: ca.crt holds no certificate in PEM", ErrTLS)
		}
		config.RootCAs = pool
	}
	if len(a.ClientCert) > 0 || len(a.ClientKey) > 0 {
		pair, err := tls.X509KeyPair(a.ClientCert, a.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("%w: tls.crt and tls.key are not a certificate and its key in PEM", ErrTLS)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 15 * time.Second,
	}
	d := &httpDialer{
		client: githttp.NewClient(&http.Client{Transport: listings{t}}), http: t,
		endpoint: transport.Endpoint{Protocol: at.scheme, Host: at.hostname(), Port: at.port(), Path: at.escapedPath()},
	}
	if at.query != "" {
		return nil, fmt.Errorf("the URL has a query, which Git does not know: remove what begins at the question mark")
	}
	switch {
	case a.BearerToken != "":
		d.auth = &githttp.TokenAuth{Token: a.BearerToken}
	case a.Username != "" || a.Password != "":
		d.auth = &githttp.BasicAuth{Username: a.Username, Password: a.Password}
	}
	return d, nil
}

// listings bounds what a server may list.
type listings struct{ http.RoundTripper }

// RoundTrip sends a request.
func (l listings) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := l.RoundTripper.RoundTrip(req)
	if err == nil && req.Method == http.MethodGet {
		res.Body = &bounded{res.Body, maxListing}
	}
	return res, err
}

func (d *httpDialer) dial(context.Context) (session, error) {
	endpoint := d.endpoint // a redirect changes the session's
	s, err := d.client.NewUploadPackSession(&endpoint, d.auth)
	if err != nil {
		return nil, err
	}
	return &httpSession{s}, nil
}

func (d *httpDialer) close() { d.http.CloseIdleConnections() }

type httpSession struct{ transport.UploadPackSession }

func (s *httpSession) list(ctx context.Context) (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(ctx)
}

func (s *httpSession) fetch(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	return s.UploadPack(ctx, req)
}

func (s *httpSession) close() { s.Close() }

// read makes a listing out of what a server advertised.
func read(adv *packp.AdvRefs, s session) *listing {
	l := &listing{refs: adv.References, peeled: adv.Peeled, remote: s}
	if l.refs == nil {
		l.refs = map[string]plumbing.Hash{}
	}
	for _, v := range adv.Capabilities.Get(capability.SymRef) {
		if from, to, ok := strings.Cut(v, ":"); ok && from == "HEAD" {
			l.head = to
		}
	}
	if adv.Head != nil {
		l.refs["HEAD"] = *adv.Head
		if l.head == "" {
			l.head = guessHead(l.refs, *adv.Head)
		}
	}
	l.caps = capabilities{
		list:     adv.Capabilities,
		anyWant:  adv.Capabilities.Supports(capability.AllowReachableSHA1InWant) || adv.Capabilities.Supports("allow-any-sha1-in-want"),
		filter:   adv.Capabilities.Supports(capability.Filter),
		hasDepth: adv.Capabilities.Supports(capability.Shallow),
	}
	return l
}

// guessHead finds the default branch for servers that do not say it, as Git does.
func guessHead(refs map[string]plumbing.Hash, head plumbing.Hash) string {
	for _, name := range []string{"refs/heads/main", "refs/heads/master"} {
		if refs[name] == head {
			return name
		}
	}
	best := ""
	for name, h := range refs {
		if h == head && strings.HasPrefix(name, "refs/heads/") && (best == "" || name < best) {
			best = name
		}
	}
	return best
}

// ask is what to fetch.
type ask struct {
	wants []plumbing.Hash
	haves []plumbing.Hash // commits that are held whole, but for their history
	depth int             // 0 for all of the history
	limit int64           // of bytes to receive; 0 for none
	// commits asks for commits only, where the server can leave files out.
	commits bool
}

func (a ask) request(caps capabilities) *packp.UploadPackRequest {
	req := packp.NewUploadPackRequestFromCapabilities(caps.list)
	req.Wants = a.wants
	if caps.list.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress)
	}
	if a.depth > 0 && caps.hasDepth {
		req.Depth = packp.DepthCommits(a.depth)
		_ = req.Capabilities.Set(capability.Shallow)
	}
	if a.commits && caps.filter {
		_ = req.Capabilities.Set(capability.Filter)
		req.Filter = packp.FilterTreeDepth(0)
		return req
	}
	if len(a.haves) > 0 && caps.hasDepth {
		req.Haves = slices.Clone(a.haves)
		req.Shallows = slices.Clone(a.haves)
		_ = req.Capabilities.Set(capability.Shallow)
	}
	return req
}

// receive fetches into write and returns whether the server cut the history.
func receive(ctx context.Context, s session, caps capabilities, a ask, write func(io.Reader) error) (shallow bool, err error) {
	req := a.request(caps)
	res, err := s.fetch(ctx, req)
	if err != nil {
		return false, err
	}
	defer res.Close()
	var r io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		r = sideband.NewDemuxer(sideband.Sideband64k, r)
	case req.Capabilities.Supports(capability.Sideband):
		r = sideband.NewDemuxer(sideband.Sideband, r)
	}
	from := &source{r: r, ctx: ctx, left: a.limit, limited: a.limit > 0}
	if err := write(from); err != nil {
		if from.err != nil {
			return false, fmt.Errorf("receive objects: %w", from.err)
		}
		return false, err
	}
	return len(res.Shallows) > 0, nil
}

// source remembers why reading failed, to tell failures of the network from those of the disk.
type source struct {
	r   io.Reader
	ctx context.Context
	err error
	// left is how many bytes may still come, if that is limited.
	left    int64
	limited bool
}

var errTooMuch = errors.New("more comes than is wanted")

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.limited && s.left < 0 {
		s.err = errTooMuch
		return 0, errTooMuch
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
