package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/store"
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
	cidr, err := s.subnet(bridge)
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
	m.dns = networking.DNS{Host: host, ClusterDomain: s.settings.Network.ClusterDomain, Servers: s.nameservers()}
	m.hostIPs = networking.HostAddresses()
	m.clear = func(ctx context.Context) error {
		return errors.Join(network.Destroy(ctx), v.Destroy(), engine.RemoveSandboxImages(ctx))
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
	s.node, err = executor.New(executor.Options{
		ID: localNode, Engine: m.engine, Network: m.network, Volumes: m.volumes, StateDir: s.settings.StateDir, ReadOnly: s.readOnly,
		DNS: m.dns, HostIPs: m.hostIPs, SeccompDir: s.settings.Pods.SeccompDir, DockerConfig: s.dockerConfig(),
		Config: s.desiredConfig, Slots: s.settings.Pods.Slots,
		OnEvent: s.podEvent, OnTrouble: s.nodeTrouble,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.node.Close)
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

// subnet returns the pods' subnet. What was once chosen stays, so that addresses survive a restart of
// the machine.
func (s *System) subnet(bridge string) (netip.Prefix, error) {
	if s.settings.Network.CIDR != "" {
		return netip.ParsePrefix(s.settings.Network.CIDR)
	}
	file := filepath.Join(s.settings.StateDir, "network.json")
	var chosen struct {
		Bridge string       `json:"bridge"`
		CIDR   netip.Prefix `json:"cidr"`
	}
	b, err := os.ReadFile(file)
	switch {
	case err == nil && json.Unmarshal(b, &chosen) == nil && chosen.Bridge == bridge && chosen.CIDR.IsValid():
		return chosen.CIDR, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return netip.Prefix{}, fmt.Errorf("read which subnet pods have: %w", err)
	}
	chosen.Bridge = bridge
	if chosen.CIDR, err = networking.FreeSubnet(bridge, networking.DefaultSubnets()); err != nil || s.readOnly {
		return chosen.CIDR, err
	}
	if b, err = json.Marshal(chosen); err != nil {
		return netip.Prefix{}, err
	}
	return chosen.CIDR, store.WriteFile(file, b)
}

// nameservers are those of the settings.
func (s *System) nameservers() []netip.Addr {
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
	s.keep(api.Event{
		Type: t, Reason: e.Reason, Message: e.Message, Application: e.Application, Node: localNode, Ref: e.Pod.Ref(),
	})
}

// nodeTrouble reports an error that concerns no pod.
func (s *System) nodeTrouble(err error) {
	s.log.Warn().Str(telemetry.KeyNode, string(localNode)).Err(err).Msg("trouble on the node")
	s.keep(api.Event{Type: api.Warning, Reason: "NodeTrouble", Message: err.Error(), Node: localNode})
}
