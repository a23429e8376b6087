package executor

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// keyring finds the credentials of a repository as Kubernetes does: an entry is a registry's host,
// possibly with patterns, and the beginning of a path. The most specific entry comes first.
type keyring struct{ entries []keyringEntry }

type keyringEntry struct {
	key  string // host and path
	auth runtimes.Auth
}

// The names of the registry that images without a host come from.
const (
	defaultRegistry    = "index.docker.io"
	defaultRegistryOld = "docker.io"
)

// pullSecrets returns the Secrets that the pod names as imagePullSecrets, and which of them do not exist.
func pullSecrets(pod *plan.Pod) (found []plan.Config, missing []string) {
	for _, s := range pod.Spec.ImagePullSecrets {
		ref := object.Ref{Kind: "Secret", Namespace: pod.Namespace, Name: s.Name}
		i := slices.IndexFunc(pod.Configs, func(c plan.Config) bool { return c.Ref == ref })
		switch {
		case s.Name == "":
		case i < 0:
			missing = append(missing, s.Name)
		default:
			found = append(found, pod.Configs[i])
		}
	}
	return found, missing
}

// secretsRing reads Secrets of both forms. Errors never show what is in them.
func secretsRing(secrets []plan.Config) (keyring, error) {
	var k keyring
	for _, s := range secrets {
		var err error
		if data, ok := s.Data[corev1.DockerConfigJsonKey]; ok {
			err = k.addConfigJSON(data)
		} else if data, ok := s.Data[corev1.DockerConfigKey]; ok {
			err = k.addAuths(data)
		}
		if err != nil {
			return keyring{}, fmt.Errorf("pull secret %s: %w", s.Ref, err)
		}
	}
	return k, nil
}

// addConfigJSON adds the auths of a Docker config.json.
func (k *keyring) addConfigJSON(data []byte) error {
	var config struct {
		Auths json.RawMessage `json:"auths"`
	}
	if json.Unmarshal(data, &config) != nil {
		return fmt.Errorf("it is not the JSON of a Docker configuration: %w", runtimes.ErrInvalid)
	}
	if len(config.Auths) == 0 {
		return nil
	}
	return k.addAuths(config.Auths)
}

// addAuths adds entries by registry, which is all that the older form has.
func (k *keyring) addAuths(data []byte) error {
	var auths map[string]struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
	}
	if json.Unmarshal(data, &auths) != nil {
		return fmt.Errorf("its credentials are not JSON by registry: %w", runtimes.ErrInvalid)
	}
	var errs []error
	for server, a := range auths {
		key, err := registryKey(server)
		if err != nil {
			continue // Kubernetes leaves out what is no registry
		}
		out := runtimes.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: server}
		if a.Auth != "" {
			out.Username, out.Password, err = decodeAuth(a.Auth)
			if err != nil {
				errs = append(errs, fmt.Errorf("registry %s: %w", server, err))
				continue
			}
		}
		if out.Username == "" && out.Password == "" && out.IdentityToken == "" {
			continue // a credential helper has it
		}
		k.entries = append(k.entries, keyringEntry{key, out})
	}
	slices.SortStableFunc(k.entries, func(a, b keyringEntry) int {
		return cmp.Or(-cmp.Compare(a.key, b.key), cmp.Compare(a.auth.ServerAddress, b.auth.ServerAddress))
	})
	return errors.Join(errs...)
}

func decodeAuth(auth string) (username, password string, err error) {
	enc := base64.StdEncoding
	if !strings.HasSuffix(auth, "=") {
		enc = base64.RawStdEncoding
	}
	data, err := enc.DecodeString(auth)
	if err != nil {
		return "", "", fmt.Errorf("its auth is not base64: %w", runtimes.ErrInvalid)
	}
	username, password, ok := strings.Cut(string(data), ":")
	if !ok {
		return "", "", fmt.Errorf("its auth is not a name and a password: %w", runtimes.ErrInvalid)
	}
	return username, strings.TrimRight(password, "\x00"), nil
}

// registryKey is the host and path of an entry. Scheme and the version of the registry's API do not count.
func registryKey(server string) (string, error) {
	if !strings.HasPrefix(server, "https://") && !strings.HasPrefix(server, "http://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return "", errors.New("no registry")
	}
	p := u.Path
	if strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, "/v2/") {
		p = p[len("/v1"):]
	}
	if p == "/" {
		p = ""
	}
	return u.Host + p, nil
}

// lookup returns what fits a repository with its host, for example docker.io/library/nginx.
func (k *keyring) lookup(repository string) []*runtimes.Auth {
	var out []*runtimes.Auth
	take := func(fits func(key string) bool) {
		for i := range k.entries {
			if fits(k.entries[i].key) {
				out = append(out, &k.entries[i].auth)
			}
		}
	}
	take(func(key string) bool { return registryMatches(key, repository) })
	if host, _, _ := strings.Cut(repository, "/"); len(out) == 0 && (host == defaultRegistryOld || host == defaultRegistry) {
		take(func(key string) bool { return key == defaultRegistry })
	}
	return out
}

// registryMatches reports whether an entry is for a repository: ports are equal, every part of the host
// fits its pattern, and the path begins with the entry's.
func registryMatches(key, repository string) bool {
	host, dir, _ := strings.Cut(key, "/")
	repoHost, repoPath, _ := strings.Cut(repository, "/")
	names, port := splitHost(host)
	repoNames, repoPort := splitHost(repoHost)
	if port != repoPort || len(names) != len(repoNames) || !strings.HasPrefix(repoPath, dir) {
		return false
	}
	for i := range names {
		if ok, err := path.Match(names[i], repoNames[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitHost(s string) (names []string, port string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
	}
	return strings.Split(host, "."), port
}
