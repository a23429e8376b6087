package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/runtimes/docker"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// openMachine is the engine of this machine with what its pods need.
func (s *System) openMachine(key []byte) (machine, error) {
	var m machine
	engine, err := docker.New(docker.Options{
		Host: s.settings.Engine, Key: key, Installation: s.settings.Installation, ReadOnly: s.mode == Read,
	})
	if err != nil {
		return m, fmt.Errorf("set up the engine's client: %w", err)
	}
	m.engine = engine
	s.closers = append(s.closers, engine.Close)

	bridge := bridgeName(s.settings)
	cidr, services, err := s.subnets(bridge)
	if err != nil {
		return m, err
	}
	network, err := networking.New(engine, networking.Options{Bridge: bridge, CIDR: cidr, MTU: s.settings.Network.MTU})
	if err != nil {
		return m, err
	}
	host, err := networking.HostResolvConf()
	if err != nil {
		return m, fmt.Errorf("read the name servers of this machine: %w", err)
	}
	o := volumes.Options{
		Dir: filepath.Join(s.settings.StateDir, "volumes"), TmpfsDir: s.settings.RunDir,
		Protected: []string{s.settings.StateDir},
	}
	v := volumes.View(o)
	if !s.readOnly {
		if v, err = volumes.New(o); err != nil {
			return m, err
		}
	}
	m.network, m.volumes = network, v
	m.dns = networking.DNS{Host: host, ClusterDomain: s.settings.Network.ClusterDomain, Servers: s.nameservers(network.Gateway())}
	m.hostIPs = networking.HostAddresses()
	if m.ranges, err = s.ranges(cidr, services, m.hostIPs); err != nil {
		return m, err
	}
	if !s.readOnly {
		if m.serving, err = s.openServing(bridge, cidr, network.Gateway(), m.ranges); err != nil {
			return m, err
		}
		if err := s.openPolicing(bridge, network.Gateway()); err != nil {
			return m, err
		}
	}
	m.clear = func(ctx context.Context) error {
		return errors.Join(m.serving.destroy(ctx), s.policing.destroy(ctx), network.Destroy(ctx), v.Destroy(), engine.RemoveSandboxImages(ctx))
	}
	return m, nil
}

// openNode makes the node.
func (s *System) openNode(open func(*System, []byte) (machine, error), key []byte) error {
	m, err := open(s, key)
	if err != nil {
		return err
	}
	s.machine = m
	s.planning.Services = m.ranges
	s.node, err = executor.New(executor.Options{
		Gather: executor.Gather,
		ID:     localNode, Engine: m.engine, Network: m.network, Volumes: m.volumes, StateDir: s.settings.StateDir, ReadOnly: s.readOnly,
		DNS: m.dns, HostIPs: m.hostIPs, SeccompDir: s.settings.Pods.SeccompDir, DockerConfig: s.dockerConfig(),
		Config: s.desiredConfig, Policies: s.policing, Suspended: s.suspensions.holds, Slots: s.settings.Pods.Slots,
		OnEvent: s.podEvent, OnTrouble: s.nodeTrouble, Registries: m.serving.registries(),
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.node.Close)
	s.recorder.Serve(s.figures)
	return nil
}

// bridgeName is the name of the pods' bridge: that of the installation where it fits into the 15 bytes
// of an interface's name.
func bridgeName(s settings.Settings) string {
	switch {
	case s.Network.Bridge != "":
		return s.Network.Bridge
	case len(s.Installation) < 15:
		return s.Installation + "0"
	}
	sum := sha256.Sum256([]byte(s.Installation))
	return "fairlead" + hex.EncodeToString(sum[:3]) + "0"
}

// nameservers are those of pods: the node's own, or with dns.disabled those of the settings.
func (s *System) nameservers(gateway netip.Addr) []netip.Addr {
	if !s.settings.DNS.Disabled {
		return []netip.Addr{gateway}
	}
	var out []netip.Addr
	for _, n := range s.settings.Network.Nameservers {
		if a, err := netip.ParseAddr(n); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// dockerConfig is the docker config.json with the credentials for images.
func (s *System) dockerConfig() string {
	if s.settings.Registry.DockerConfig != "" {
		return s.settings.Registry.DockerConfig
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker", "config.json")
}

// podEvent keeps what happened to a pod.
func (s *System) podEvent(e executor.Event) {
	t := api.Normal
	if e.Warning {
		t = api.Warning
	}
	if e.By != "" {
		s.recorder.DriftFound(e.Application, e.By, e.Action)
	}
	s.keep(api.Event{
		Type: t, Reason: e.Reason, Message: e.Message, Application: e.Application, Node: localNode, Ref: e.Ref(),
	})
}

// nodeTrouble reports an error that concerns no pod.
func (s *System) nodeTrouble(err error) {
	s.log.Warn().Str(telemetry.KeyNode, string(localNode)).Err(err).Msg("trouble on the node")
	s.keep(api.Event{Type: api.Warning, Reason: "NodeTrouble", Message: err.Error(), Node: localNode})
}
