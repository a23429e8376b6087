package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Create makes a container, or returns the id of the one of that identity.
func (e *Engine) Create(ctx context.Context, spec runtimes.ContainerSpec) (string, error) {
	if err := e.mayChange(ctx); err != nil {
		return "", err
	}
	name := e.name(spec.Identity)
	doing := "create container " + name
	config, host, nets, err := e.body(spec, time.Now())
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", doing, runtimes.ErrInvalid, err)
	}
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return "", e.wrap(ctx, doing, err)
	}
	resp, err := e.cli.ContainerCreate(ctx, config, host, nets, nil, name)
	if err == nil {
		e.memory.prove(resp.ID, spec.Identity, ours)
		return resp.ID, nil
	}
	if errdefs.IsNotFound(err) {
		if again := e.lostSandboxImage(ctx, spec.Image); again != "" {
			spec.Image = again
			return e.Create(ctx, spec)
		}
	}
	if !errdefs.IsConflict(err) || ctx.Err() != nil {
		return "", e.wrap(ctx, doing, err)
	}
	// The name is taken: by what an earlier try made, or by a stranger.
	found, inspectErr := e.cli.ContainerInspect(ctx, name)
	if inspectErr != nil {
		return "", e.wrap(ctx, doing, err)
	}
	if id, genuine := e.genuine(found.Config.Labels, found.Config.Image, found.HostConfig.NetworkMode); genuine && same(id, spec.Identity) {
		e.memory.prove(found.ID, id, ours)
		return found.ID, nil
	}
	return "", fmt.Errorf("%s: %w: a container that fairlead did not make has the name; rename or remove it", doing, runtimes.ErrConflict)
}

// body is the whole request.
func (e *Engine) body(s runtimes.ContainerSpec, now time.Time) (*container.Config, *container.HostConfig, *network.NetworkingConfig, error) {
	c := &container.Config{
		Image: s.Image, Entrypoint: s.Command, Cmd: s.Args, WorkingDir: s.WorkingDir, Env: s.Env, User: s.User,
		OpenStdin: s.Stdin, StdinOnce: s.StdinOnce, Tty: s.TTY, StopSignal: s.StopSignal,
		Labels: e.labels(s.Identity, origin{Image: s.Image, Sandbox: s.SandboxID, Made: now.UTC().Format(time.RFC3339)}),
		// A health check of the image is no probe of the pod.
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	if s.Command != nil && s.Args == nil {
		c.Cmd = []string{} // or the image's command would follow
	}
	noInit := false // whatever the engine's own setting is: a container's first process is its command
	h := &container.HostConfig{
		Init:          &noInit,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:     containerLog(),
		CapAdd:        s.CapAdd, CapDrop: s.CapDrop, Privileged: s.Privileged, ReadonlyRootfs: s.ReadOnlyRoot,
		OomScoreAdj: s.OOMScoreAdj, ShmSize: s.ShmBytes,
	}
	h.Resources = limits(s.Resources)
	for _, g := range s.Groups {
		h.GroupAdd = append(h.GroupAdd, strconv.FormatInt(g, 10))
	}
	for _, m := range s.Mounts {
		h.Mounts = append(h.Mounts, e.mounted(m))
	}
	security(s, h)
	if s.SandboxID != "" {
		h.NetworkMode = container.NetworkMode("container:" + s.SandboxID)
		h.IpcMode = container.IpcMode("container:" + s.SandboxID)
		if s.HostIPC {
			h.IpcMode = container.IPCModeHost // the host's namespace cannot be had from a sandbox
		}
		pid, err := pidMode(s)
		h.PidMode = pid
		return c, h, nil, err
	}
	h.LogConfig = container.LogConfig{Type: "none"} // it writes nothing
	c.Hostname = s.Hostname
	h.Sysctls = s.Sysctls
	h.IpcMode = container.IPCModeShareable
	if s.HostIPC {
		h.IpcMode = container.IPCModeHost
	}
	pid, err := pidMode(s)
	if err != nil {
		return nil, nil, nil, err
	}
	h.PidMode = pid
	switch {
	case s.HostNetwork:
		h.NetworkMode = network.NetworkHost
		c.Hostname = "" // the host's own; the engine refuses another
	case s.Network != "":
		h.NetworkMode = container.NetworkMode(s.Network)
		c.ExposedPorts, h.PortBindings, err = ports(s.Ports)
		return c, h, endpoint(s), err
	default:
		h.NetworkMode = network.NetworkNone
	}
	return c, h, nil, err
}

// containerLog is the engine's log that can be read back, in files that cannot fill the disk.
func containerLog() container.LogConfig {
	return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}}
}

// endpoint gives a pod on an engine network the address that was chosen for it; the engine chooses
// where there is none.
func endpoint(s runtimes.ContainerSpec) *network.NetworkingConfig {
	if s.IP == "" {
		return nil
	}
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		s.Network: {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: s.IP}},
	}}
}

func limits(r plan.Resources) container.Resources {
	out := container.Resources{CPUShares: r.CPUShares, Memory: r.MemoryBytes}
	if r.MemoryBytes > 0 {
		out.MemorySwap = r.MemoryBytes // no swap on top
	}
	if r.CPUMillis > 0 {
		out.CPUPeriod, out.CPUQuota = cpu(r.CPUMillis)
	}
	return out
}

// cpuPeriod is the scheduler's usual period, in microseconds; a quota below minQuota is not accepted.
const (
	cpuPeriod  = 100_000
	longPeriod = 1_000_000
	minQuota   = 1_000
)

// cpu returns the period and the quota of a limit. A limit that is too small for the usual period has the
// longest there is, so that every limit is in force, and read back, as it was given.
func cpu(millis int64) (period, quota int64) {
	if quota := millis * cpuPeriod / 1000; quota >= minQuota {
		return cpuPeriod, quota
	}
	return longPeriod, millis * longPeriod / 1000
}

// mounted mounts a path of the host or a volume of the engine, which then has nothing of the image in it.
func (e *Engine) mounted(m runtimes.Mount) mount.Mount {
	if m.Volume == "" {
		return bind(m)
	}
	return mount.Mount{
		Type: mount.TypeVolume, Source: e.volumeName(m.Volume), Target: m.Target, ReadOnly: m.ReadOnly,
		VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	}
}

// bind mounts a path that exists: the engine makes none.
func bind(m runtimes.Mount) mount.Mount {
	return mount.Mount{
		Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly,
		BindOptions: &mount.BindOptions{Propagation: mount.Propagation(propagation(m.Propagation))},
	}
}

func propagation(p string) string {
	if p == "" {
		return string(mount.PropagationRPrivate)
	}
	return p
}

func security(s runtimes.ContainerSpec, h *container.HostConfig) {
	if s.NoNewPrivileges {
		h.SecurityOpt = append(h.SecurityOpt, "no-new-privileges")
	}
	if s.Seccomp != "" {
		h.SecurityOpt = append(h.SecurityOpt, "seccomp="+s.Seccomp)
	}
	if s.AppArmor != "" {
		h.SecurityOpt = append(h.SecurityOpt, "apparmor="+s.AppArmor)
	}
	if s.UnmaskedProc {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
}

func pidMode(s runtimes.ContainerSpec) (container.PidMode, error) {
	switch {
	case s.PIDMode == "":
		return "", nil
	case s.PIDMode == "host":
		return "host", nil
	case s.PIDMode == "sandbox" && s.SandboxID != "":
		return container.PidMode("container:" + s.SandboxID), nil
	case s.PIDMode == "sandbox":
		return "", nil // of the sandbox itself
	}
	return "", fmt.Errorf("unknown PID mode %q", s.PIDMode)
}

func ports(bindings []runtimes.PortBinding) (nat.PortSet, nat.PortMap, error) {
	set, published := nat.PortSet{}, nat.PortMap{}
	for _, b := range bindings {
		p, err := nat.NewPort(strings.ToLower(b.Protocol), strconv.Itoa(b.ContainerPort))
		if err != nil {
			return nil, nil, fmt.Errorf("port %d/%s: %w", b.ContainerPort, b.Protocol, err)
		}
		set[p] = struct{}{}
		published[p] = append(published[p], nat.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(b.HostPort)})
	}
	return set, published, nil
}
