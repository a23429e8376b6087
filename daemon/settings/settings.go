// Package settings holds what a person decides about a daemon: where it keeps its state, which engine it
// drives, and what it reconciles. A settings file is YAML; an unknown or repeated key is an error with its line.
package settings

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// Settings are all settings. The zero value of a field means the default that WithDefaults fills in.
type Settings struct {
	// Installation tells what this daemon owns from what others own on the same engine; it is part of the
	// names of containers, and of the pod network. Default "fairlead".
	Installation string `yaml:"installation"`
	// StateDir holds what has to outlive a restart. Default /var/lib/fairlead.
	StateDir string `yaml:"stateDir"`
	// RunDir is in memory and holds the Secrets that pods mount. Default /run/INSTALLATION.
	RunDir string `yaml:"runDir"`
	// Socket is where the daemon answers the other commands. Default fairlead.sock in StateDir.
	Socket string `yaml:"socket"`
	// Listen is the address of /healthz, /readyz and /metrics, for example 127.0.0.1:9440. Default none.
	Listen string `yaml:"listen"`
	// Engine is the address of the Docker engine. Default DOCKER_HOST, or the local engine.
	Engine string `yaml:"engine"`
	// ConfigDir holds the objects that declare applications: Flux's GitRepository and Kustomization, Argo CD's
	// Application, and the Secrets that they refer to. It is watched.
	ConfigDir string `yaml:"configDir"`
	// Applications are declared here without an object.
	Applications []Application `yaml:"applications"`
	// Defaults apply where an application or source says nothing.
	Defaults Defaults `yaml:"defaults"`
	// AllowUnsupported leaves out objects of kinds that are not run, instead of failing their application.
	AllowUnsupported bool `yaml:"allowUnsupported"`
	// AgeKeyFile holds the age keys with which encrypted files are decrypted where an application names none.
	AgeKeyFile string   `yaml:"ageKeyFile"`
	Log        Log      `yaml:"log"`
	Events     Events   `yaml:"events"`
	Network    Network  `yaml:"network"`
	Services   Services `yaml:"services"`
	DNS        DNS      `yaml:"dns"`
	// Consul is nil when nothing is registered there.
	Consul   *Consul  `yaml:"consul"`
	Pods     Pods     `yaml:"pods"`
	Registry Registry `yaml:"registry"`
	// Hooks is nil when nothing listens for deliveries of forges.
	Hooks *Hooks `yaml:"hooks"`
	// Forges are the Git hosting services whose APIs are used.
	Forges []Forge `yaml:"forges"`
	// Notifications say who is told of what happens.
	Notifications Notifications `yaml:"notifications"`

	// SourceDir holds clones. Default sources in StateDir. It is no key of the file.
	SourceDir string `yaml:"-"`
}

// Defaults apply where an application or source says nothing.
type Defaults struct {
	// Interval is the time between two looks at a source. Default 1m.
	Interval Duration `yaml:"interval"`
	// RetryInterval is the longest pause between two tries of what failed. Default 1m.
	RetryInterval Duration `yaml:"retryInterval"`
	// PruneLimit is how much one plan may delete without an approval.
	PruneLimit PruneLimit `yaml:"pruneLimit"`
	// Approval says what else waits for an approval.
	Approval Approval `yaml:"approval"`
	// RollbackOnFailure goes back to an application's last good revision when a newer one fails. Default false.
	RollbackOnFailure bool `yaml:"rollbackOnFailure"`
	// ServiceAccount is whom applications act as that are declared by objects and do not say it: a service account of this name in
	// the namespace of the declaration. Default: whoever declares them.
	ServiceAccount string `yaml:"serviceAccount"`
	// PodSecurity is what namespaces ask of pods that have no label of the kind.
	PodSecurity PodSecurity `yaml:"podSecurity"`
}

// PodSecurity are levels of the Pod Security Standards: privileged, baseline or restricted. Default privileged.
type PodSecurity struct {
	// Enforce refuses pods beyond the level, Warn warns of them, and Audit tells of them.
	Enforce string `yaml:"enforce"`
	Warn    string `yaml:"warn"`
	Audit   string `yaml:"audit"`
}

// check reports what cannot be.
func (p PodSecurity) check(key string, add func(key, format string, args ...any)) {
	for _, l := range [...]struct{ mode, level string }{{"enforce", p.Enforce}, {"warn", p.Warn}, {"audit", p.Audit}} {
		switch l.level {
		case "", "privileged", "baseline", "restricted":
		default:
			add(key+"."+l.mode, "%q is unknown: use privileged, baseline or restricted", l.level)
		}
	}
}

// PruneLimit is how much of an application one plan may delete without an approval: what is over both waits for one.
type PruneLimit struct {
	// MaxShare is a percentage of the application's objects and pods; 100 never asks. Default 50.
	MaxShare *int `yaml:"maxShare"`
	// MaxCount is a number of objects and pods. Default 4.
	MaxCount *int `yaml:"maxCount"`
}

// The default of PruneLimit.
const (
	defaultMaxShare = 50
	defaultMaxCount = 4
)

// check reports what cannot be.
func (p PruneLimit) check(key string, add func(key, format string, args ...any)) {
	if p.MaxShare != nil && (*p.MaxShare < 0 || *p.MaxShare > 100) {
		add(key+".maxShare", "%d is no percentage: use 0 to 100", *p.MaxShare)
	}
	if p.MaxCount != nil && *p.MaxCount < 0 {
		add(key+".maxCount", "%d is not possible: use 0 or more", *p.MaxCount)
	}
}

// Approval says what waits for an approval in any number.
type Approval struct {
	// Volumes are deletions of PersistentVolumeClaims and PersistentVolumes. Default true.
	Volumes *bool `yaml:"volumes"`
	// Kinds are those of which no object is made, changed or deleted without an approval, written Kind, Kind.group or *.group.
	Kinds []string `yaml:"kinds"`
}

func checkKinds(key string, kinds []string, add func(key, format string, args ...any)) {
	for _, k := range kinds {
		if !plan.IsKind(k) {
			add(key, "%q is no kind: write it like Secret, Deployment.apps or *.rbac.authorization.k8s.io", k)
		}
	}
}

// Log says how the daemon logs.
type Log struct {
	// Level is trace, debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is text or json. Default text.
	Format string `yaml:"format"`
}

// Events says how many events are kept.
type Events struct {
	// Keep is their number. Default 1000.
	Keep int `yaml:"keep"`
}

// Network is the network of the pods.
type Network struct {
	// CIDR is the pods' subnet. Default: the first free one of 10.90.0.0/16 to 10.99.0.0/16.
	CIDR string `yaml:"cidr"`
	// Bridge is the name of the bridge and of the engine's network. Default: made from Installation.
	Bridge string `yaml:"bridge"`
	// MTU of the pods' interfaces. Default 1500.
	MTU int `yaml:"mtu"`
	// ClusterDomain ends the names of Services and pods. Default cluster.local.
	ClusterDomain string `yaml:"clusterDomain"`
	// Nameservers are asked for what is no name of a Service, in place of the host's.
	Nameservers []string `yaml:"nameservers"`
}

// Pods says how pods run.
type Pods struct {
	// SeccompDir holds the profiles of seccomp type Localhost. Default /var/lib/kubelet/seccomp.
	SeccompDir string `yaml:"seccompDir"`
	// Slots bounds how many containers are created, started or removed at a time. Default: twice the
	// engine's processors.
	Slots int `yaml:"slots"`
}

// Registry says how images are had.
type Registry struct {
	// DockerConfig is a docker config.json, for images without an imagePullSecret. Default: that of the user.
	DockerConfig string `yaml:"dockerConfig"`
}

// Application is a path of a repository or of a directory that is reconciled without an object that declares it.
type Application struct {
	// Name is unique. Default: made from Location and Path.
	Name string `yaml:"name"`
	// Location is the URL of a Git repository, or a directory. Required.
	Location string `yaml:"location"`
	// Path is the directory in it. Default the root.
	Path string `yaml:"path"`
	// Ref is a branch, tag, full reference or commit; "semver:RANGE" is the highest tag in a range. Default:
	// the repository's default branch.
	Ref string `yaml:"ref"`
	// Interval is the time between two looks.
	Interval Duration `yaml:"interval"`
	// Namespace is given to objects that name none. Default "default".
	Namespace string `yaml:"namespace"`
	// Prune deletes what is gone from the source. Default true.
	Prune *bool `yaml:"prune"`
	// AllowEmpty allows that to be everything.
	AllowEmpty bool `yaml:"allowEmpty"`
	// PruneLimit is how much of it one plan may delete without an approval. Default that of Defaults.
	PruneLimit PruneLimit `yaml:"pruneLimit"`
	// ApproveKinds are added to the kinds of the Approval of Defaults.
	ApproveKinds []string `yaml:"approveKinds"`
	// RollbackOnFailure is that of this application. Default that of Defaults.
	RollbackOnFailure *bool `yaml:"rollbackOnFailure"`
	// ServiceAccount is whom it acts as, NAMESPACE/NAME: what it does is judged by the RBAC objects. Default: it may do everything.
	ServiceAccount string `yaml:"serviceAccount"`
	// Labels are for the rules of notifications.
	Labels map[string]string `yaml:"labels"`
	// Suspend leaves everything as it is.
	Suspend bool `yaml:"suspend"`
	// Submodules are fetched too.
	Submodules bool `yaml:"submodules"`
	// AllowUnsupported leaves out objects of kinds that are not run.
	AllowUnsupported bool `yaml:"allowUnsupported"`
	Auth             Auth `yaml:"auth"`
	// Verify says whose signature a commit or tag has to have; nil asks for none.
	Verify *Verify `yaml:"verify"`
}

// Verify says whose signature a revision has to have.
type Verify struct {
	// Mode says what has to be signed: HEAD (the commit), Tag, or TagAndHEAD. Default HEAD.
	Mode string `yaml:"mode"`
	// KeyFiles hold public keys: OpenPGP in ASCII armor, or SSH as in authorized_keys or allowed_signers. They are
	// read again at every fetch. Required.
	KeyFiles []string `yaml:"keyFiles"`
}

// check reports what cannot be.
func (v *Verify) check(key string, a Application, add func(key, format string, args ...any)) {
	if v == nil {
		return
	}
	switch v.Mode {
	case "", "HEAD", "Tag", "TagAndHEAD":
	default:
		add(key+".mode", "%q is unknown: use HEAD, Tag or TagAndHEAD", v.Mode)
	}
	if len(v.KeyFiles) == 0 {
		add(key+".keyFiles", "is missing: name files with the public keys of who may sign")
	}
	if _, isDir := a.directory(); isDir && a.Location != "" {
		add(key, "a directory has no signatures: set ref, so that the commits of its repository are read instead")
	}
}

// Auth says in which files credentials are.
type Auth struct {
	Username       string `yaml:"username"`
	PasswordFile   string `yaml:"passwordFile"`
	SSHKeyFile     string `yaml:"sshKeyFile"`
	KnownHostsFile string `yaml:"knownHostsFile"`
	CAFile         string `yaml:"caFile"`
	CertFile       string `yaml:"certFile"`
	KeyFile        string `yaml:"keyFile"`
}

// Duration is a time.Duration that is written like 30s or 5m.
type Duration time.Duration

// WithDefaults fills in what is not said.
func (s Settings) WithDefaults() Settings {
	s.Installation = cmp.Or(s.Installation, "fairlead")
	s.StateDir = cmp.Or(s.StateDir, "/var/lib/fairlead")
	s.RunDir = cmp.Or(s.RunDir, "/run/"+s.Installation)
	s.Socket = cmp.Or(s.Socket, filepath.Join(s.StateDir, "fairlead.sock"))
	s.Defaults.Interval = cmp.Or(s.Defaults.Interval, Duration(time.Minute))
	s.Defaults.RetryInterval = cmp.Or(s.Defaults.RetryInterval, Duration(time.Minute))
	share, count := defaultMaxShare, defaultMaxCount
	s.Defaults.PruneLimit.MaxShare = cmp.Or(s.Defaults.PruneLimit.MaxShare, &share)
	s.Defaults.PruneLimit.MaxCount = cmp.Or(s.Defaults.PruneLimit.MaxCount, &count)
	s.Log.Level = cmp.Or(s.Log.Level, "info")
	s.Log.Format = cmp.Or(s.Log.Format, "text")
	s.Events.Keep = cmp.Or(s.Events.Keep, 1000)
	s.Network.MTU = cmp.Or(s.Network.MTU, 1500)
	s.Network.ClusterDomain = cmp.Or(s.Network.ClusterDomain, "cluster.local")
	s.Services.NodePorts = cmp.Or(s.Services.NodePorts, defaultNodePorts)
	s.DNS.TTL = cmp.Or(s.DNS.TTL, Duration(5*time.Second))
	s.Pods.SeccompDir = cmp.Or(s.Pods.SeccompDir, "/var/lib/kubelet/seccomp")
	return s
}

var installationName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Check returns everything that is wrong with settings that have their defaults. Each line begins with the key.
func (s Settings) Check() []string {
	var found []string
	add := func(key, format string, args ...any) { found = append(found, key+": "+fmt.Sprintf(format, args...)) }
	if !installationName.MatchString(s.Installation) {
		add("installation", "%q must be at most 32 lower-case letters, digits and dashes, a letter first", s.Installation)
	}
	for _, p := range []struct{ key, value string }{{"stateDir", s.StateDir}, {"runDir", s.RunDir}, {"socket", s.Socket}} {
		if !filepath.IsAbs(p.value) {
			add(p.key, "%q is not an absolute path", p.value)
		}
	}
	if len(s.Socket) > 100 {
		add("socket", "%q is too long for a unix socket: choose a path of at most 100 bytes", s.Socket)
	}
	if s.Listen != "" {
		if _, _, err := net.SplitHostPort(s.Listen); err != nil {
			add("listen", "%q is not an address: write it like 127.0.0.1:9440", s.Listen)
		}
	}
	if s.Network.CIDR != "" {
		if p, err := netip.ParsePrefix(s.Network.CIDR); err != nil || !p.Addr().Is4() {
			add("network.cidr", "%q is not an IPv4 subnet: write it like 10.90.0.0/16", s.Network.CIDR)
		}
	}
	for _, n := range s.Network.Nameservers {
		if _, err := ServerAddress(n); err != nil {
			add("network.nameservers", "%v", err)
		}
	}
	s.Services.check(add)
	s.DNS.check(add)
	s.Consul.check(s.Installation, add)
	s.Hooks.check(add)
	for i, f := range s.Forges {
		f.check(fmt.Sprintf("forges[%d]", i), add)
	}
	s.Notifications.check(add)
	switch s.Log.Level {
	case "trace", "debug", "info", "warn", "error":
	default:
		add("log.level", "%q is unknown: use trace, debug, info, warn or error", s.Log.Level)
	}
	switch s.Log.Format {
	case "text", "json":
	default:
		add("log.format", "%q is unknown: use text or json", s.Log.Format)
	}
	if s.Events.Keep < 0 || s.Events.Keep > 100_000 {
		add("events.keep", "%d is not possible: use 1 to 100000", s.Events.Keep)
	}
	s.Defaults.PruneLimit.check("defaults.pruneLimit", add)
	checkKinds("defaults.approval.kinds", s.Defaults.Approval.Kinds, add)
	s.Defaults.PodSecurity.check("defaults.podSecurity", add)
	if name := s.Defaults.ServiceAccount; strings.Contains(name, "/") {
		add("defaults.serviceAccount", "%q names a namespace: write the name alone, which is looked for in the namespace of each declaration", name)
	}
	names := map[string]int{}
	for i, a := range s.Applications {
		at := fmt.Sprintf("applications[%d]", i)
		a.PruneLimit.check(at+".pruneLimit", add)
		a.Verify.check(at+".verify", a, add)
		checkKinds(at+".approveKinds", a.ApproveKinds, add)
		if namespace, name, ok := strings.Cut(a.ServiceAccount, "/"); a.ServiceAccount != "" && (!ok || namespace == "" || name == "" || strings.Contains(name, "/")) {
			add(at+".serviceAccount", "%q is no service account: write NAMESPACE/NAME", a.ServiceAccount)
		}
		if strings.TrimSpace(a.Location) == "" {
			add(at+".location", "is missing: name a repository or a directory")
			continue
		}
		if first, taken := names[a.name()]; taken {
			add(at+".name", "%q is the name of applications[%d] too: give one of them another", a.name(), first)
		}
		names[a.name()] = i
	}
	return found
}
