package executor

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// secure puts what the security contexts of pod and container say into the container's spec.
func (n *Node) secure(out *runtimes.ContainerSpec, pod *plan.Pod, c *corev1.Container, img runtimes.Image) error {
	sc := effective(pod.Spec, c)
	if err := checkNonRoot(sc, img); err != nil {
		return fmt.Errorf("%w: %w", err, runtimes.ErrInvalid)
	}
	var err error
	if out.User, err = user(sc, img, pod.Spec.SecurityContext); err != nil {
		return fmt.Errorf("%w: %w", err, runtimes.ErrInvalid)
	}
	out.Groups = groups(pod.Spec.SecurityContext)
	if caps := sc.Capabilities; caps != nil {
		out.CapAdd, out.CapDrop = capabilities(caps.Add), capabilities(caps.Drop)
	}
	out.Privileged = isTrue(sc.Privileged)
	out.NoNewPrivileges = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	out.ReadOnlyRoot = isTrue(sc.ReadOnlyRootFilesystem)
	out.UnmaskedProc = sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount
	if out.Seccomp, err = n.seccomp(sc.SeccompProfile); err != nil {
		return err
	}
	out.AppArmor, err = appArmor(sc.AppArmorProfile, n.Info().AppArmor)
	return err
}

// effective returns the container's security context where it says something, the pod's otherwise.
func effective(spec *corev1.PodSpec, c *corev1.Container) corev1.SecurityContext {
	var sc corev1.SecurityContext
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	if p := spec.SecurityContext; p != nil {
		sc.RunAsUser = or(sc.RunAsUser, p.RunAsUser)
		sc.RunAsGroup = or(sc.RunAsGroup, p.RunAsGroup)
		sc.RunAsNonRoot = or(sc.RunAsNonRoot, p.RunAsNonRoot)
		sc.SeccompProfile = or(sc.SeccompProfile, p.SeccompProfile)
		sc.AppArmorProfile = or(sc.AppArmorProfile, p.AppArmorProfile)
	}
	return sc
}

func or[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func isTrue(b *bool) bool { return b != nil && *b }

// imageUser splits the user of an image, which is a name or a number, from its group.
func imageUser(img runtimes.Image) (name, group string) {
	name, group, _ = strings.Cut(img.User, ":")
	return name, group
}

// checkNonRoot holds runAsNonRoot as far as manifest and image tell. The process itself is looked at when
// it runs.
func checkNonRoot(sc corev1.SecurityContext, img runtimes.Image) error {
	if !isTrue(sc.RunAsNonRoot) {
		return nil
	}
	if sc.RunAsUser != nil {
		if *sc.RunAsUser == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy: it is 0 although runAsNonRoot is true")
		}
		return nil
	}
	name, _ := imageUser(img)
	if name == "" {
		return fmt.Errorf("container has runAsNonRoot and image will run as root: set runAsUser")
	}
	uid, err := strconv.ParseInt(name, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root: set runAsUser", name)
	case uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root: set runAsUser")
	case uid < 0 || uid > math.MaxInt32:
		return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d), it must be 1 to %d", uid, math.MaxInt32)
	}
	return nil
}

// user is what the engine is told to run as; empty leaves it to the image. A group without a user goes
// with the image's user.
func user(sc corev1.SecurityContext, img runtimes.Image, pod *corev1.PodSecurityContext) (string, error) {
	strict := pod != nil && pod.SupplementalGroupsPolicy != nil && *pod.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
	if strict && sc.RunAsGroup == nil {
		// Only with a group does the engine leave out what the image's /etc/group says of the user.
		return "", fmt.Errorf("supplementalGroupsPolicy Strict needs runAsGroup: set it")
	}
	name, group := imageUser(img)
	if sc.RunAsUser != nil {
		name, group = strconv.FormatInt(*sc.RunAsUser, 10), ""
	}
	if sc.RunAsGroup != nil {
		group = strconv.FormatInt(*sc.RunAsGroup, 10)
	}
	switch {
	case sc.RunAsUser == nil && sc.RunAsGroup == nil:
		return "", nil
	case group == "":
		return name, nil
	case name == "":
		name = "0"
	}
	return name + ":" + group, nil
}

// groups are the supplemental groups: fsGroup's first, each once.
func groups(sc *corev1.PodSecurityContext) []int64 {
	if sc == nil {
		return nil
	}
	var out []int64
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	for _, g := range sc.SupplementalGroups {
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// capabilities writes names as the engine does: upper case, without CAP_, each once.
func capabilities(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		name := strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_")
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// seccomp returns the profile for the engine. A container that says nothing gets the engine's default,
// as RuntimeDefault does.
func (n *Node) seccomp(p *corev1.SeccompProfile) (string, error) {
	if p == nil {
		return "", nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return "", nil
	case corev1.SeccompProfileTypeUnconfined:
		return "unconfined", nil
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return "", fmt.Errorf("seccompProfile: localhostProfile must be set with type Localhost: %w", runtimes.ErrInvalid)
		}
		return n.localSeccomp(*p.LocalhostProfile)
	}
	return "", fmt.Errorf("seccompProfile: the type %q is unknown: use RuntimeDefault, Localhost or Unconfined: %w", p.Type, runtimes.ErrInvalid)
}

// maxSeccomp bounds the size of a profile; the largest that are in use have some ten kilobytes.
const maxSeccomp = 1 << 20

// localSeccomp reads a profile of the node. Neither the name nor a link leads out of the directory.
func (n *Node) localSeccomp(name string) (string, error) {
	if n.opt.SeccompDir == "" {
		return "", fmt.Errorf("seccompProfile %q: this node has no directory of profiles: %w", name, runtimes.ErrInvalid)
	}
	root, err := os.OpenRoot(n.opt.SeccompDir)
	if err != nil {
		return "", fmt.Errorf("seccompProfile %q: %w: %w", name, err, runtimes.ErrMissing)
	}
	defer root.Close()
	info, err := root.Stat(name)
	if os.IsNotExist(err) {
		return "", fmt.Errorf("seccompProfile %q does not exist in %s: %w", name, n.opt.SeccompDir, runtimes.ErrMissing)
	}
	if err != nil {
		return "", fmt.Errorf("seccompProfile %q: %w: %w", name, err, runtimes.ErrInvalid)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSeccomp {
		return "", fmt.Errorf("seccompProfile %q is not a file of at most %d bytes: %w", name, maxSeccomp, runtimes.ErrInvalid)
	}
	data, err := root.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("seccompProfile %q: %w", name, err)
	}
	var profile map[string]any
	if err := json.Unmarshal(data, &profile); err != nil {
		return "", fmt.Errorf("seccompProfile %q is not a JSON object: %w: %w", name, err, runtimes.ErrInvalid)
	}
	return string(data), nil
}

// appArmor returns the profile as the engine takes it. Without AppArmor the engine ignores profiles: a container
// that asks for one by name is refused then, since it would run without what was to confine it.
func appArmor(p *corev1.AppArmorProfile, enabled bool) (string, error) {
	if p == nil {
		return "", nil
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return "", nil
	case corev1.AppArmorProfileTypeUnconfined:
		return "unconfined", nil
	case corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return "", fmt.Errorf("appArmorProfile: localhostProfile must be set with type Localhost: %w", runtimes.ErrInvalid)
		}
		if !enabled {
			return "", fmt.Errorf("appArmorProfile: the profile %q cannot be enforced, since the engine has no AppArmor: enable it in the node's kernel, or remove the profile: %w",
				*p.LocalhostProfile, runtimes.ErrInvalid)
		}
		return *p.LocalhostProfile, nil
	}
	return "", fmt.Errorf("appArmorProfile: the type %q is unknown: use RuntimeDefault, Localhost or Unconfined: %w", p.Type, runtimes.ErrInvalid)
}
