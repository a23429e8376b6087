package docker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// The labels of a container. Those of an image become labels of its containers, so they prove nothing
// without labelMAC.
const (
	labelPrefix       = "dev.fairlead."
	labelInstallation = labelPrefix + "installation"
	labelApplication  = labelPrefix + "application"
	labelNamespace    = labelPrefix + "namespace"
	labelPod          = labelPrefix + "pod"
	labelUID          = labelPrefix + "uid"
	labelContainer    = labelPrefix + "container"
	labelAttempt      = labelPrefix + "attempt"
	labelOwner        = labelPrefix + "owner"
	labelTemplate     = labelPrefix + "template"
	labelSpec         = labelPrefix + "spec"
	labelIP           = labelPrefix + "ip"
	labelMAC          = labelPrefix + "mac"
)

// labels returns the labels that say who a container is.
func (e *Engine) labels(id runtimes.Identity) map[string]string {
	l := map[string]string{
		labelInstallation: e.opt.Installation,
		labelApplication:  id.Application,
		labelNamespace:    id.Pod.Namespace,
		labelPod:          id.Pod.Name,
		labelUID:          id.UID,
		labelContainer:    id.Container,
		labelAttempt:      strconv.Itoa(id.Attempt),
		labelOwner:        id.Owner,
		labelTemplate:     id.Template,
		labelMAC:          e.mac(id),
	}
	if id.Container == runtimes.SandboxContainer {
		l[labelSpec], l[labelIP] = id.Spec, id.IP
	}
	return l
}

// identity reads labels; false when they are not ours.
func (e *Engine) identity(l map[string]string) (runtimes.Identity, bool) {
	if l[labelInstallation] != e.opt.Installation {
		return runtimes.Identity{}, false
	}
	attempt, err := strconv.Atoi(l[labelAttempt])
	if err != nil {
		return runtimes.Identity{}, false
	}
	id := runtimes.Identity{
		Application: l[labelApplication], Pod: plan.PodKey{Namespace: l[labelNamespace], Name: l[labelPod]}, UID: l[labelUID],
		Container: l[labelContainer], Attempt: attempt, Owner: l[labelOwner], Template: l[labelTemplate],
		Spec: l[labelSpec], IP: l[labelIP],
	}
	return id, hmac.Equal([]byte(e.mac(id)), []byte(l[labelMAC]))
}

// mac is the keyed digest over everything that the labels say.
func (e *Engine) mac(id runtimes.Identity) string {
	b, err := json.Marshal(struct {
		Installation string
		runtimes.Identity
	}{e.opt.Installation, id})
	if err != nil {
		panic("an identity cannot be encoded: " + err.Error()) // it holds strings and a number
	}
	m := hmac.New(sha256.New, e.opt.Key)
	m.Write(b)
	return hex.EncodeToString(m.Sum(nil))
}

var unfit = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// name is the container's name: for people the words, and against collisions a digest of the identity.
func (e *Engine) name(id runtimes.Identity) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{
		e.opt.Installation, id.Pod.Namespace, id.Pod.Name, id.UID, id.Container, strconv.Itoa(id.Attempt),
	}, "\x00")))
	part := func(s string) string {
		s = unfit.ReplaceAllString(s, "-")
		return s[:min(len(s), 63)]
	}
	return strings.Join([]string{
		e.opt.Installation, part(id.Pod.Namespace), part(id.Pod.Name), part(id.Container), strconv.Itoa(id.Attempt), hex.EncodeToString(sum[:5]),
	}, "_")
}
