package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/git"
	"github.com/fairlead-dev/fairlead/sources/local"
)

// openSource makes the source that a declaration describes.
func (s *System) openSource(d applications.Source) (sources.Source, error) {
	if d.Kind == applications.Local {
		return local.New(local.Options{Name: d.Name, Dir: d.Dir, Notice: func(text string) {
			s.log.Warn().Str(telemetry.KeySource, d.Name).Msg(text)
			s.keep(api.Event{Type: api.Warning, Reason: "WatchDegraded", Source: d.Name, Message: text})
		}})
	}
	if d.Findings.HasErrors() {
		return nil, errors.New(strings.TrimSpace(d.Findings.String()))
	}
	return s.openGit(d)
}

// errNoReferences: the source is a directory.
var errNoReferences = errors.New("a directory has no references")

// openSourceAt makes the same source at another branch, tag, reference or commit.
func (s *System) openSourceAt(d applications.Source, ref string) (sources.Source, error) {
	if d.Kind == applications.Local {
		return nil, errNoReferences
	}
	r := &d.Repository
	r.Branch, r.Tag, r.SemVer, r.RefName, r.Commit, r.Revision = "", "", "", "", "", ref
	return s.openGit(d)
}

func (s *System) openGit(d applications.Source) (sources.Source, error) {
	r := d.Repository
	o := git.Options{
		Name: d.Name, URL: r.URL,
		Branch: r.Branch, Tag: r.Tag, SemVer: r.SemVer, RefName: r.RefName, Commit: r.Commit, Revision: r.Revision,
		Auth: git.Auth{
			Username: r.Auth.Username, Password: r.Auth.Password, BearerToken: r.Auth.BearerToken,
			Identity: r.Auth.Identity, IdentityPassword: r.Auth.IdentityPassword, KnownHosts: r.Auth.KnownHosts,
			CA: r.Auth.CA, ClientCert: r.Auth.ClientCert, ClientKey: r.Auth.ClientKey, Agent: r.Auth.Agent,
		},
		Submodules: r.Submodules, Timeout: r.Timeout, Sparse: r.Sparse,
	}
	if r.Ignore != nil {
		o.Ignore = *r.Ignore
	}
	if d.Verify.Mode != "" {
		o.Verify = &git.Verify{
			Mode: git.Mode(d.Verify.Mode), From: d.Verify.From(),
			Keys: func() (map[string][]byte, error) { return s.verificationKeys(d.Verify) },
		}
	}
	// The source's name and what is followed are part of the folder's name: two sources never share a clone.
	sum := sha256.Sum256([]byte(d.Name + "\x00" + r.URL + "\x00" + reference(d)))
	o.Dir = filepath.Join(s.settings.SourceDir, hex.EncodeToString(sum[:8]))
	return git.New(o)
}

// verificationKeys reads the public keys of who may sign, as they are now.
func (s *System) verificationKeys(v applications.Verification) (map[string][]byte, error) {
	if v.SecretRef.Name != "" {
		data, ok := s.lookup(v.SecretRef)
		if !ok {
			return nil, fmt.Errorf("there is no %s with the keys of who may sign: declare it beside the source, or put it into configDir of the settings", v.SecretRef)
		}
		return data, nil
	}
	files := map[string][]byte{}
	for _, name := range v.KeyFiles {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the keys of who may sign: %w", err)
		}
		files[name] = content
	}
	return files, nil
}

// historyNote says what is worth saying of how a revision relates to the one before.
func historyNote(h sources.History) string {
	switch h {
	case sources.Rewound:
		return "the branch was set back to an earlier commit"
	case sources.Rewritten:
		return "the history was rewritten (force-push)"
	case sources.TagMoved:
		return "the tag was moved to another commit"
	case sources.Unrelated:
		return "the history was replaced by an unrelated one"
	case sources.First, sources.FastForward, sources.Switched:
	}
	return ""
}
