package settings

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// ConfigName is the name of the application and of the source that ConfigDir is.
const ConfigName = "config"

// Declared returns the sources and applications that the settings name. A finding is about one of them,
// which is declared all the same.
func (s Settings) Declared() (applications.Declared, diag.List) {
	var out applications.Declared
	var found diag.List
	if s.ConfigDir != "" {
		app := applications.Application{DeletionPolicy: applications.Orphan}
		app.Name, app.Source, app.Path, app.Prune = ConfigName, ConfigName, ".", true
		out.Applications = append(out.Applications, app)
		out.Sources = append(out.Sources, applications.Source{Name: ConfigName, Kind: applications.Local, Dir: s.ConfigDir})
	}
	for _, a := range s.Applications {
		source, err := a.source()
		if err != nil {
			d := diag.Diagnostic{Severity: diag.Error, Code: "unusable-credentials", Message: fmt.Sprintf("application %s: %v", a.name(), err)}
			source.Findings = append(source.Findings, d)
			found = append(found, d)
		}
		app := applications.Application{
			Suspend: a.Suspend, Interval: time.Duration(a.Interval), DeletionPolicy: applications.Orphan,
			Decrypt: s.AgeKeyFile != "", Labels: a.Labels,
		}
		app.Name, app.Source, app.Path = a.name(), source.Name, a.Path
		app.Prune = a.Prune == nil || *a.Prune
		app.AllowEmpty = a.AllowEmpty
		app.MaxShare, app.MaxCount = a.PruneLimit.MaxShare, a.PruneLimit.MaxCount
		app.Approval.Kinds = a.ApproveKinds
		app.RollbackOnFailure, app.ServiceAccount = a.RollbackOnFailure, a.ServiceAccount
		app.Render.DefaultNamespace = a.Namespace
		app.Render.AllowUnsupported = a.AllowUnsupported
		out.Sources = append(out.Sources, source)
		out.Applications = append(out.Applications, app)
	}
	return out, found
}

// source returns where the application comes from. With an error the source is declared without what
// could not be read.
func (a Application) source() (applications.Source, error) {
	s := applications.Source{Name: a.name(), Interval: time.Duration(a.Interval)}
	if dir, ok := a.directory(); ok {
		s.Kind, s.Dir = applications.Local, dir
		return s, nil
	}
	s.Kind = applications.Git
	r := &s.Repository
	r.URL, r.Submodules = a.repository(), a.Submodules
	if rng, ok := strings.CutPrefix(a.Ref, "semver:"); ok {
		r.SemVer = rng
	} else {
		r.SetRevision(a.Ref)
	}
	if v := a.Verify; v != nil {
		s.Verify.Mode = cmp.Or(v.Mode, "HEAD")
		for _, file := range v.KeyFiles {
			if abs, err := filepath.Abs(file); err == nil {
				file = abs
			}
			s.Verify.KeyFiles = append(s.Verify.KeyFiles, file)
		}
	}
	auth, err := a.Auth.read()
	r.Auth = auth
	r.HideCredentials()
	return s, err
}

// directory returns the absolute path when Location is a directory that is read as it is. A bare
// repository has no files to read, and with a reference the commits of the repository are meant.
func (a Application) directory() (string, bool) {
	if isURL(a.Location) || applications.IsSCP(a.Location) {
		return "", false
	}
	dir, err := filepath.Abs(a.Location)
	if err != nil {
		return a.Location, true
	}
	return dir, a.Ref == "" && !isBare(dir)
}

// repository returns the URL of the repository.
func (a Application) repository() string {
	if isURL(a.Location) || applications.IsSCP(a.Location) {
		return a.Location
	}
	if dir, err := filepath.Abs(a.Location); err == nil {
		return "file://" + filepath.ToSlash(dir)
	}
	return a.Location
}

var urlScheme = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*://`)

func isURL(s string) bool { return urlScheme.MatchString(s) }

// isBare reports whether dir is a bare repository.
func isBare(dir string) bool {
	for _, f := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			return false
		}
	}
	return true
}

var unfit = regexp.MustCompile(`[^a-z0-9.-]+`)

// name is Name or made from the last parts of Location and Path: shop.git with overlays/prod is shop-prod.
func (a Application) name() string {
	if a.Name != "" {
		return a.Name
	}
	base := strings.TrimRight(strings.ReplaceAll(a.Location, "\\", "/"), "/")
	if !isURL(base) && !applications.IsSCP(base) {
		if abs, err := filepath.Abs(base); err == nil {
			base = abs
		}
	}
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/.git"), ".git")
	if i := strings.LastIndexAny(base, "/:"); i >= 0 {
		base = base[i+1:]
	}
	if last := path.Base(path.Clean("/" + a.Path)); last != "/" {
		base += "-" + last
	}
	base = strings.Trim(unfit.ReplaceAllString(strings.ToLower(base), "-"), "-.")
	if base == "" {
		return "application"
	}
	return base
}

// read reads the files. Where there is neither a key nor a password, SSH uses the agent of the user.
func (a Auth) read() (applications.Auth, error) {
	out := applications.Auth{Username: a.Username, Agent: a.SSHKeyFile == ""}
	var failed error
	file := func(what, name string) []byte {
		if name == "" {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil && failed == nil {
			failed = fmt.Errorf("read %s: %w", what, err)
		}
		return b
	}
	password := strings.TrimRight(string(file("the password", a.PasswordFile)), "\r\n")
	out.Identity = file("the SSH key", a.SSHKeyFile)
	out.KnownHosts = file("the known hosts", a.KnownHostsFile)
	out.CA = file("the CA certificates", a.CAFile)
	out.ClientCert = file("the client certificate", a.CertFile)
	out.ClientKey = file("the client key", a.KeyFile)
	switch {
	case len(out.Identity) > 0:
		out.IdentityPassword = password
	case password != "" && a.Username == "":
		// A token alone: hosting services take any user name with it.
		out.Username, out.Password = "git", password
	default:
		out.Password = password
	}
	return out, failed
}
