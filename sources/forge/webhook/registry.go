package webhook

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// The image registries that deliver what was pushed to them. Distribution is the registry that others are made of.
const (
	DockerHub    forge.Kind = "docker-hub"
	GHCR         forge.Kind = "ghcr"
	Harbor       forge.Kind = "harbor"
	Quay         forge.Kind = "quay"
	Distribution forge.Kind = "distribution"
)

// Registries are all of them.
var Registries = []forge.Kind{DockerHub, GHCR, Harbor, Quay, Distribution}

// TokenHeader has the secret of a registry that neither signs nor sends a header of its own: whoever serves the endpoint
// puts the parameter token of the URL there.
const TokenHeader = "X-Hook-Token"

// IsRegistry reports whether an endpoint is for an image registry.
func (e Endpoint) IsRegistry() bool { return slices.Contains(Registries, e.Forge) }

// registryBefore is Before for registries: GitHub signs, Harbor and Distribution send the header that they are told to,
// Docker Hub and Quay know nothing but a URL.
func (e Endpoint) registryBefore(h http.Header) *Rejection {
	switch e.Forge {
	case GHCR:
		if h.Get("X-Hub-Signature-256") == "" {
			return reject(Unsigned, "the delivery is not signed: the header X-Hub-Signature-256 is missing; set the same secret in GitHub and in the file of this hook")
		}
		return nil
	case Harbor, Distribution:
		given := strings.TrimPrefix(h.Get("Authorization"), "Bearer ")
		if given == "" {
			return reject(Unsigned, "the delivery has no proof: set the secret of this hook as the header Authorization of the notification in %s", e.Forge)
		}
		if !e.anySecret(func(secret string) int { return equalText(given, secret) }) {
			return reject(BadSignature, "the header Authorization is not the secret of this hook")
		}
		return nil
	}
	given := h.Get(TokenHeader)
	if given == "" {
		return reject(Unsigned, "the delivery has no proof: add ?token= and the secret of this hook to the URL in %s", e.Forge)
	}
	if !e.anySecret(func(secret string) int { return equalText(given, secret) }) {
		return reject(BadSignature, "the token in the URL is not the secret of this hook")
	}
	return nil
}

// registryProof proves the body where it is signed.
func (e Endpoint) registryProof(h http.Header, body []byte) *Rejection {
	if e.Forge == GHCR && !e.hexSignature(sha256.New, h.Get("X-Hub-Signature-256"), "sha256=", body) {
		return reject(BadSignature, "the signature is wrong: the secret in GitHub and the one of this hook differ, or the body was changed on its way")
	}
	return e.registryBefore(h)
}

// pushedImages reads which images a registry tells of, without tags. A delivery of something else names none.
func pushedImages(kind forge.Kind, h http.Header, body []byte) ([]string, error) {
	switch kind {
	case DockerHub:
		var d struct {
			Repository struct {
				RepoName string `json:"repo_name"`
			} `json:"repository"`
		}
		err := decode(body, &d)
		return []string{d.Repository.RepoName}, err
	case GHCR:
		return pushedPackage(h.Get("X-Github-Event"), body)
	case Harbor:
		var d struct {
			Type string `json:"type"`
			Data struct {
				Resources []struct {
					URL string `json:"resource_url"`
				} `json:"resources"`
			} `json:"event_data"`
		}
		err := decode(body, &d)
		var out []string
		for _, r := range d.Data.Resources {
			if d.Type == "PUSH_ARTIFACT" {
				out = append(out, r.URL)
			}
		}
		return out, err
	case Quay:
		var d struct {
			URL        string `json:"docker_url"`
			Repository string `json:"repository"`
		}
		err := decode(body, &d)
		if d.URL == "" {
			d.URL = d.Repository
		}
		return []string{d.URL}, err
	}
	var d struct {
		Events []struct {
			Action string `json:"action"`
			Target struct {
				Repository string `json:"repository"`
			} `json:"target"`
			Request struct {
				Host string `json:"host"`
			} `json:"request"`
		} `json:"events"`
	}
	err := decode(body, &d)
	var out []string
	for _, e := range d.Events {
		if e.Action == "push" {
			out = append(out, e.Request.Host+"/"+e.Target.Repository)
		}
	}
	return out, err
}

// pushedPackage reads GitHub's two events about packages.
func pushedPackage(event string, body []byte) ([]string, error) {
	type pack struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Type      string `json:"package_type"`
	}
	var d struct {
		Package         pack `json:"package"`
		RegistryPackage pack `json:"registry_package"`
	}
	err := decode(body, &d)
	p := d.Package
	if event == "registry_package" {
		p = d.RegistryPackage
	}
	if (event != "package" && event != "registry_package") || !strings.EqualFold(p.Type, "container") || p.Name == "" {
		return nil, err
	}
	return []string{"ghcr.io/" + p.Namespace + "/" + p.Name}, err
}

// registryEvent is a delivery of a registry.
func registryEvent(kind forge.Kind, h http.Header, body []byte) (forge.Event, error) {
	images, err := pushedImages(kind, h, body)
	if err != nil {
		return forge.Event{}, err
	}
	ev := forge.Event{Kind: forge.ImagePushed}
	for _, image := range images {
		image, _, _ = strings.Cut(image, "@")
		if slash := strings.LastIndexByte(image, '/'); strings.LastIndexByte(image, ':') > slash {
			image = image[:strings.LastIndexByte(image, ':')]
		}
		if image = plain(strings.ToLower(strings.Trim(image, "/"))); image != "" && !slices.Contains(ev.Images, image) && len(ev.Images) < most {
			ev.Images = append(ev.Images, image)
		}
	}
	if len(ev.Images) == 0 {
		ev.Kind = forge.Ignored
	}
	return ev, nil
}
