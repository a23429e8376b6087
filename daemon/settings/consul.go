package settings

import (
	"cmp"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes/consul"
)

// Consul says with which agent Services are registered, and how. Its presence in the file turns registration on.
type Consul struct {
	// Address of the node's agent. Default 127.0.0.1:8500.
	Address string `yaml:"address"`
	// TokenFile holds the ACL token. It is read again when it changes.
	TokenFile string `yaml:"tokenFile"`
	// CAFile, CertFile and KeyFile are PEM files for https, ServerName the name in the agent's certificate.
	CAFile     string `yaml:"caFile"`
	CertFile   string `yaml:"certFile"`
	KeyFile    string `yaml:"keyFile"`
	ServerName string `yaml:"serverName"`
	// Namespace and Partition are those of Consul Enterprise.
	Namespace string `yaml:"namespace"`
	Partition string `yaml:"partition"`
	// Tags are given to everything that is registered, Prefix begins its name.
	Tags     []string       `yaml:"tags"`
	Prefix   string         `yaml:"prefix"`
	Register ConsulRegister `yaml:"register"`
	// TTL is how long Consul takes what is registered for passing after it last heard from the daemon. Default 1m.
	TTL Duration `yaml:"ttl"`
	// DeregisterAfter is how long something may be critical before the agent removes it. Default 24h.
	DeregisterAfter Duration `yaml:"deregisterAfter"`
	// Compare is the time between two comparisons with what the agent has. Default 30s.
	Compare Duration `yaml:"compare"`
	// Timeout bounds each request. Default 5s.
	Timeout Duration `yaml:"timeout"`
	// DNS is where the agent answers DNS: pods' questions for names below "consul" go there. Default 127.0.0.1:8600;
	// "none" forwards nothing.
	DNS string `yaml:"dns"`
}

// ConsulRegister says what is registered. Annotations of a Service say otherwise for that one.
type ConsulRegister struct {
	// Namespaces, all when empty.
	Namespaces []string `yaml:"namespaces"`
	// Selector is a label selector, all when empty.
	Selector string `yaml:"selector"`
	// Annotated registers only Services whose annotation asks for it.
	Annotated bool `yaml:"annotated"`
	// ClusterAddresses and NodePorts are registered too, under names of their own.
	ClusterAddresses bool `yaml:"clusterAddresses"`
	NodePorts        bool `yaml:"nodePorts"`
}

// Options returns the settings as the registry takes them.
func (c Consul) Options(installation string) consul.Options {
	return consul.Options{
		Installation: installation,
		Settings: consul.Settings{
			Address: c.Address, TokenFile: c.TokenFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, ServerName: c.ServerName,
			Namespace: c.Namespace, Partition: c.Partition, Tags: c.Tags, Prefix: c.Prefix,
			Register:         consul.Selection{Namespaces: c.Register.Namespaces, Selector: c.Register.Selector, Annotated: c.Register.Annotated},
			ClusterAddresses: c.Register.ClusterAddresses, NodePorts: c.Register.NodePorts,
			TTL: time.Duration(c.TTL), DeregisterAfter: time.Duration(c.DeregisterAfter), Compare: time.Duration(c.Compare), Timeout: time.Duration(c.Timeout),
		},
	}
}

// check adds what is wrong.
func (c *Consul) check(installation string, add func(key, format string, args ...any)) {
	if c == nil {
		return
	}
	if err := c.Options(installation).Check(); err != nil {
		add("consul", "%v", err)
	}
	if c.DNS != "none" && c.DNS != "" {
		if _, err := ServerAddress(c.DNS); err != nil {
			add("consul.dns", "%v", err)
		}
	}
}

// dns returns where names below "consul" are asked for, empty for nowhere.
func (c *Consul) dns() string {
	if c == nil || c.DNS == "none" {
		return ""
	}
	return cmp.Or(c.DNS, "127.0.0.1:8600")
}

// DomainServers returns the name servers for names below a domain, Consul's among them.
func (s Settings) DomainServers() map[string][]string {
	out := map[string][]string{}
	if server := s.Consul.dns(); server != "" {
		out["consul"] = []string{server}
	}
	for domain, servers := range s.DNS.Domains {
		out[domain] = servers
	}
	return out
}
