package forge

import (
	"net/url"
	"regexp"
	"strings"
)

// Key is a repository's place in a form in which all its URLs are equal: host/path in lower case, without scheme,
// account, port and ".git". It is empty for what is no URL of a repository on another machine. Two repositories may
// have one key when only their ports differ: a key is good for deciding what is worth a look, and for nothing else.
//
//	https://git.example.org/team/app.git   git.example.org/team/app
//	git@git.example.org:team/app           git.example.org/team/app
//	ssh://git@git.example.org:2222/team/app
//
// The forms of Azure DevOps and Bitbucket Server, whose paths differ between HTTPS, SSH and browser, are known.
func Key(location string) string {
	host, path := split(location)
	if host == "" {
		return ""
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if h, ok := overHTTPSPort[host]; ok {
		host = h
	}
	path = strings.Trim(strings.ToLower(path), "/")
	path = strings.Trim(strings.TrimSuffix(path, ".git"), "/")
	host, path = azure(host, path)
	path = bitbucketServer(path)
	if path == "" {
		return ""
	}
	return host + "/" + path
}

// overHTTPSPort are names under which services take SSH on port 443.
var overHTTPSPort = map[string]string{
	"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com", "altssh.bitbucket.org": "bitbucket.org",
	"www.github.com": "github.com",
}

// scp is user@host:path or host:path.
var scp = regexp.MustCompile(`^(?:[^@/\s]+@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([^\s]*)$`)

// split takes a URL apart; host is empty for what is none.
func split(location string) (host, path string) {
	if len(location) > 4096 || strings.ContainsAny(location, "\x00\r\n\t ") {
		return "", ""
	}
	if strings.Contains(location, "://") {
		u, err := url.Parse(location)
		if err != nil {
			return "", ""
		}
		switch strings.ToLower(u.Scheme) {
		case "https", "http", "ssh", "git", "git+ssh", "ssh+git":
			return u.Hostname(), u.Path
		}
		return "", ""
	}
	m := scp.FindStringSubmatch(location)
	if m == nil || strings.HasPrefix(m[2], "//") {
		return "", ""
	}
	if p, err := url.PathUnescape(m[2]); err == nil {
		m[2] = p
	}
	return strings.Trim(m[1], "[]"), m[2]
}

// azure brings the forms of Azure DevOps to host/organization/project/repository.
func azure(host, path string) (string, string) {
	if h, ok := strings.CutSuffix(host, ".visualstudio.com"); ok {
		switch h {
		case "vs-ssh", "ssh":
		default: // the organization is in the host
			path = h + "/" + strings.TrimPrefix(path, "defaultcollection/")
		}
		host = "dev.azure.com"
	}
	if host == "ssh.dev.azure.com" {
		host = "dev.azure.com"
	}
	if host == "dev.azure.com" {
		path = strings.TrimPrefix(strings.TrimPrefix(path, "v3/"), "v2/")
	}
	before, name, ok := strings.Cut(path, "/_git/")
	if !ok {
		before, name, ok = strings.Cut(path, "/_ssh/")
	}
	if !ok {
		return host, path
	}
	name, _, _ = strings.Cut(name, "/")
	if !strings.Contains(before, "/") {
		before += "/" + name // a project's first repository has its name, and the short URL leaves it out
	}
	return host, before + "/" + name
}

// bitbucketServer brings scm/project/name and projects/project/repos/name to project/name. A path before them is the
// place where the whole server is.
func bitbucketServer(path string) string {
	parts := strings.Split(path, "/")
	n := len(parts)
	switch {
	case n >= 3 && parts[n-3] == "scm":
		return strings.Join(parts[n-2:], "/")
	case n >= 4 && parts[n-4] == "projects" && parts[n-2] == "repos":
		return parts[n-3] + "/" + parts[n-1]
	case n >= 4 && parts[n-4] == "users" && parts[n-2] == "repos":
		return "~" + parts[n-3] + "/" + parts[n-1]
	case n >= 5 && parts[n-1] == "browse" && parts[n-3] == "repos":
		return bitbucketServer(strings.Join(parts[:n-1], "/"))
	}
	return path
}

// Rewrite says that repositories below one place are cloned from below another, for example from an address inside
// of a network while the forge's deliveries have the public one.
type Rewrite struct {
	// From and To are URLs, or hosts with or without a path; the path is taken at whole names.
	From, To string
}

// place is like Key, for a part of a URL; host:port is one too.
func place(s string) string {
	if !strings.Contains(s, "://") && !strings.Contains(s, "@") {
		s = "https://" + s
	}
	host, path := split(s)
	if path = strings.Trim(strings.ToLower(path), "/"); path == "" || host == "" {
		return strings.ToLower(host)
	}
	return strings.ToLower(host) + "/" + path
}

// Valid reports whether both sides name a host.
func (r Rewrite) Valid() bool { return place(r.From) != "" && place(r.To) != "" }

// Apply returns the key of where a repository is cloned from, and false when the rule is not about it.
func (r Rewrite) Apply(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, place(r.From))
	if !ok || rest != "" && !strings.HasPrefix(rest, "/") {
		return "", false
	}
	return place(r.To) + rest, true
}

// Keys are the keys under which a repository may be cloned: those of its URLs, and what rules make of them. A key
// that begins with a slash stands for any host: the delivery did not say which.
func (r Repository) Keys(rules []Rewrite) []string {
	var out []string
	seen := map[string]bool{}
	add := func(k string) {
		if k != "" && !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	for _, u := range r.URLs {
		add(Key(u))
	}
	if len(out) == 0 && r.Path != "" {
		return []string{"/" + strings.Trim(strings.ToLower(r.Path), "/")}
	}
	for _, k := range out {
		for _, rule := range rules {
			if to, ok := rule.Apply(k); ok {
				add(to)
			}
		}
	}
	return out
}

// Matches reports whether key, of a repository that is cloned, is one of keys.
func Matches(key string, keys []string) bool {
	if key == "" {
		return false
	}
	for _, k := range keys {
		if k == key || strings.HasPrefix(k, "/") && len(k) > 1 && strings.HasSuffix(key, k) {
			return true
		}
	}
	return false
}
