package consul

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Annotations of a Service that say how it is registered.
const (
	// RegisterAnnotation is "false" to keep a Service out of Consul. "true" is needed where only annotated ones are registered.
	RegisterAnnotation = "fairlead.dev/consul"
	// NameAnnotation is the name in Consul, in place of prefix, name and namespace.
	NameAnnotation = "fairlead.dev/consul-name"
	// TagsAnnotation are further tags, separated by commas.
	TagsAnnotation = "fairlead.dev/consul-tags"
)

// Meta keys of everything that is registered.
const (
	metaSource       = "external-source"
	metaInstallation = "fairlead-installation"
	metaApplication  = "application"
	metaRevision     = "revision"
	metaNamespace    = "namespace"
	metaService      = "service"
	metaPort         = "port"
	metaPod          = "pod"
	metaNode         = "node"
	metaKind         = "kind"
)

const (
	source = "fairlead"
	// maxLabel is the length of a DNS label, maxMeta that of a value in Consul's meta. maxTag is ours.
	maxLabel, maxMeta, maxTag = 63, 512, 255
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// instance is one instance of a service in Consul. It is immutable once made.
type instance struct {
	ID      string
	Name    string
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	Weight  int
}

// same reports whether two instances are the same but for their revision, which only says from where something was
// registered first.
func (i *instance) same(j *instance) bool {
	return i == j || i.ID == j.ID && i.Name == j.Name && i.Address == j.Address && i.Port == j.Port && i.Weight == j.Weight &&
		slices.Equal(i.Tags, j.Tags) && sameMeta(i.Meta, j.Meta)
}

func sameMeta(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w && k != metaRevision {
			return false
		}
	}
	return true
}

// naming makes the names and instances of Services. Its functions are pure.
type naming struct {
	opt      Options
	selector labels.Selector
	idPrefix string
}

func newNaming(opt Options, sel labels.Selector) *naming {
	return &naming{opt, sel, "fairlead-" + opt.Installation + "-"}
}

// wants reports whether the Service is to be registered.
func (n *naming) wants(s *plan.Service) bool {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	if ns := n.opt.Register.Namespaces; len(ns) > 0 && !slices.Contains(ns, s.Namespace) {
		return false
	}
	switch s.Annotations[RegisterAnnotation] {
	case "false":
		return false
	case "true":
	default:
		if n.opt.Register.Annotated {
			return false
		}
	}
	return n.selector.Matches(labels.Set(s.Labels))
}

// names are the names of one Service: those of its ports, then the same for cluster addresses and node ports.
type names struct {
	ports, cluster, nodePort []string
	// problem says in words what about the annotations is not followed.
	problem string
}

func (a names) equal(b names) bool {
	return slices.Equal(a.ports, b.ports) && slices.Equal(a.cluster, b.cluster) && slices.Equal(a.nodePort, b.nodePort)
}

// assign gives every Service that is to be registered its names. Two Services never come to share a name by the way
// names are made: the second, in the order of Refs, gets a hash behind it. They share one when their annotations say so.
func (n *naming) assign(routes plan.Routes) map[object.Ref]names {
	sorted := slices.Clone(routes)
	slices.SortFunc(sorted, func(a, b *plan.Route) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	type base struct {
		route   *plan.Route
		name    string
		chosen  bool
		problem string
	}
	var bases []base
	for _, r := range sorted {
		if !n.wants(r.Service) {
			continue
		}
		b := base{route: r}
		if name := r.Annotations[NameAnnotation]; name != "" {
			if len(name) <= maxLabel && label.MatchString(name) && name != "consul" {
				b.name, b.chosen = name, true
			} else {
				b.problem = "annotation " + NameAnnotation + " of " + r.Ref.String() + ": " + strconv.Quote(name) + " is not a DNS label in lower case that is free for services"
			}
		}
		if !b.chosen {
			b.name = n.opt.Prefix + r.Name
			if r.Namespace != "default" {
				b.name += "-" + r.Namespace
			}
		}
		bases = append(bases, b)
	}
	// Names that were chosen are not given to anyone else, so they come first.
	slices.SortStableFunc(bases, func(a, b base) int {
		switch {
		case a.chosen == b.chosen:
			return 0
		case a.chosen:
			return -1
		default:
			return 1
		}
	})
	taken := map[string]bool{"consul": true}
	out := make(map[object.Ref]names, len(bases))
	for _, b := range bases {
		give := func(port int, suffix string) string {
			name := b.name
			if len(b.route.Ports) > 1 {
				p := b.route.Ports[port]
				if p.Name != "" {
					name += "-" + p.Name
				} else {
					name += "-" + strconv.Itoa(int(p.Port))
				}
			}
			name = fit(name + suffix)
			if !b.chosen && taken[name] {
				name = cut(name, b.route.Ref.String()+"\x00"+strconv.Itoa(port)+suffix)
			}
			taken[name] = true
			return name
		}
		ns := names{problem: b.problem}
		for i := range b.route.Ports {
			ns.ports = append(ns.ports, give(i, ""))
		}
		for i, p := range b.route.Ports {
			cluster, node := "", ""
			if n.opt.ClusterAddresses && !b.route.Headless() {
				cluster = give(i, "-cluster")
			}
			if n.opt.NodePorts && p.NodePort != 0 {
				node = give(i, "-nodeport")
			}
			ns.cluster, ns.nodePort = append(ns.cluster, cluster), append(ns.nodePort, node)
		}
		out[b.route.Ref] = ns
	}
	return out
}

// fit returns the name if it is a DNS label, and otherwise one that cut makes of it.
func fit(name string) string {
	if len(name) <= maxLabel && label.MatchString(name) {
		return name
	}
	return cut(name, name)
}

// cut returns the name's beginning, as far as a DNS label can hold it, with a hash of what it stands for behind it.
func cut(name, of string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	if len(name) > maxLabel-9 {
		name = name[:maxLabel-9]
	}
	return strings.TrimLeft(strings.TrimRight(name, "-")+"-"+hash(of)[:8], "-")
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// instances returns what is to be registered of a route under the names, sorted by ID.
func (n *naming) instances(r *plan.Route, ns names) []*instance {
	var out []*instance
	for p, port := range r.Ports {
		for _, i := range r.Backends(p, "") {
			e := &r.Endpoints[i]
			if !e.Ready || n.opt.Node != "" && e.Node != "" && e.Node != n.opt.Node {
				continue
			}
			inst := n.instance(r, port, ns.ports[p], "", e.Address.String()+"/"+e.Pod.String())
			inst.Address, inst.Port, inst.Weight = e.Address.String(), int(e.Ports[p]), max(e.Weight, 1)
			if e.UID != "" {
				inst.Meta[metaPod] = short(e.Pod.String())
			}
			if e.Node != "" {
				inst.Meta[metaNode] = short(string(e.Node))
			}
			out = append(out, inst)
		}
		if ns.cluster[p] != "" && reaches(r, p, r.Spec.InternalTrafficPolicy != nil && *r.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal, n.opt.Node) {
			inst := n.instance(r, port, ns.cluster[p], "cluster", "")
			inst.Address, inst.Port = r.Spec.ClusterIP, int(port.Port)
			out = append(out, inst)
		}
		if ns.nodePort[p] != "" && reaches(r, p, r.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal, n.opt.Node) {
			inst := n.instance(r, port, ns.nodePort[p], "nodeport", "")
			if len(n.opt.HostIPs) > 0 {
				inst.Address = n.opt.HostIPs[0].String()
			}
			inst.Port = int(port.NodePort)
			out = append(out, inst)
		}
	}
	slices.SortFunc(out, func(a, b *instance) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b *instance) bool { return a.ID == b.ID })
}

// reaches reports whether the node sends connections of a port to an endpoint.
func reaches(r *plan.Route, port int, local bool, on plan.NodeID) bool {
	if !local {
		on = ""
	}
	return len(r.Backends(port, on)) > 0
}

// instance makes an instance with all that does not depend on the endpoint.
func (n *naming) instance(r *plan.Route, port plan.RoutePort, name, kind, who string) *instance {
	portName := port.Name
	if portName == "" {
		portName = strconv.Itoa(int(port.Port))
	}
	meta := map[string]string{
		metaSource: source, metaInstallation: n.opt.Installation, metaApplication: r.Application, metaRevision: r.SourceRevision,
		metaNamespace: r.Namespace, metaService: r.Name, metaPort: portName, metaKind: kind,
	}
	maps.DeleteFunc(meta, func(_, v string) bool { return v == "" })
	for k, v := range meta {
		meta[k] = short(v)
	}
	tags := slices.Clone(n.opt.Tags)
	for tag := range strings.SplitSeq(r.Annotations[TagsAnnotation], ",") {
		tags = append(tags, strings.TrimSpace(tag))
	}
	tags = append(tags, strings.ToLower(string(port.Protocol)), port.AppProtocol, kind)
	seen := map[string]bool{"": true}
	tags = slices.DeleteFunc(tags, func(tag string) bool {
		drop := seen[tag] || len(tag) > maxTag
		seen[tag] = true
		return drop
	})
	// The readable part is for people; the hash makes the ID unique.
	readable := r.Namespace + "-" + r.Name + "-" + portName
	if len(readable) > 100 {
		readable = readable[:100]
	}
	id := n.idPrefix + readable + "-" + hash(strings.Join([]string{r.Namespace, r.Name, portName, string(port.Protocol), kind, who}, "\x00"))[:16]
	return &instance{ID: id, Name: name, Tags: tags, Meta: meta, Weight: 1}
}

func short(v string) string {
	if len(v) > maxMeta {
		v = v[:maxMeta]
	}
	return strings.ToValidUTF8(v, "")
}

// ours reports whether something that the agent has was registered by this installation: both its ID and its meta say so.
func (n *naming) ours(id string, meta map[string]string) bool {
	return strings.HasPrefix(id, n.idPrefix) && meta[metaSource] == source && meta[metaInstallation] == n.opt.Installation
}
