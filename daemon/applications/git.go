package applications

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

var scpURL = regexp.MustCompile(`^[A-Za-z0-9._~-]+@[A-Za-z0-9._-]+:[^/].*$|^[A-Za-z0-9._~-]+@[A-Za-z0-9._-]+:/[^/].*$`)

// IsSCP reports whether s has the form user@host:path.
func IsSCP(s string) bool { return scpURL.MatchString(s) }

// checkURL reports what cannot be the URL of a repository.
func checkURL(r *reporter, at, s string) {
	if s == "" || IsSCP(s) {
		return // missing is reported by the table
	}
	u, err := url.Parse(s)
	if err != nil {
		r.error("invalid-value", at, "is not a URL", "write https://host/path, ssh://user@host/path or file:///path")
		return
	}
	switch u.Scheme {
	case "https", "http", "ssh":
		if u.Host == "" {
			r.error("invalid-value", at, fmt.Sprintf("%q names no host", u.Redacted()), "")
		}
	case "file":
		if u.Path == "" {
			r.error("invalid-value", at, fmt.Sprintf("%q names no directory", s), "write file:///path")
		}
	case "oci":
		r.error("invalid-value", at, "OCI artifacts are not read", "name a Git repository")
	default:
		r.error("invalid-value", at, fmt.Sprintf("%q is not the URL of a Git repository that can be read", u.Redacted()),
			"write https://host/path, ssh://user@host/path or file:///path")
	}
	if _, has := u.User.Password(); has {
		r.warn("secret-in-url", at, "holds a password, which everybody who reads the repository can read", "move it to a Secret")
	}
}

// ShownURL returns s without the credentials in it.
func ShownURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil || IsSCP(s) {
		return s
	}
	if _, has := u.User.Password(); has && u.Scheme == "ssh" {
		u.User = url.User(u.User.Username())
	} else if u.Scheme != "ssh" {
		u.User = nil
	}
	return u.String()
}

// HideCredentials moves a user name and password from the URL to Auth, unless Auth has its own, so that
// the URL can be shown.
func (g *Repository) HideCredentials() {
	u, err := url.Parse(g.URL)
	if err != nil || u.User == nil || IsSCP(g.URL) {
		return
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		if g.Auth.Username == "" && g.Auth.BearerToken == "" {
			g.Auth.Username = u.User.Username()
			g.Auth.Password, _ = u.User.Password()
		}
	}
	g.URL = ShownURL(g.URL)
}

var fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// checkReference reports references that cannot be.
func checkReference(r *reporter, at string, g *Repository) {
	if g.Commit != "" && !fullCommit.MatchString(g.Commit) {
		r.error("invalid-value", at+".commit", fmt.Sprintf("%q is not a full commit id", g.Commit), "write all 40 characters, in lower case")
	}
	if g.SemVer != "" {
		if _, err := semver.NewConstraint(g.SemVer); err != nil {
			r.error("invalid-value", at+".semver", fmt.Sprintf("%q is not a range of versions: %v", g.SemVer, err), "write it like >=1.2.0 <2.0.0, or ~1.4")
		}
	}
	if g.RefName != "" && !strings.HasPrefix(g.RefName, "refs/") && g.RefName != "HEAD" {
		r.error("invalid-value", at+".name", fmt.Sprintf("%q is not a full reference", g.RefName), "write it like refs/heads/main or refs/pull/420/head")
	}
	for _, f := range []struct{ name, value string }{{"branch", g.Branch}, {"tag", g.Tag}, {"name", g.RefName}} {
		if badRef.MatchString(f.value) || strings.HasSuffix(f.value, ".lock") || strings.HasSuffix(f.value, "/") {
			r.error("invalid-value", at+"."+f.name, fmt.Sprintf("%q cannot be the name of a reference", f.value), "")
		}
	}
}

var badRef = regexp.MustCompile(`[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^-|^/`)

// referenced reports whether a reference is set.
func (g Repository) referenced() bool {
	return g.Branch != "" || g.Tag != "" || g.SemVer != "" || g.RefName != "" || g.Commit != "" || g.Revision != ""
}

// SetRevision sets the reference that a single word means, as Argo CD's targetRevision or --ref do: a
// commit id, a full reference, a range of versions, or else a branch or a tag. Empty is HEAD.
func (g *Repository) SetRevision(s string) {
	switch {
	case s == "" || s == "HEAD":
		g.Revision = "HEAD"
	case fullCommit.MatchString(s):
		g.Commit = s
	case strings.HasPrefix(s, "refs/"):
		g.RefName = s
	case isRange(s):
		g.SemVer = s
	default:
		g.Revision = s
	}
}

// isRange reports whether s is a range of versions and neither a version nor a name.
func isRange(s string) bool {
	if _, err := semver.NewVersion(s); err == nil {
		return false
	}
	_, err := semver.NewConstraint(s)
	return err == nil && strings.ContainsAny(s, "0123456789*") && !slices.Contains([]string{"x", "X", "v", "V"}, s)
}

// fluxAuth reads the keys of a Secret as Flux has them.
func fluxAuth(r *reporter, repository string, ref Ref, data map[string][]byte) Auth {
	const at = "spec.secretRef.name"
	var a Auth
	ssh := strings.HasPrefix(repository, "ssh://") || IsSCP(repository)
	for _, key := range sortedKeys(data) {
		value := data[key]
		switch key {
		case "username":
			a.Username = string(value)
		case "password":
			a.Password = string(value)
			if ssh {
				a.Password, a.IdentityPassword = "", string(value)
			}
		case "bearerToken":
			a.BearerToken = string(value)
		case "identity":
			a.Identity = value
		case "identity.pub":
			// It follows from identity.
		case "known_hosts":
			a.KnownHosts = value
		case "ca.crt":
			a.CA = value
		case "caFile":
			if data["ca.crt"] == nil {
				a.CA = value
			}
		case "tls.crt":
			a.ClientCert = value
		case "certFile":
			if data["tls.crt"] == nil {
				a.ClientCert = value
			}
		case "tls.key":
			a.ClientKey = value
		case "keyFile":
			if data["tls.key"] == nil {
				a.ClientKey = value
			}
		default:
			if strings.HasPrefix(key, "githubApp") {
				r.error("unsupported-field", at, fmt.Sprintf("%s has the key %s, and GitHub Apps are not supported", ref, key), "use a token or an SSH key")
				continue
			}
			r.warn("not-honoured", at, fmt.Sprintf("%s has the key %s, which is not read", ref, key), "")
		}
	}
	return checkAuth(r, at, ref.String(), ssh, a)
}

// checkAuth reports credentials that cannot work.
func checkAuth(r *reporter, at, what string, ssh bool, a Auth) Auth {
	switch {
	case ssh && len(a.Identity) == 0 && !a.Agent:
		r.error("missing-field", at, what+" has no key identity, which SSH needs", "add the private key")
	case ssh && len(a.KnownHosts) == 0 && !a.Agent:
		r.error("missing-field", at, what+" has no key known_hosts, which SSH needs", "add the output of ssh-keyscan, after comparing it")
	case !ssh && (a.Username == "") != (a.Password == ""):
		r.error("missing-field", at, what+" has only one of username and password", "add the other")
	}
	if (len(a.ClientCert) == 0) != (len(a.ClientKey) == 0) {
		r.error("missing-field", at, what+" has only one of tls.crt and tls.key", "add the other")
	}
	if a.BearerToken != "" && a.Username != "" {
		r.warn("invalid-value", at, what+" has a bearerToken and a username; the bearerToken is used", "remove one")
		a.Username, a.Password = "", ""
	}
	return a
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
