package settings

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/webhook"
)

// Hooks say where Git hosting services deliver what happened. Its presence in the file turns them on.
type Hooks struct {
	// Listen is the address, for example 0.0.0.0:9443. Required.
	Listen string `yaml:"listen"`
	// TLS makes it HTTPS.
	TLS HooksTLS `yaml:"tls"`
	// MaxBody is the size of the largest delivery, like 2MiB, which is the default.
	MaxBody string `yaml:"maxBody"`
	// Endpoints are the paths at which deliveries are taken. At least one.
	Endpoints []Endpoint `yaml:"endpoints"`
	// Rewrites say where repositories are cloned from when deliveries name another place.
	Rewrites []Rewrite `yaml:"rewrites"`
}

// HooksTLS are PEM files, read again when they change.
type HooksTLS struct {
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// Endpoint is where one forge delivers.
type Endpoint struct {
	// Path of the URL. Default /hooks/ and the forge.
	Path string `yaml:"path"`
	// Forge is github, gitlab, gitea, forgejo, bitbucket, bitbucket-server, azure-devops or generic. It or Registry is required.
	Forge string `yaml:"forge"`
	// Registry is docker-hub, ghcr, harbor, quay or distribution.
	Registry string `yaml:"registry"`
	// SecretFile holds the secret that is set in the forge; several lines are several secrets, of which one is enough.
	SecretFile string `yaml:"secretFile"`
	// SecretEnv is the name of an environment variable with the secret, in place of SecretFile.
	SecretEnv string `yaml:"secretEnv"`
	// Username is that of basic authentication, for azure-devops.
	Username string `yaml:"username"`
}

// Rewrite says that what is below From in deliveries is cloned from below To. Both are hosts or URLs.
type Rewrite struct {
	From string `yaml:"from"`
	To   string `yaml:"to"`
}

// Forge is a Git hosting service whose API is used, for pull requests.
type Forge struct {
	// Kind is github, gitlab, gitea, forgejo, bitbucket, bitbucket-server or azure-devops. Required.
	Kind string `yaml:"kind"`
	// URL is where it is. Default: the public service.
	URL string `yaml:"url"`
	// TokenFile holds a token or password, and is read for every request; TokenEnv names an environment variable instead.
	TokenFile string `yaml:"tokenFile"`
	TokenEnv  string `yaml:"tokenEnv"`
	// Username makes it basic authentication.
	Username string `yaml:"username"`
	// App is a GitHub App, in place of a token.
	App *ForgeApp `yaml:"app"`
	// CAFile holds certificates in PEM that are trusted besides the system's.
	CAFile string `yaml:"caFile"`
	// Account is the own account, for tokens that may not ask whose they are.
	Account string `yaml:"account"`
	// Approvers are accounts, as the forge names them, that may approve on a pull request what a plan waits for. Default nobody.
	Approvers []string `yaml:"approvers"`
	// ExcludeAuthor has nobody approve their own pull request.
	ExcludeAuthor bool `yaml:"excludeAuthor"`
}

// ForgeApp is a GitHub App.
type ForgeApp struct {
	ID       int64  `yaml:"id"`
	ClientID string `yaml:"clientID"`
	// Installation is the number of the installation. Default: that of each repository.
	Installation int64  `yaml:"installation"`
	KeyFile      string `yaml:"keyFile"`
}

// bodySize returns MaxBody in bytes.
func (h Hooks) bodySize() (int64, error) {
	n, err := units.RAMInBytes(cmp.Or(h.MaxBody, "2MiB"))
	if err != nil || n < 64<<10 || n > 64<<20 {
		return 0, fmt.Errorf("%q is no size from 64KiB to 64MiB: write it like 2MiB", h.MaxBody)
	}
	return n, nil
}

// BodySize returns MaxBody in bytes.
func (h Hooks) BodySize() int64 {
	n, _ := h.bodySize() // it was checked
	return n
}

func (e Endpoint) path() string { return cmp.Or(e.Path, "/hooks/"+e.sender()) }

// sender is who delivers.
func (e Endpoint) sender() string { return cmp.Or(e.Forge, e.Registry) }

// checkSender says what is wrong with who delivers; empty when nothing is.
func (e Endpoint) checkSender() (key, problem string) {
	switch {
	case (e.Forge == "") == (e.Registry == ""):
		return ".forge", "name one forge or one registry"
	case e.Registry != "" && !slices.Contains(webhook.Registries, forge.Kind(e.Registry)):
		return ".registry", fmt.Sprintf("%q is no registry whose deliveries are known: name one of %s", e.Registry, names(webhook.Registries))
	case e.Forge != "":
		if _, err := forge.ParseKind(e.Forge); err != nil {
			return ".forge", err.Error()
		}
	}
	return "", ""
}

func names(kinds []forge.Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}

func (h *Hooks) check(add func(key, format string, args ...any)) {
	if h == nil {
		return
	}
	if _, _, err := net.SplitHostPort(h.Listen); err != nil {
		add("hooks.listen", "%q is not an address: write it like 0.0.0.0:9443", h.Listen)
	}
	if (h.TLS.CertFile == "") != (h.TLS.KeyFile == "") {
		add("hooks.tls", "certFile and keyFile belong together")
	}
	if _, err := h.bodySize(); err != nil {
		add("hooks.maxBody", "%v", err)
	}
	if len(h.Endpoints) == 0 {
		add("hooks.endpoints", "is empty: name at least one forge")
	}
	paths := map[string]bool{}
	for i, e := range h.Endpoints {
		at := fmt.Sprintf("hooks.endpoints[%d]", i)
		if key, problem := e.checkSender(); problem != "" {
			add(at+key, "%s", problem)
			continue
		}
		if p := e.path(); !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?# ") {
			add(at+".path", "%q is not the path of a URL: write it like /hooks/github", p)
		} else if paths[p] {
			add(at+".path", "%q is taken by another endpoint: give one of them another", p)
		}
		paths[e.path()] = true
		if (e.SecretFile == "") == (e.SecretEnv == "") {
			add(at, "set secretFile or secretEnv: without a secret anybody could send deliveries")
		}
		if (e.Username == "") == (e.Forge == string(forge.AzureDevOps)) {
			add(at+".username", "belongs to azure-devops, and only to that")
		}
	}
	for i, r := range h.Rewrites {
		if !forge.Rewrite(r).Valid() {
			add(fmt.Sprintf("hooks.rewrites[%d]", i), "from and to must each be a host or a URL")
		}
	}
}

func (f Forge) check(at string, add func(key, format string, args ...any)) {
	kind, err := forge.ParseKind(f.Kind)
	switch {
	case err != nil:
		add(at+".kind", "%v", err)
		return
	case kind == forge.Generic:
		add(at+".kind", "generic has no API: it is for hooks.endpoints")
		return
	}
	set := 0
	for _, is := range []bool{f.TokenFile != "", f.TokenEnv != "", f.App != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		add(at, "set one of tokenFile, tokenEnv and app")
	}
	for i, name := range f.Approvers {
		if strings.TrimSpace(name) != name || name == "" {
			add(fmt.Sprintf("%s.approvers[%d]", at, i), "%q is no account", name)
		}
	}
	if f.App != nil && (f.App.KeyFile == "" || f.App.ID == 0 && f.App.ClientID == "") {
		add(at+".app", "needs an id or clientID, and a keyFile")
	}
}

// Proved returns the endpoints by their paths, with their secrets.
func (h Hooks) Proved() (map[string]webhook.Endpoint, error) {
	out := map[string]webhook.Endpoint{}
	var errs []error
	for i, e := range h.Endpoints {
		text, err := fileOrEnv(e.SecretFile, e.SecretEnv)
		if err != nil {
			errs = append(errs, fmt.Errorf("hooks.endpoints[%d]: read the secret: %w", i, err))
			continue
		}
		p := webhook.Endpoint{Forge: forge.Kind(e.sender()), Username: e.Username}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				p.Secrets = append(p.Secrets, line)
			}
		}
		if err := p.Check(); err != nil {
			errs = append(errs, fmt.Errorf("hooks.endpoints[%d]: %w", i, err))
		}
		out[e.path()] = p
	}
	return out, errors.Join(errs...)
}

// Rules returns Rewrites.
func (h *Hooks) Rules() []forge.Rewrite {
	if h == nil {
		return nil
	}
	var out []forge.Rewrite
	for _, r := range h.Rewrites {
		out = append(out, forge.Rewrite(r))
	}
	return out
}

// OpenForges returns the forges whose APIs are used, and the settings of each. agent names this program to them. Nothing is
// asked yet.
func (s Settings) OpenForges(agent string) (*forge.Set, map[forge.Forge]Forge, error) {
	set, of := forge.NewSet(s.Hooks.Rules()), map[forge.Forge]Forge{}
	var errs []error
	for i, f := range s.Forges {
		c := forge.Config{Kind: forge.Kind(f.Kind), URL: f.URL, Username: f.Username, Account: f.Account, UserAgent: agent}
		var err error
		if f.CAFile != "" {
			c.CA, err = os.ReadFile(f.CAFile)
		}
		if f.App != nil && err == nil {
			c.App = &forge.App{ID: f.App.ID, ClientID: f.App.ClientID, Installation: f.App.Installation}
			c.App.Key, err = os.ReadFile(f.App.KeyFile)
		} else if err == nil {
			c.Token = func() (string, error) {
				text, err := fileOrEnv(f.TokenFile, f.TokenEnv)
				return strings.TrimSpace(text), err
			}
			if token, e := c.Token(); e != nil {
				err = e
			} else if token == "" {
				err = errors.New("the token is empty")
			}
		}
		var opened forge.Forge
		if err == nil {
			opened, err = forge.New(c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("forges[%d]: %w", i, err))
			continue
		}
		set.Add(f.URL, opened)
		of[opened] = f
	}
	return set, of, errors.Join(errs...)
}

// fileOrEnv returns what is in a file, or else in an environment variable.
func fileOrEnv(file, env string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		return string(b), err
	}
	text, ok := os.LookupEnv(env)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set", env)
	}
	return text, nil
}
