package cli

import (
	"cmp"
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// Env is what the commands need from the rest of the program and from the system.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	// Version and Revision are what the program was built from.
	Version, Revision string

	// New returns a daemon that does not run yet, for up and run.
	New func(ctx context.Context, s Settings, log zerolog.Logger) (System, error)
	// Local returns a Backend that works on its own, for when no daemon answers; it reconciles nothing by
	// itself. The function releases it.
	Local func(ctx context.Context, s Settings, log zerolog.Logger) (api.Backend, func() error, error)
	// Validate fetches and renders. It needs no engine.
	Validate func(ctx context.Context, s Settings) (api.Validation, error)
	// RenderWorker serves the hidden command render-worker; nil without one.
	RenderWorker func(ctx context.Context, stdin io.Reader, stdout io.Writer) error
}

// System is a daemon.
type System interface {
	api.Backend
	// Run reconciles, and answers on the socket of its settings, until ctx ends. It leaves pods running.
	Run(ctx context.Context) error
}

// Settings are what the command line says about a daemon or a local backend. Empty fields leave the
// choice to the settings file, and then to the defaults.
type Settings struct {
	// ConfigFile is the settings file of the daemon.
	ConfigFile string
	// Location is the repository's URL or the directory, Name the application's name (empty: made from Location and Path).
	Location string
	Name     string
	Path     string
	// Ref is a branch, tag, full ref or commit; "semver:RANGE" selects the highest tag in a range. A
	// directory has none.
	Ref      string
	Interval time.Duration
	// Namespace is given to objects that have none.
	Namespace string
	// Prune deletes objects that are gone from the source.
	Prune bool
	// AllowUnsupported leaves out objects of kinds that fairlead does not run instead of failing.
	AllowUnsupported bool
	Auth             Auth
	// VerifyKeys are files with the public keys of who may sign; empty asks for no signature. VerifyMode is what has
	// to be signed; empty for the commit.
	VerifyKeys []string
	VerifyMode string

	// Engine is the address of the Docker engine; empty for DOCKER_HOST or the default socket.
	Engine   string
	StateDir string
	Socket   string
	// Access is what a local backend is needed for.
	Access Access
	// Listen is the address for /healthz, /readyz and /metrics; empty for none.
	Listen string
}

// Access is how much a local backend may do.
type Access int

// The kinds of access, the least first.
const (
	// Look only reads: no call to the engine changes anything.
	Look Access = iota
	// Exec also runs commands in containers.
	Exec
	// Change carries out plans.
	Change
)

// Auth says where credentials for Location are. Secrets are in files, never in arguments.
type Auth struct {
	Username string `json:"username,omitempty"`
	// PasswordFile holds a password or token.
	PasswordFile   string `json:"passwordFile,omitempty"`
	SSHKeyFile     string `json:"sshKeyFile,omitempty"`
	KnownHostsFile string `json:"knownHostsFile,omitempty"`
	CAFile         string `json:"caFile,omitempty"`
	CertFile       string `json:"certFile,omitempty"`
	KeyFile        string `json:"keyFile,omitempty"`
}

// stateDir is where state is kept unless a flag says otherwise.
func (e Env) stateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/fairlead"
	}
	home := cmp.Or(e.Getenv("XDG_STATE_HOME"), filepath.Join(e.Getenv("HOME"), ".local", "state"))
	return filepath.Join(home, "fairlead")
}

// socketName is the socket in the state directory.
const socketName = "fairlead.sock"
