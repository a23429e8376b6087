package notify

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
	"strconv"
	"strings"
	"time"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// Secret returns a URL, token or password. It is asked for every message, so that a renewed one counts at once.
type Secret func() (string, error)

// get returns the secret without the white space around it.
func (s Secret) get(what string) (string, error) {
	if s == nil {
		return "", nil
	}
	text, err := s()
	if err != nil {
		return "", &Temporary{Err: fmt.Errorf("read the %s: %w", what, err)} // the file may come
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", &Temporary{Err: fmt.Errorf("read the %s: it is empty", what)}
	}
	return text, nil
}

// HTTP says how services are reached.
type HTTP struct {
	// CA holds certificates in PEM that are trusted besides the system's.
	CA []byte
	// UserAgent names this program.
	UserAgent string
}

// poster sends requests to one service. What is secret is in none of its errors.
type poster struct {
	service string
	agent   string
	http    *http.Client
}

func newPoster(service string, h HTTP) (*poster, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 1 << 20,
	}
	if len(h.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(h.CA) {
			return nil, errors.New("the CA holds no certificate in PEM")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	// A redirect would carry a token elsewhere, and turn a POST into a GET.
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &poster{service: service, agent: h.UserAgent, http: &http.Client{Transport: t, CheckRedirect: refuse}}, nil
}

// do sends a request once and returns the answer's body.
func (p *poster) do(ctx context.Context, method, target string, header http.Header, body []byte, secrets ...string) ([]byte, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("the URL of %s is not one that begins with https://", p.service)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a request to %s from its settings", p.service)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if p.agent != "" {
		req.Header.Set("User-Agent", p.agent)
	}
	secrets = append(secrets, target, u.Path, u.RawQuery)
	if pass, ok := u.User.Password(); ok {
		secrets = append(secrets, pass)
	}
	res, err := p.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may be the secret
		}
		return nil, &Temporary{Err: errors.New("reach " + p.service + ": " + scrub(err.Error(), secrets))}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, &Temporary{Err: fmt.Errorf("read the answer of %s: %s", p.service, scrub(err.Error(), secrets))}
	}
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return answer, nil
	}
	failure := fmt.Errorf("%s answered %d %s", p.service, res.StatusCode, http.StatusText(res.StatusCode))
	if text := cut(strings.Join(strings.Fields(plain(string(answer), 300)), " "), 200); text != "" {
		failure = fmt.Errorf("%w: %s", failure, scrub(text, secrets))
	}
	switch c := res.StatusCode; {
	case c == http.StatusTooManyRequests, c == http.StatusRequestTimeout, c == http.StatusTooEarly, c >= 500:
		return answer, &Temporary{Err: failure, After: retryAfter(res.Header, time.Now())}
	}
	return answer, failure
}

// retryAfter reads the header Retry-After: seconds, which some services give with a fraction, or a time.
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := h.Get("Retry-After")
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 {
		return time.Duration(min(n, 86400) * float64(time.Second))
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// scrub takes secrets out of a text.
func scrub(text string, secrets []string) string {
	for _, s := range secrets {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	return text
}
