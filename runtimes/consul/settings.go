package consul

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/plan"
)

// Settings say with which agent Services are registered, and how. The zero value is valid.
type Settings struct {
	// Address of the node's agent: host:port, http://, https:// or unix://. Default 127.0.0.1:8500.
	Address string
	// Token is the ACL token; TokenFile is a file that holds it, is read again when it changes, and wins.
	Token, TokenFile string
	// CAFile, CertFile and KeyFile are PEM files for https; all are read again when they change. ServerName is the name that
	// the agent's certificate must have, in place of the address's.
	CAFile, CertFile, KeyFile, ServerName string
	// Namespace and Partition to register in; Consul Enterprise only.
	Namespace, Partition string
	// Tags are given to everything that is registered.
	Tags []string
	// Prefix begins the names of what is registered.
	Prefix string
	// Register selects Services.
	Register Selection
	// ClusterAddresses registers each port's cluster address too, under the port's name and "-cluster".
	ClusterAddresses bool
	// NodePorts registers each node port too, at the node's address, under the port's name and "-nodeport".
	NodePorts bool
	// TTL is how long Consul takes what is registered for passing after it last heard from fairlead. 10s and up, default 1m.
	TTL time.Duration
	// DeregisterAfter is how long something may be critical before Consul's agent removes it. 1m and up, default 24h;
	// negative is never.
	DeregisterAfter time.Duration
	// Compare is the time between two comparisons with what the agent has. 1s and up, default 30s.
	Compare time.Duration
	// Timeout bounds each request to the agent. Default 5s.
	Timeout time.Duration
	// Parallel bounds how many requests that change something are under way at a time. Default 8.
	Parallel int
}

// Selection says which Services are registered: those in the namespaces that the selector selects, except those whose
// annotation says otherwise.
type Selection struct {
	// Namespaces, empty for all.
	Namespaces []string
	// Selector is a label selector as kubectl takes it, empty for all.
	Selector string
	// Annotated registers only Services with the annotation fairlead.dev/consul: "true".
	Annotated bool
}

// Options are everything that a Registry needs.
type Options struct {
	Settings
	// Installation tells what this daemon registers from what others do. A letter or digit, then letters, digits,
	// hyphens, dots or underscores.
	Installation string
	// Node is whose endpoints are registered, with those that are on no node. Empty is for every endpoint.
	Node plan.NodeID
	// HostIPs are the node's addresses, for NodePorts. Without any, the agent's own address is registered.
	HostIPs []netip.Addr
	// Transport carries the requests in place of connections of its own; nil outside of tests.
	Transport http.RoundTripper
	// Event, if not nil, is told in words what changed between working and not. It must not block.
	Event func(Condition)
}

var (
	installationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	prefixName       = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,30})?$`)
)

// complete returns the options with their defaults, and the parsed selector.
func (o Options) complete() (Options, labels.Selector, error) {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("consul: "+format, args...))
		}
	}
	set := func(d *time.Duration, byDefault time.Duration) {
		if *d == 0 {
			*d = byDefault
		}
	}
	set(&o.TTL, time.Minute)
	set(&o.DeregisterAfter, 24*time.Hour)
	set(&o.Compare, 30*time.Second)
	set(&o.Timeout, 5*time.Second)
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:8500"
	}
	bad(installationName.MatchString(o.Installation), "installation %q: must be 1 to 63 letters, digits, hyphens, dots or underscores", o.Installation)
	bad(prefixName.MatchString(o.Prefix), "prefix %q: must be at most 31 lower-case letters, digits and hyphens, the first no hyphen", o.Prefix)
	bad(o.TTL >= 10*time.Second, "ttl %s: must be at least 10s", o.TTL)
	bad(o.DeregisterAfter < 0 || o.DeregisterAfter >= time.Minute, "deregisterAfter %s: must be at least 1m, which is the least that Consul knows, or negative for never", o.DeregisterAfter)
	bad(o.Compare >= time.Second, "compare %s: must be at least 1s", o.Compare)
	bad(o.Timeout >= 100*time.Millisecond, "timeout %s: must be at least 100ms", o.Timeout)
	bad(o.Parallel >= 1 && o.Parallel <= 128, "parallel %d: must be 1 to 128", o.Parallel)
	bad((o.CertFile == "") == (o.KeyFile == ""), "certFile and keyFile: name both or none")
	bad(o.Token == "" || o.TokenFile == "", "token and tokenFile: name one of them")
	for _, tag := range o.Tags {
		bad(tag != "" && len(tag) <= maxTag, "tag %q: must have 1 to %d bytes", tag, maxTag)
	}
	sel, err := labels.Parse(o.Register.Selector)
	if err != nil {
		errs = append(errs, fmt.Errorf("consul: register.selector: %w", err))
	}
	return o, sel, errors.Join(errs...)
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	_, _, err := o.complete()
	return err
}
