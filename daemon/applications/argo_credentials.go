package applications

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/render/object"
)

// argoCredential is a Secret that Argo CD would use for repositories, or its ConfigMap of known hosts.
type argoCredential struct {
	ref    Ref
	prefix bool // for every repository whose URL begins with url
	url    string
	data   map[string][]byte
}

const (
	argoSecretLabel = "argocd.argoproj.io/secret-type"
	argoKnownHosts  = "argocd-ssh-known-hosts-cm"
)

// argoCredentials finds the credentials among objs.
func argoCredentials(objs []object.Object) []argoCredential {
	var out []argoCredential
	for _, o := range objs {
		if o.Group != "" || o.Kind != "Secret" && (o.Kind != "ConfigMap" || o.Name != argoKnownHosts) {
			continue
		}
		labels, data := content(o.Value)
		c := argoCredential{ref: Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, data: data}
		if o.Kind == "Secret" {
			switch labels[argoSecretLabel] {
			case "repository":
			case "repo-creds":
				c.prefix = true
			default:
				continue
			}
			if t := string(data["type"]); t != "" && t != "git" {
				continue
			}
			if c.url = plainURL(string(data["url"])); c.url == "" {
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

// content returns the labels and the data of a ConfigMap or Secret.
func content(v runtime.Object) (labels map[string]string, data map[string][]byte) {
	data = map[string][]byte{}
	switch o := v.(type) {
	case *corev1.Secret:
		labels = o.Labels
		maps.Copy(data, o.Data)
		for k, s := range o.StringData {
			data[k] = []byte(s)
		}
	case *corev1.ConfigMap:
		labels = o.Labels
		for k, s := range o.Data {
			data[k] = []byte(s)
		}
	case *unstructured.Unstructured:
		var s corev1.Secret
		var c corev1.ConfigMap
		if o.GetKind() == "Secret" && runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s) == nil {
			return content(&s)
		}
		if o.GetKind() == "ConfigMap" && runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &c) == nil {
			return content(&c)
		}
	}
	return labels, data
}

// plainURL is a URL in the form in which two are compared.
func plainURL(s string) string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(ShownURL(strings.TrimSpace(s)), "/"), ".git"))
}

// begins reports whether url is prefix, or below it: org-evil is not below org.
func begins(url, prefix string) bool {
	rest, ok := strings.CutPrefix(url, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, ":"))
}

// argoAuth returns the credentials for a repository: those declared for it, or those for the longest
// beginning of its URL.
func (rd *reader) argoAuth(r *reporter, at, repository string) (Ref, Auth) {
	var found *argoCredential
	var knownHosts []byte
	url := plainURL(repository)
	for i, c := range rd.argoRepository {
		switch {
		case c.ref.Kind == "ConfigMap":
			knownHosts = c.data["ssh_known_hosts"]
		case !c.prefix && c.url == url && (found == nil || found.prefix):
			found = &rd.argoRepository[i]
		case c.prefix && begins(url, c.url) && (found == nil || found.prefix && len(found.url) < len(c.url)):
			found = &rd.argoRepository[i]
		}
	}
	if found == nil {
		return Ref{}, Auth{KnownHosts: knownHosts}
	}
	a := Auth{KnownHosts: knownHosts}
	for _, key := range sortedKeys(found.data) {
		value := found.data[key]
		switch key {
		case "url", "type", "name", "project":
		case "username":
			a.Username = string(value)
		case "password":
			a.Password = string(value)
		case "bearerToken":
			a.BearerToken = string(value)
		case "sshPrivateKey":
			a.Identity = value
		case "tlsClientCertData":
			a.ClientCert = value
		case "tlsClientCertKey":
			a.ClientKey = value
		case "insecure", "insecureIgnoreHostKey":
			if string(value) == "true" {
				r.error("unsupported-field", at, fmt.Sprintf("%s sets %s, and servers are always verified", found.ref, key), "trust the server's certificate or host key instead")
			}
		case "enableLfs":
			if string(value) == "true" {
				r.warn("not-honoured", at, fmt.Sprintf("%s sets enableLfs, which is not honoured", found.ref), "large files stay pointers")
			}
		default:
			if strings.HasPrefix(key, "githubApp") || key == "gcpServiceAccountKey" || key == "useAzureWorkloadIdentity" || key == "proxy" {
				r.error("unsupported-field", at, fmt.Sprintf("%s has the key %s, which is not supported", found.ref, key), "use a token or an SSH key")
				continue
			}
			r.warn("not-honoured", at, fmt.Sprintf("%s has the key %s, which is not read", found.ref, key), "")
		}
	}
	if a.Username == "" && a.Password != "" {
		a.Username = "git" // Argo CD sends a token without a user name like this
	}
	return found.ref, a
}
