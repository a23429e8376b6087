// Package applications reads applications and sources as people declare them already: Flux's
// GitRepository and Kustomization, and Argo CD's Application.
//
// It is strict. Every field is either honoured or reported by name, from tables that docs/applications.md
// is checked against. A declaration with a mistake stays declared, with its findings, so that a typing
// error never looks like a removal.
package applications

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/images"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Declared is what a set of objects declares, sorted by name.
type Declared struct {
	Sources      []Source
	Applications []Application
	// Images are the policies for images, and the automations that follow them. What has errors is not among them.
	Images images.Set
	// Incomplete is true when a declaration could not even be told by its name. Then nothing that is
	// missing here may be taken for removed.
	Incomplete bool
}

// Application is one path of one source, rendered and owned as a unit.
type Application struct {
	// Application has Name, Source and Path, and what the planner is allowed to do.
	plan.Application
	// Ref is the object that declares it; zero when the settings file does.
	Ref object.Ref
	// Render is what the declaration adds to what the path says. Substitute holds the inline variables
	// only, and AgeKeys nothing: see ResolveSubstitutions and ResolveDecryption.
	Render render.Options
	// Interval is the time between two looks at the application; 0 leaves it to the daemon.
	Interval time.Duration
	// RetryInterval is the longest pause between two tries of what failed; 0 leaves it to the daemon.
	RetryInterval time.Duration
	// Timeout bounds one pass; 0 leaves it to the daemon.
	Timeout time.Duration
	// Suspend leaves everything as it is; Suspension says until when and why, as far as that is declared.
	Suspend    bool
	Suspension plan.Suspension
	// Manual plans, and applies only when asked to: an Argo CD Application without automated sync.
	Manual bool
	// Wait asks for the health of every object; HealthChecks for that of these.
	Wait         bool
	HealthChecks []object.Ref
	// DependsOn are names of applications that must be healthy before.
	DependsOn []string
	// DeletionPolicy says what becomes of the objects when the application is no longer declared.
	DeletionPolicy DeletionPolicy
	// SubstituteFrom are the ConfigMaps and Secrets with variables; later ones win, inline ones win over all.
	SubstituteFrom []Ref
	// Decrypt is true when encrypted files are to be decrypted. DecryptionSecret holds the age keys;
	// without a name only the daemon's own keys are used.
	Decrypt          bool
	DecryptionSecret Ref
	// MaxShare, in percent, and MaxCount are how much one plan may delete without an approval; nil leaves it to the
	// settings. The digests that are approved are in Approved.
	MaxShare, MaxCount *int
	// RollbackOnFailure goes back to the last good revision when a newer one fails; nil leaves it to the settings.
	RollbackOnFailure *bool
	// ServiceAccount, NAMESPACE/NAME, is whom the application acts as; empty leaves it to who declares it.
	ServiceAccount string
	// Labels are those of the declaration.
	Labels map[string]string
	// Requested changes when somebody asks for a reconciliation through an annotation.
	Requested string
	// Origin is the file and line of the declaration.
	Origin object.Origin
	// Findings are what is wrong with this declaration; they are in Read's list too.
	Findings diag.List
}

// Broken reports whether the declaration has errors: then the application is left as it is.
func (a Application) Broken() bool { return a.Findings.HasErrors() }

// DeletionPolicy says what becomes of an application's objects when it is no longer declared.
type DeletionPolicy string

// The deletion policies.
const (
	Delete DeletionPolicy = "Delete"
	Orphan DeletionPolicy = "Orphan"
)

// Ref names a ConfigMap or a Secret.
type Ref struct {
	Kind, Namespace, Name string
	// Optional tolerates its absence.
	Optional bool
}

// String returns "Kind namespace/name".
func (r Ref) String() string {
	return object.Ref{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}.String()
}

// SourceKind is what a source is.
type SourceKind string

// The kinds of sources.
const (
	Git   SourceKind = "git"
	Local SourceKind = "local"
)

// Source is where desired state comes from.
type Source struct {
	// Name is unique in the daemon.
	Name string
	Kind SourceKind
	// Ref is the object that declares it; zero when it is derived or comes from the settings file.
	Ref object.Ref
	// Dir is the directory of a local source.
	Dir string
	// Repository says where and what to fetch for a git source.
	Repository Repository
	// Interval is the time between two looks; 0 leaves it to the daemon.
	Interval time.Duration
	// Suspend keeps what was fetched last.
	Suspend bool
	// SecretRef is where the credentials come from; without a name there are none.
	SecretRef Ref
	// Verify says whose signature a revision has to have.
	Verify Verification
	// Requested changes when somebody asks for a fetch through an annotation.
	Requested string
	// Origin is the file and line of the declaration; of the first application for a derived source.
	Origin object.Origin
	// Findings are what is wrong with this declaration; they are in Read's list too.
	Findings diag.List
}

// Broken reports whether the declaration has errors: then what was fetched last stays in force.
func (s Source) Broken() bool { return s.Findings.HasErrors() }

// Verification says whose signature a revision has to have. Keys are read at every fetch, so that a changed list
// counts at once.
type Verification struct {
	// Mode is HEAD, Tag or TagAndHEAD; empty asks for no signature.
	Mode string
	// SecretRef is the Secret whose keys are all files with public keys; without a name, KeyFiles are such files.
	SecretRef Ref
	KeyFiles  []string
}

// From says in words where the keys are.
func (v Verification) From() string {
	if v.SecretRef.Name != "" {
		return v.SecretRef.String()
	}
	return strings.Join(v.KeyFiles, ", ")
}

// Repository is a Git repository and what to take from it. Of the reference fields the last one that
// is set counts: branch, tag, semver, name, commit.
type Repository struct {
	URL     string
	Branch  string
	Tag     string
	SemVer  string
	RefName string
	Commit  string
	// Revision is a branch, a tag or a commit, whichever exists; HEAD is the server's default branch.
	Revision   string
	Auth       Auth
	Submodules bool
	// Timeout bounds one fetch; 0 leaves it to the daemon.
	Timeout time.Duration
	// Ignore are patterns in the form of .gitignore; nil means the default ones.
	Ignore *string
	Sparse []string
}

// Auth are credentials. It never shows them.
type Auth struct {
	Username, Password string
	BearerToken        string
	// Identity is a private key, IdentityPassword its passphrase, KnownHosts lines of known_hosts.
	Identity         []byte
	IdentityPassword string
	KnownHosts       []byte
	// CA, ClientCert and ClientKey are PEM.
	CA, ClientCert, ClientKey []byte
	// Agent uses the SSH agent of the process.
	Agent bool
}

// String names what is set, without content.
func (a Auth) String() string {
	var set []string
	add := func(name string, is bool) {
		if is {
			set = append(set, name)
		}
	}
	add("username", a.Username != "")
	add("password", a.Password != "")
	add("bearerToken", a.BearerToken != "")
	add("identity", len(a.Identity) > 0)
	add("identityPassword", a.IdentityPassword != "")
	add("knownHosts", len(a.KnownHosts) > 0)
	add("ca", len(a.CA) > 0)
	add("clientCert", len(a.ClientCert) > 0)
	add("clientKey", len(a.ClientKey) > 0)
	add("agent", a.Agent)
	return strings.Join(set, ",")
}

// GoString is String, so that %#v shows nothing either.
func (a Auth) GoString() string { return "{" + a.String() + "}" }

// MarshalText is String: credentials are never encoded.
func (a Auth) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

func (d *Declared) sort() {
	slices.SortFunc(d.Sources, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Applications, func(a, b Application) int { return cmp.Compare(a.Name, b.Name) })
	d.Images.Add(images.Set{})
}

// shownName is the name of what namespace/name declares. It depends on nothing but the two, since it
// identifies what runs: another declaration must never rename this one.
func shownName(namespace, name string) string {
	switch namespace {
	case "", "default", "flux-system", "argocd":
		return name
	default:
		return namespace + "/" + name
	}
}
