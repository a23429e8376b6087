package networking

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// Kubernetes' limits of a resolv.conf.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchBytes = 2048
	maxDomain      = 253
)

// DNS is what pods' resolv.conf files are made from.
type DNS struct {
	// Host is the host's resolv.conf, see HostResolvConf.
	Host []byte
	// Servers serve the names of services; without any, dnsPolicy ClusterFirst means Default, as in Kubernetes.
	Servers []netip.Addr
	// ClusterDomain is the domain of the services' names, for example cluster.local.
	ClusterDomain string
}

// HostResolvConf reads the host's resolv.conf. Where that only points to the stub of
// systemd-resolved, which pods cannot reach, it is the file with the real servers.
func HostResolvConf() ([]byte, error) {
	return hostResolvConf("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
}

func hostResolvConf(name, resolved string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's name servers: %w", err)
	}
	if servers := parseResolvConf(data).servers; len(servers) > 0 && !slices.ContainsFunc(servers, reachable) {
		if real, err := os.ReadFile(resolved); err == nil {
			return real, nil
		}
	}
	return data, nil
}

// ResolvConf returns a pod's /etc/resolv.conf as dnsPolicy and dnsConfig have it, and in words what
// had to be left out or will not work.
func ResolvConf(pod *plan.Pod, dns DNS) (content []byte, warnings []string) {
	host := parseResolvConf(dns.Host)
	var c resolvConf
	switch policy(pod, dns) {
	case corev1.DNSNone:
	case corev1.DNSClusterFirst:
		for _, s := range dns.Servers {
			c.servers = append(c.servers, s.String())
		}
		for _, domain := range []string{pod.Namespace + ".svc." + dns.ClusterDomain, "svc." + dns.ClusterDomain, dns.ClusterDomain} {
			c.searches = appendNew(c.searches, domain)
		}
		c.searches = appendNew(c.searches, host.searches...)
		c.options = []string{"ndots:5"}
	default:
		c = host
		if !pod.Spec.HostNetwork {
			c.servers = slices.DeleteFunc(slices.Clone(c.servers), func(s string) bool { return !reachable(s) })
			if len(c.servers) < len(host.servers) {
				warnings = append(warnings, "name servers of the host on its loopback interface were left out, because the pod cannot reach them")
			}
		}
	}
	if d := pod.Spec.DNSConfig; d != nil {
		c.servers = appendNew(c.servers, d.Nameservers...)
		c.searches = appendNew(c.searches, d.Searches...)
		for _, o := range d.Options {
			option := o.Name
			if o.Value != nil && *o.Value != "" {
				option += ":" + *o.Value
			}
			c.options = setOption(c.options, option)
		}
	}
	warnings = append(warnings, c.limit()...)
	return c.bytes(), warnings
}

// policy is the dnsPolicy that takes effect.
func policy(pod *plan.Pod, dns DNS) corev1.DNSPolicy {
	p := pod.Spec.DNSPolicy
	switch {
	case p == corev1.DNSNone:
		return p
	case p == corev1.DNSDefault, len(dns.Servers) == 0:
		return corev1.DNSDefault
	case p == corev1.DNSClusterFirstWithHostNet, !pod.Spec.HostNetwork:
		return corev1.DNSClusterFirst
	}
	return corev1.DNSDefault // ClusterFirst on the host's network
}

type resolvConf struct{ servers, searches, options []string }

// parseResolvConf reads what resolv.conf(5) describes: name servers add up, the last search or
// domain line counts, later options override earlier ones of the same name.
func parseResolvConf(data []byte) resolvConf {
	var c resolvConf
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.servers = append(c.servers, f[1])
		case "search", "domain":
			c.searches = nil
			for _, s := range f[1:] {
				if s != "." {
					c.searches = append(c.searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			for _, o := range f[1:] {
				c.options = setOption(c.options, o)
			}
		}
	}
	return c
}

// limit cuts c to what resolvers take and says what went.
func (c *resolvConf) limit() (warnings []string) {
	if n := len(c.servers); n > maxNameservers {
		c.servers = c.servers[:maxNameservers]
		warnings = append(warnings, fmt.Sprintf("%d of %d name servers were left out, because no more than %d can be used: %s stay",
			n-maxNameservers, n, maxNameservers, strings.Join(c.servers, ", ")))
	}
	var kept []string
	size := -1
	for _, s := range c.searches {
		if len(kept) == maxSearches || len(s) > maxDomain || size+1+len(s) > maxSearchBytes {
			continue
		}
		kept = append(kept, s)
		size += 1 + len(s)
	}
	if n := len(c.searches) - len(kept); n > 0 {
		warnings = append(warnings, fmt.Sprintf("%d search domains were left out, because no more than %d with %d bytes can be used",
			n, maxSearches, maxSearchBytes))
	}
	c.searches = kept
	return warnings
}

func (c *resolvConf) bytes() []byte {
	var b bytes.Buffer
	if len(c.searches) > 0 {
		b.WriteString("search " + strings.Join(c.searches, " ") + "\n")
	}
	for _, s := range c.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(c.options) > 0 {
		b.WriteString("options " + strings.Join(c.options, " ") + "\n")
	}
	return b.Bytes()
}

// reachable reports whether a pod with a network of its own can reach a name server.
func reachable(server string) bool {
	ip, err := netip.ParseAddr(server)
	return err != nil || !ip.IsLoopback()
}

// setOption adds "name" or "name:value" in place of an option with that name.
func setOption(options []string, option string) []string {
	name, _, _ := strings.Cut(option, ":")
	i := slices.IndexFunc(options, func(o string) bool {
		n, _, _ := strings.Cut(o, ":")
		return n == name
	})
	out := slices.Clone(options)
	if i >= 0 {
		out[i] = option
		return out
	}
	return append(out, option)
}

// appendNew appends the elements that list does not have yet.
func appendNew(list []string, more ...string) []string {
	out := slices.Clone(list)
	for _, s := range more {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
