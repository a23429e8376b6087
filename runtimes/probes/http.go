package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxBody is how much of an answer is read.
const maxBody = 10 << 10

const userAgent = "fairlead-probe"

// newTransport makes a connection for every attempt: one that was kept would hide that a server
// takes no new ones. Certificates are not verified, as Kubernetes has it: a pod's certificate
// seldom names its address.
func newTransport(d *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext:            d.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true},
		MaxResponseHeaderBytes: 64 << 10,
		Proxy:                  nil,
	}
}

func (r *Runner) get(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, t Target) (Outcome, error) {
	req, err := newRequest(ctx, a, c, t)
	if err != nil {
		return Outcome{}, err
	}
	client := &http.Client{Transport: r.http, CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return Outcome{Message: message(err)}, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return Outcome{Message: "read the answer: " + message(err)}, nil
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		warning := fmt.Sprintf("%s answered with status %d, which counts as success", req.URL.Redacted(), resp.StatusCode)
		if to := resp.Header.Get("Location"); to != "" {
			warning = fmt.Sprintf("the probe was redirected to another host, %s, and did not follow", to)
		}
		return Outcome{Success: true, Message: warning}, nil
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return Outcome{Success: true}, nil
	}
	msg := fmt.Sprintf("%s answered with status %d", req.URL.Redacted(), resp.StatusCode)
	if text := excerpt(body); text != "" {
		msg += ": " + text
	}
	return Outcome{Message: msg}, nil
}

func newRequest(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, t Target) (*http.Request, error) {
	port, err := portNumber(a.Port, c)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme = "http"
	if a.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	u.Host = address(a.Host, t, port)
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("httpGet: %w", err)
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	if _, written := req.Header["User-Agent"]; !written {
		req.Header.Set("User-Agent", userAgent)
	}
	switch accept, written := req.Header["Accept"]; {
	case !written:
		req.Header.Set("Accept", "*/*")
	case len(accept) == 1 && accept[0] == "":
		req.Header.Del("Accept") // an empty value asks for no Accept header
	}
	return req, nil
}

// sameHost follows redirects on the host that was asked; another host's answer would say nothing
// about this container.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}
