package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// maxAnswer bounds the bytes of one answer that are read: an agent that sends without end is not believed.
const maxAnswer = 256 << 20

// The classes of failure of a call to the agent.
var (
	// errUnavailable: the agent did not answer, or said that it cannot now, or answered what is no answer.
	errUnavailable = errors.New("agent unavailable")
	// errDenied: the agent did not accept the token, or the token does not allow it.
	errDenied = errors.New("permission denied")
	// errRefused: the agent does not take this request; other requests may be fine.
	errRefused = errors.New("refused")
	// errUnknown: the agent does not know the service or the check.
	errUnknown = errors.New("unknown to the agent")
)

// agent is the node's Consul agent. It is safe for concurrent use; every call is bounded by the timeout.
type agent struct {
	opt     Options
	observe func(time.Duration, error)

	mu     sync.Mutex
	client *api.Client
	close  func()
	files  string // what the files were when the client was made
	sent   string // the token that the client sends; guarded by mu
}

// register registers the instance with its check, in place of what has its ID.
func (a *agent) register(ctx context.Context, i *instance) error {
	check := &api.AgentServiceCheck{
		CheckID: checkID(i.ID),
		Name:    "Ready, says fairlead",
		Notes:   "Passing as long as fairlead says that the endpoint is ready; critical by itself when fairlead has said nothing for " + a.opt.TTL.String() + ".",
		TTL:     a.opt.TTL.String(),
		Status:  api.HealthPassing,
	}
	if a.opt.DeregisterAfter > 0 {
		check.DeregisterCriticalServiceAfter = a.opt.DeregisterAfter.String()
	}
	return a.call(ctx, "register "+i.ID, func(ctx context.Context, c *api.Client) error {
		return c.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
			ID: i.ID, Name: i.Name, Address: i.Address, Port: i.Port, Tags: i.Tags, Meta: i.Meta,
			Weights: &api.AgentWeights{Passing: i.Weight, Warning: 1},
			Check:   check,
		}, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
	})
}

// deregister makes the agent be without the ID. That it did not have it is no error.
func (a *agent) deregister(ctx context.Context, id string) error {
	err := a.call(ctx, "deregister "+id, func(ctx context.Context, c *api.Client) error {
		return c.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
	})
	if errors.Is(err, errUnknown) {
		return nil
	}
	return err
}

// pass says that the instance is ready.
func (a *agent) pass(ctx context.Context, id string) error {
	return a.call(ctx, "pass the check of "+id, func(ctx context.Context, c *api.Client) error {
		return c.Agent().UpdateTTLOpts(checkID(id), "ready", api.HealthPassing, (&api.QueryOptions{}).WithContext(ctx))
	})
}

// found is a service that the agent has.
type found struct {
	instance
	// checked: it has the check that we gave it, critical: that check is critical.
	checked, critical bool
}

// list returns all services of the agent by ID, those of others included, and nothing else about those.
func (a *agent) list(ctx context.Context) (map[string]*found, error) {
	var services map[string]*api.AgentService
	var checks map[string]*api.AgentCheck
	err := a.call(ctx, "list services", func(ctx context.Context, c *api.Client) (err error) {
		services, err = c.Agent().ServicesWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return nil, noList(err)
	}
	err = a.call(ctx, "list checks", func(ctx context.Context, c *api.Client) (err error) {
		checks, err = c.Agent().ChecksWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return nil, noList(err)
	}
	out := make(map[string]*found, len(services))
	for id, s := range services {
		if s == nil {
			return nil, fmt.Errorf("list services: nothing is said about %q: %w", id, errUnavailable)
		}
		f := &found{instance: instance{ID: id, Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta, Weight: s.Weights.Passing}}
		if c := checks[checkID(id)]; c != nil {
			f.checked, f.critical = c.ServiceID == id && c.Type == "ttl", c.Status == api.HealthCritical
		}
		out[id] = f
	}
	return out, nil
}

// noList classes an error of a list: who does not know or refuses one is no agent.
func noList(err error) error {
	if errors.Is(err, errUnknown) || errors.Is(err, errRefused) {
		return fmt.Errorf("%w: %v", errUnavailable, err) //nolint:errorlint // it is another class now
	}
	return err
}

func checkID(id string) string { return "service:" + id }

// call makes one call with the client, bounded by the timeout, and returns its error with what was done and its class.
func (a *agent) call(ctx context.Context, what string, do func(context.Context, *api.Client) error) error {
	client, err := a.get()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", what, errUnavailable, err)
	}
	bounded, cancel := context.WithTimeout(ctx, a.opt.Timeout)
	defer cancel()
	start := time.Now()
	err = do(bounded, client)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	a.observe(time.Since(start), err)
	if err == nil {
		return nil
	}
	if text := err.Error(); a.token() != "" && strings.Contains(text, a.token()) { // who answers may repeat what it was sent
		return fmt.Errorf("%s: %w: %s", what, class(err), strings.ReplaceAll(text, a.token(), "***"))
	}
	return fmt.Errorf("%s: %w: %w", what, class(err), err)
}

// token is the one that the client was made with.
func (a *agent) token() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent
}

// class tells the class of an error of Consul's client.
func class(err error) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		return errUnavailable
	}
	switch {
	case status.Code == http.StatusUnauthorized, status.Code == http.StatusForbidden:
		return errDenied
	case status.Code == http.StatusNotFound:
		return errUnknown
	case status.Code == http.StatusTooManyRequests, status.Code >= 500, status.Code < 400:
		return errUnavailable
	default:
		return errRefused
	}
}

// get returns a client made with the files as they are now.
func (a *agent) get() (*api.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	files := fingerprint(a.opt.TokenFile, a.opt.CAFile, a.opt.CertFile, a.opt.KeyFile)
	if a.client != nil && files == a.files {
		return a.client, nil
	}
	token := a.opt.Token
	if a.opt.TokenFile != "" {
		b, err := os.ReadFile(a.opt.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read tokenFile: %w", err)
		}
		if token = strings.TrimSpace(string(b)); token == "" {
			return nil, fmt.Errorf("tokenFile %s is empty", a.opt.TokenFile)
		}
	}
	conf := api.DefaultNonPooledConfig()
	conf.Address, conf.Namespace, conf.Partition = a.opt.Address, a.opt.Namespace, a.opt.Partition
	if token != "" {
		conf.Token, conf.TokenFile = token, ""
	}
	a.sent = token
	if a.opt.CAFile != "" {
		conf.TLSConfig.CAFile = a.opt.CAFile
	}
	if a.opt.CertFile != "" {
		conf.TLSConfig.CertFile, conf.TLSConfig.KeyFile = a.opt.CertFile, a.opt.KeyFile
	}
	if a.opt.ServerName != "" {
		conf.TLSConfig.Address = a.opt.ServerName
	}
	transport := conf.Transport
	transport.DisableKeepAlives = false
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, a.opt.Parallel+4
	transport.IdleConnTimeout = 90 * time.Second
	tlsConfig, err := api.SetupTLSConfig(&conf.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	transport.TLSClientConfig = tlsConfig
	conf.HttpClient = &http.Client{Transport: limited{transport}}
	if a.opt.Transport != nil {
		conf.HttpClient.Transport = limited{a.opt.Transport}
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, err
	}
	if a.close != nil {
		a.close()
	}
	a.client, a.files, a.close = client, files, transport.CloseIdleConnections
	return client, nil
}

// shut closes connections that are not in use.
func (a *agent) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.close != nil {
		a.close()
	}
}

// fingerprint tells whether files changed.
func fingerprint(files ...string) string {
	var b strings.Builder
	for _, f := range files {
		if f == "" {
			continue
		}
		if fi, err := os.Stat(f); err == nil {
			fmt.Fprintf(&b, "%d %d\n", fi.ModTime().UnixNano(), fi.Size())
		} else {
			b.WriteString("missing\n")
		}
	}
	return b.String()
}

// limited bounds the length of answers.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}
