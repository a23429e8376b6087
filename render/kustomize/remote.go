package kustomize

import (
	"net/url"
	"regexp"
	"strings"
)

// userinfo is what stands between the slashes of an address and its host.
var userinfo = regexp.MustCompile(`//[^/\s]*@`)

var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]{0,20}$`)

var scpLike = regexp.MustCompile(`^[A-Za-z0-9_.-]+@.+`)

// remote says what a path would make kustomize fetch, or "" when it can only be a local path. It recognises
// more than kustomize does: what looks like an address is never handed to it.
func remote(s string) string {
	low := strings.ToLower(strings.TrimSpace(s))
	for _, p := range []string{"git::", "hg::", "s3::", "gcs::", "oci::", "ext::", "fd::"} {
		if strings.HasPrefix(low, p) {
			return "a remote base (" + p + ")"
		}
	}
	if i := strings.Index(low, "://"); i >= 0 {
		if !scheme.MatchString(low[:i]) {
			return "a remote base (://)"
		}
		return "a remote base (" + low[:i+3] + ")"
	}
	if u, err := url.Parse(strings.TrimSpace(s)); err == nil && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "file" || u.Scheme == "ssh" || u.Scheme == "git") {
		return "a remote base (" + u.Scheme + ":)"
	}
	if scpLike.MatchString(low) {
		return "a remote base (ssh)"
	}
	first, _, _ := strings.Cut(low, "/")
	first, _, _ = strings.Cut(first, ":")
	switch first {
	case "github.com", "gitlab.com", "bitbucket.org", "ssh.dev.azure.com", "dev.azure.com", "codeberg.org", "gh":
		if strings.ContainsAny(low, "/:") {
			return "a remote base (" + first + ")"
		}
	}
	switch {
	case strings.Contains(low, "?ref="), strings.Contains(low, "?version="), strings.Contains(low, "&ref="), strings.Contains(low, "?submodules="), strings.Contains(low, "?timeout="):
		return "a remote base (?ref=)"
	case strings.Contains(low, "//"):
		return "a remote base (//)"
	}
	return ""
}
