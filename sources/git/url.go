package git

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// location is the place of a repository, taken apart.
type location struct {
	scheme         string // https, http, ssh or file
	user, password string
	host           string // with the port, if one is written
	path           string // absolute for file; relative to the home directory for scp forms without a slash
	query          string
}

// scpForm is user@host:path or host:path, without a scheme.
var scpForm = regexp.MustCompile(`^(?:([A-Za-z0-9._~+-]+)@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([^:].*)$`)

// parseLocation understands the forms of URLs that git clone does. Its errors show no credentials.
func parseLocation(s string) (location, error) {
	switch {
	case s == "":
		return location{}, fmt.Errorf("no URL is set: %s", urlForms)
	case strings.ContainsAny(s, "\x00\n\r"):
		return location{}, fmt.Errorf("the URL holds control characters: %s", urlForms)
	case strings.Contains(s, "://"):
		return parseURL(s)
	case strings.HasPrefix(s, "/"), strings.HasPrefix(s, "./"), strings.HasPrefix(s, "../"), s == ".", s == "..":
		return fileLocation(s)
	}
	if m := scpForm.FindStringSubmatch(s); m != nil && !strings.HasPrefix(m[2], "-") {
		return location{scheme: "ssh", user: m[1], host: m[2], path: m[3]}, nil
	}
	if strings.Contains(s, ":") {
		return location{}, fmt.Errorf("%q is not the URL of a Git repository: %s", Redact(s), urlForms)
	}
	return fileLocation(s)
}

const urlForms = "write https://host/path, ssh://user@host/path, user@host:path or file:///path"

func fileLocation(p string) (location, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return location{}, fmt.Errorf("path of the repository: %w", err)
	}
	return location{scheme: "file", path: abs}, nil
}

func parseURL(s string) (location, error) {
	u, err := url.Parse(s)
	if err != nil {
		return location{}, fmt.Errorf("%q is not a URL: %s", hide(s), urlForms)
	}
	l := location{scheme: strings.ToLower(u.Scheme), host: u.Host, path: u.Path, query: u.RawQuery}
	if u.User != nil {
		l.user = u.User.Username()
		l.password, _ = u.User.Password()
	}
	switch l.scheme {
	case "git+ssh", "ssh+git":
		l.scheme = "ssh"
	case "https", "http", "ssh":
	case "file":
		if u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/") {
			return location{}, fmt.Errorf("%q names no path on this machine: write file:///path, with three slashes", hide(s))
		}
		return location{scheme: "file", path: path.Clean(u.Path)}, nil
	default:
		return location{}, fmt.Errorf("%q has the scheme %q, which is not supported: %s", hide(s), u.Scheme, urlForms)
	}
	if u.Hostname() == "" {
		return location{}, fmt.Errorf("%q names no host: %s", hide(s), urlForms)
	}
	if l.scheme == "ssh" && strings.HasPrefix(l.path, "/~") {
		l.path = l.path[1:]
	}
	if strings.Trim(l.path, "/") == "" {
		return location{}, fmt.Errorf("%q names no repository on the host: %s", hide(s), urlForms)
	}
	return l, nil
}

// hide returns a URL that may be malformed without anything that could be meant as credentials: all up to the last @.
func hide(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		s = scheme + "://***" + rest[at:]
	}
	return Redact(s)
}

// shown is the URL without credentials, and without a query, which may hold some.
func (l location) shown() string {
	switch l.scheme {
	case "file":
		return l.path
	case "ssh":
		user := ""
		if l.user != "" {
			user = l.user + "@"
		}
		if !strings.HasPrefix(l.path, "/") {
			return user + l.host + ":" + l.path
		}
		return "ssh://" + user + l.host + l.path
	}
	return (&url.URL{Scheme: l.scheme, Host: l.host, Path: l.path}).String()
}

// hostPort is the address to connect to.
func (l location) hostPort(port string) string {
	if h, p, err := net.SplitHostPort(l.host); err == nil {
		if p == "" {
			p = port
		}
		return net.JoinHostPort(h, p)
	}
	return net.JoinHostPort(strings.Trim(l.host, "[]"), port)
}

// hostname is the host without the port, in brackets if it is an IPv6 address.
func (l location) hostname() string {
	if h, _, err := net.SplitHostPort(l.host); err == nil {
		if strings.Contains(h, ":") {
			return "[" + h + "]"
		}
		return h
	}
	return l.host
}

// port is the port that is written; 0 for the scheme's own.
func (l location) port() int {
	_, p, _ := net.SplitHostPort(l.host)
	n, _ := strconv.Atoi(p)
	return n
}

func (l location) escapedPath() string {
	return (&url.URL{Path: strings.TrimSuffix(l.path, "/")}).EscapedPath()
}

// sameHost reports whether credentials for l may be sent to m.
func (l location) sameHost(m location) bool {
	return l.scheme == m.scheme && l.scheme != "file" && strings.EqualFold(l.host, m.host) && l.user == m.user
}

// join returns the place that the URL of a submodule means for a repository at l: as it is, or relative when it
// begins with ./ or ../.
func (l location) join(s string) (location, error) {
	if !strings.HasPrefix(s, "./") && !strings.HasPrefix(s, "../") {
		return parseLocation(s)
	}
	base := strings.Split(strings.TrimSuffix(l.path, "/"), "/")
	for part := range strings.SplitSeq(s, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(base) == 0 || len(base) == 1 && base[0] == "" {
				return location{}, fmt.Errorf("%q leads above the root of %s", Redact(s), l.host)
			}
			base = base[:len(base)-1]
		default:
			base = append(base, part)
		}
	}
	l.path = strings.Join(base, "/")
	if strings.Trim(l.path, "/") == "" {
		return location{}, fmt.Errorf("%q names no repository", Redact(s))
	}
	return l, nil
}

// url is the location as a URL with its user but without a password, for Options.
func (l location) url() string {
	if l.scheme == "file" {
		return "file://" + l.path
	}
	if l.scheme == "ssh" {
		return l.shown()
	}
	u := url.URL{Scheme: l.scheme, Host: l.host, Path: l.path, RawQuery: l.query}
	return u.String()
}

// userinfo is what stands between a scheme and a host: everything up to the last @ before the path.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@`)

// scpPassword is user:password@host:, which is no valid form and is written by mistake.
var scpPassword = regexp.MustCompile(`^[^/@\s]*:[^/\s]*@`)

// Redact returns s with the user names and passwords of all URLs in it, and their queries, replaced by ***.
func Redact(s string) string {
	if !strings.Contains(s, "://") {
		return scpPassword.ReplaceAllString(s, "***@")
	}
	s = userinfo.ReplaceAllStringFunc(s, func(m string) string {
		scheme, user, _ := strings.Cut(m, "://")
		if strings.EqualFold(scheme, "ssh") && !strings.ContainsAny(user, ":%") && strings.Count(user, "@") == 1 {
			return m // a user name alone gives access to nothing over ssh
		}
		return scheme + "://***@"
	})
	return queries.ReplaceAllString(s, "${1}?***")
}

var queries = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^?\s"]*)\?[^\s"]*`)
