package daemon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/images"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/git"
	gitsignature "github.com/fairlead-dev/fairlead/sources/git/signature"
	"github.com/fairlead-dev/fairlead/sources/registry"
)

// updating is what image updates keep: clients of registries, and the clones that automations change.
type updating struct {
	mu      sync.Mutex
	clients map[string]*registry.Client
	clones  map[object.Ref]merging
}

// maxManifest is the size of the largest file that marks are looked for in, in bytes.
const maxManifest = 1 << 20

// openImages makes what keeps images at the newest tags.
func (s *System) openImages() {
	s.updating.clients, s.updating.clones = map[string]*registry.Client{}, map[object.Ref]merging{}
	s.images = images.New(images.Options{
		Tags: func(ctx context.Context, r images.Repository) (tags []string, err error) {
			err = s.askRegistry(r, func(c *registry.Client, auths []registry.Auth) error {
				tags, err = c.Tags(ctx, r.Image, auths)
				return err
			})
			return tags, err
		},
		Digest: func(ctx context.Context, r images.Repository, tag string) (digest string, err error) {
			err = s.askRegistry(r, func(c *registry.Client, auths []registry.Auth) error {
				digest, err = c.Digest(ctx, r.Image, tag, auths)
				return err
			})
			return digest, err
		},
		Until: func(r images.Repository) (at time.Time) {
			_ = s.askRegistry(r, func(c *registry.Client, _ []registry.Auth) error { at = c.Until(r.Image); return nil }) // what is wrong is found when it is asked
			return at
		},
		Update: s.updateImages,
		Event: func(e images.Event) {
			kept := api.Event{Type: api.Normal, Reason: e.Reason, Message: e.Message, Source: e.Source, Ref: e.Ref}
			line := s.log.Info()
			if e.Warning {
				kept.Type, line = api.Warning, s.log.Warn()
			}
			s.keep(kept)
			line.Str("ref", e.Ref.String()).Str("reason", e.Reason).Msg(e.Message)
		},
	})
	s.closers = append(s.closers, func() error {
		s.updating.mu.Lock()
		defer s.updating.mu.Unlock()
		var errs []error
		for _, c := range s.updating.clones {
			errs = append(errs, c.source.Close())
		}
		clear(s.updating.clones)
		return errors.Join(errs...)
	})
}

// configureImages brings what is declared about images to the manager. An automation may change only a source that its
// declarer declares, or comes from: else whoever can push to one repository could write to another. The caller holds s.mu.
func (s *System) configureImages() diag.List {
	if s.images == nil {
		return nil
	}
	var found diag.List
	var set images.Set
	for by, d := range s.declared {
		own := ""
		if e := s.applications[by]; e != nil {
			own = e.decl.Source
		}
		declares := func(source string) bool {
			for _, src := range d.Sources {
				if src.Name == source {
					return true
				}
			}
			return source == own || (by == bySettings || by == settings.ConfigName) && s.sources[source] != nil
		}
		mine := images.Set{Repositories: d.Images.Repositories, Policies: d.Images.Policies}
		for _, a := range d.Images.Automations {
			switch {
			case !declares(a.Source):
				found = append(found, diag.Diagnostic{
					Severity: diag.Error, Code: "unknown-reference", Ref: a.Ref, Origin: a.Origin, Field: "spec.sourceRef",
					Message: fmt.Sprintf("there is no GitRepository %s that is declared here, or that this comes from", a.Source),
					Hint:    "declare both in one place, or the automation in configDir of the settings",
				})
			default:
				a.Origin = object.Origin{} // where it stands changes nothing in what it does
				mine.Automations = append(mine.Automations, a)
			}
		}
		set.Add(mine)
	}
	s.images.Configure(set)
	return found
}

// askRegistry calls ask with a client and the credentials for an image.
func (s *System) askRegistry(r images.Repository, ask func(*registry.Client, []registry.Auth) error) error {
	var secrets []plan.Config
	if r.Secret.Name != "" {
		c, ok := s.desiredConfig(r.Secret)
		if !ok {
			return fmt.Errorf("%s: there is no %s with the credentials: declare it beside the ImageRepository, or put it into configDir of the settings", r.Image, r.Secret)
		}
		secrets = append(secrets, c)
	}
	found, err := executor.Credentials(r.Image, secrets, s.dockerConfig())
	if err != nil {
		return fmt.Errorf("%s: %w", r.Image, err)
	}
	var auths []registry.Auth
	for _, a := range found {
		if a != nil {
			auths = append(auths, registry.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken})
		}
	}
	o := registry.Options{Insecure: r.Insecure, UserAgent: "fairlead/" + s.version}
	if r.CertSecret.Name != "" {
		c, ok := s.desiredConfig(r.CertSecret)
		if !ok {
			return fmt.Errorf("%s: there is no %s with the certificates", r.Image, r.CertSecret)
		}
		o.CA, o.ClientCert, o.ClientKey = c.Data["ca.crt"], c.Data["tls.crt"], c.Data["tls.key"]
	}
	client, err := s.registryClient(o)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Image, err)
	}
	return ask(client, auths)
}

// registryClient returns the client with these options, so that what registries want to be left alone for counts for all.
func (s *System) registryClient(o registry.Options) (*registry.Client, error) {
	sum := sha256.Sum256(bytes.Join([][]byte{o.CA, o.ClientCert, o.ClientKey, fmt.Appendf(nil, "%t", o.Insecure)}, []byte{0}))
	key := hex.EncodeToString(sum[:])
	s.updating.mu.Lock()
	defer s.updating.mu.Unlock()
	if c := s.updating.clients[key]; c != nil {
		return c, nil
	}
	c, err := registry.New(o)
	if err == nil {
		s.updating.clients[key] = c
	}
	return c, err
}

// updateImages makes the marked fields of an automation's source say what policies have chosen, in a commit.
func (s *System) updateImages(ctx context.Context, a images.Automation, lookup func(string) (images.Image, bool)) (images.Update, error) {
	source, decl, err := s.cloneOf(a)
	if err != nil {
		return images.Update{}, err
	}
	for tries := 0; ; tries++ {
		u, err := s.updateOnce(ctx, a, decl, source, lookup)
		if !errors.Is(err, git.ErrMoved) || tries == 3 {
			return u, err
		}
	}
}

// cloneOf returns the automation's own clone of its source.
func (s *System) cloneOf(a images.Automation) (*git.Source, applications.Source, error) {
	s.mu.Lock()
	e := s.sources[a.Source]
	s.mu.Unlock()
	if e == nil {
		return nil, applications.Source{}, fmt.Errorf("there is no source %s", a.Source)
	}
	decl := e.decl
	if decl.Kind != applications.Git {
		return nil, decl, fmt.Errorf("source %s is a directory: nothing can be pushed there", a.Source)
	}
	if decl.Findings.HasErrors() {
		return nil, decl, fmt.Errorf("source %s is not used: %s", a.Source, decl.Findings)
	}
	r := &decl.Repository
	if a.Branch != "" || a.Tag != "" || a.SemVer != "" || a.RefName != "" || a.Commit != "" {
		r.Branch, r.Tag, r.SemVer, r.RefName, r.Commit, r.Revision = a.Branch, a.Tag, a.SemVer, a.RefName, a.Commit, ""
	}
	r.Submodules = false
	decl.Name = a.Source + " (" + a.Ref.String() + ")" // a clone of its own
	s.updating.mu.Lock()
	defer s.updating.mu.Unlock()
	have, ok := s.updating.clones[a.Ref]
	if ok && sameSource(have.decl, decl) {
		return have.source, decl, nil
	}
	if ok {
		_ = have.source.Close() // everything was pushed
	}
	opened, err := s.openGit(decl)
	if err != nil {
		delete(s.updating.clones, a.Ref)
		return nil, decl, err
	}
	clone := opened.(*git.Source)
	s.updating.clones[a.Ref] = merging{decl: decl, source: clone}
	return clone, decl, nil
}

func (s *System) updateOnce(ctx context.Context, a images.Automation, decl applications.Source, source *git.Source, lookup func(string) (images.Image, bool)) (u images.Update, err error) {
	at, err := source.Fetch(ctx, "")
	if err != nil {
		return u, err
	}
	branch, isBranch := strings.CutPrefix(at.Ref, "refs/heads/")
	if u.Branch = cmp.Or(a.Push, branch); !isBranch && a.Push == "" {
		return u, fmt.Errorf("%s is no branch: name one to push to with spec.git.push.branch", cmp.Or(at.Ref, "a commit"))
	}
	files := map[string][]byte{}
	err = fs.WalkDir(at.Files, path.Clean(cmp.Or(a.Path, ".")), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := path.Ext(name); !d.Type().IsRegular() || ext != ".yaml" && ext != ".yml" {
			return ctx.Err()
		}
		if info, err := d.Info(); err != nil || info.Size() > maxManifest {
			return err
		}
		content, err := fs.ReadFile(at.Files, name)
		if err != nil {
			return err
		}
		edited, changes, problems := images.Edit(name, content, lookup)
		u.Problems = append(u.Problems, problems...)
		if len(changes) > 0 {
			files[name], u.Changes = edited, append(u.Changes, changes...)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return u, fmt.Errorf("there is no directory %s at %s", a.Path, at.Revision.Short())
	}
	if err != nil || len(files) == 0 {
		return u, err
	}
	c := git.Commit{Branch: u.Branch, Parent: at.Revision, Files: files, Name: a.Name, Email: a.Email, When: time.Now()}
	if c.Message, err = a.CommitMessage(u.Changes); err != nil {
		return u, fmt.Errorf("spec.git.commit.messageTemplate: %w", err)
	}
	if a.SigningKey.Name != "" {
		secret, ok := s.desiredConfig(a.SigningKey)
		if !ok {
			return u, fmt.Errorf("there is no %s with the key to sign with", a.SigningKey)
		}
		if c.Sign, err = gitsignature.OpenPGPSigner(secret.Data["git.asc"], secret.Data["passphrase"]); err != nil {
			return u, fmt.Errorf("git.asc of %s: %w", a.SigningKey, err)
		}
	}
	id, err := source.Push(ctx, c, isBranch && u.Branch == branch)
	if err != nil {
		return u, err
	}
	u.Revision = string(id)
	if u.Branch != branch {
		if a.PullRequest {
			u.PullRequest, err = s.proposeImages(ctx, a, decl, branch, u, c.Message)
		}
		return u, err
	}
	s.mu.Lock()
	if e := s.sources[a.Source]; e != nil && e.worker != nil {
		e.worker.Poke() // what was pushed is applied at once
	}
	s.mu.Unlock()
	return u, nil
}

// Images implements api.Backend.
func (s *System) Images(context.Context) (api.Images, error) {
	out := api.Images{Policies: []api.ImagePolicy{}, Automations: []api.ImageAutomation{}}
	if s.images == nil {
		return out, nil
	}
	st := s.images.Status()
	repositories := map[object.Ref]images.RepositoryStatus{}
	for _, r := range st.Repositories {
		repositories[r.Ref] = r
	}
	for _, p := range st.Policies {
		r, ok := repositories[p.Repository]
		x := api.ImagePolicy{
			Namespace: p.Ref.Namespace, Name: p.Ref.Name, Image: r.Image, Policy: p.Policy.String(), Since: p.Since, Tags: r.Tags, Scanned: r.Scanned, NextScan: r.Next,
			Suspended: p.Suspend || r.Suspend, Message: cmp.Or(r.Error, p.Error),
		}
		if p.Latest.Tag != "" {
			x.Latest = p.Latest.String()
		}
		if p.Previous.Tag != "" {
			x.Previous = p.Previous.String()
		}
		if !ok {
			x.Message = fmt.Sprintf("there is no %s, or it has errors", p.Repository)
		}
		out.Policies = append(out.Policies, x)
	}
	for _, a := range st.Automations {
		x := api.ImageAutomation{
			Namespace: a.Ref.Namespace, Name: a.Ref.Name, Source: a.Source, Ran: a.Ran, NextRun: a.Next, Pushed: a.Pushed, Revision: a.Last.Revision, Branch: a.Last.Branch,
			PullRequest: a.Last.PullRequest, Suspended: a.Suspend, Message: a.Error,
		}
		for _, c := range a.Pending {
			x.Pending = append(x.Pending, api.ImageChange{File: c.File, Line: c.Line, Old: c.Old, New: c.New})
		}
		out.Automations = append(out.Automations, x)
	}
	return out, nil
}

// proposeImages opens a pull request with an automation's changes, or brings the one that is open up to date.
func (s *System) proposeImages(ctx context.Context, a images.Automation, decl applications.Source, base string, u images.Update, message string) (string, error) {
	f, repo, ok := s.Forge(decl.Repository.URL)
	if !ok {
		return "", errors.New("a pull request is asked for, and no forge of the settings has the repository: see forges")
	}
	title, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	var body strings.Builder
	fmt.Fprintf(&body, "From %s.\n\n| File | Old | New |\n| --- | --- | --- |\n", a.Ref)
	for i, c := range u.Changes {
		if i == 100 {
			fmt.Fprintf(&body, "\nand %d more\n", len(u.Changes)-i)
			break
		}
		fmt.Fprintf(&body, "| `%s:%d` | `%s` | `%s` |\n", c.File, c.Line, strings.ReplaceAll(c.Old, "`", "'"), c.New)
	}
	return forge.Propose(ctx, f, repo, forge.Proposal{Head: a.Push, Base: base, Title: title, Body: body.String()})
}
