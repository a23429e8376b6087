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
// without labelMAC; and that of a copy, which has all labels, does not fit because it is over what the
// container was made from too.
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
	labelSandbox      = labelPrefix + "sandbox"
	labelMade         = labelPrefix + "made"
	labelMAC          = labelPrefix + "mac"
)

// origin is what a container was made from, as far as a copy has it otherwise.
type origin struct {
	Image   string // as given to the engine
	Sandbox string // the id of the sandbox that it joins; empty for a sandbox
	Made    string // when, RFC 3339
}

// labels returns the labels that say who a container is.
func (e *Engine) labels(id runtimes.Identity, o origin) map[string]string {
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
		labelMade:         o.Made,
		labelMAC:          e.mac(id, o),
	}
	if id.Container == runtimes.SandboxContainer {
		l[labelSpec], l[labelIP] = id.Spec, id.IP
	} else {
		l[labelSandbox] = o.Sandbox
	}
	return l
}

// identity reads the labels of a container that was made from an image; false when they are not ours.
func (e *Engine) identity(l map[string]string, image string) (runtimes.Identity, bool) {
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
	o := origin{Image: image, Sandbox: l[labelSandbox], Made: l[labelMade]}
	return id, hmac.Equal([]byte(e.mac(id, o)), []byte(l[labelMAC]))
}

// mac is the keyed digest over everything that the labels say, and over the image.
func (e *Engine) mac(id runtimes.Identity, o origin) string {
	b, err := json.Marshal(struct {
		Installation string
		Origin       origin
		runtimes.Identity
	}{e.opt.Installation, o, id})
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
