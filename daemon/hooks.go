package daemon

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/hooks"
	"github.com/fairlead-dev/fairlead/daemon/previews"
	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/registry"
)

// openHooks makes what answers deliveries, and the clients of the forges' APIs. A secret that is missing or empty is
// an error: an open endpoint is worse than none.
func (s *System) openHooks() error {
	forges, of, err := s.settings.OpenForges("fairlead/" + s.version)
	if err != nil {
		return err
	}
	s.forges, s.approvers = forges, map[forge.Forge]previews.Approvers{}
	for f, set := range of {
		s.approvers[f] = previews.Accounts{Names: set.Approvers, ExcludeAuthor: set.ExcludeAuthor}
	}
	if s.mode == Run && s.forges.Len() > 0 {
		s.previews = previews.New(s, previews.Options{Name: s.settings.Installation, Dir: filepath.Join(s.settings.StateDir, "previews"), Log: s.log})
		s.closers = append(s.closers, s.previews.Close)
	}
	h := s.settings.Hooks
	if h == nil {
		return nil
	}
	endpoints, err := h.Proved()
	if err != nil {
		return err
	}
	if h.TLS.CertFile != "" {
		if s.hookCertificate, err = hooks.OpenCertificate(h.TLS.CertFile, h.TLS.KeyFile); err != nil {
			return err
		}
	}
	s.hooks, err = hooks.New(hooks.Options{
		Endpoints: endpoints, MaxBody: h.BodySize(), Rewrites: h.Rules(), Sources: s,
		PullRequests: s, Images: s, Log: s.log,
	})
	if err == nil {
		s.recorder.CountHooks(s.hooks.Stats)
	}
	return err
}

// serveHooks answers deliveries until ctx ends.
func (s *System) serveHooks(ctx context.Context) (func() error, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.settings.Hooks.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for hooks: %w (choose another address with hooks.listen in the settings)", err)
	}
	s.mu.Lock()
	s.hookAddress = l.Addr().String()
	s.mu.Unlock()
	s.log.Info().Str("address", l.Addr().String()).Bool("tls", s.hookCertificate != nil).Int("endpoints", len(s.settings.Hooks.Endpoints)).Msg("serving hooks")
	if s.hookCertificate == nil && !isLoopback(l.Addr()) {
		s.log.Warn().Msg("hooks are served without TLS on an address that others reach: set hooks.tls, or put a proxy with TLS before it")
	}
	return func() error { return s.hooks.Serve(ctx, l, s.hookCertificate) }, nil
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// Look implements hooks.Sources.
func (s *System) Look(keys []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, e := range s.sources {
		if e.worker != nil && forge.Matches(e.key, keys) {
			e.worker.Poke()
			names = append(names, name)
		}
	}
	return names
}

// LookAtImages implements hooks.Images. A registry may know itself by another name than those who pull from it, so the
// path of the repository is what counts.
func (s *System) LookAtImages(pushed []string) int {
	if s.images == nil {
		return 0
	}
	paths := map[string]bool{}
	for _, image := range pushed {
		paths[registry.Path(image)] = true
	}
	return s.images.Look(func(image string) bool { return paths[registry.Path(image)] })
}

// Forge returns the forge that has a repository, and the repository's name there, from where it is cloned or from
// URLs of a delivery; false when the settings name none.
func (s *System) Forge(locations ...string) (forge.Forge, string, bool) {
	return s.forges.Find(locations...)
}

// hooksFrom returns the hooks as the read model has them; nil without any.
func (s *System) hooksFrom() *api.Hooks {
	if s.hooks == nil {
		return nil
	}
	s.mu.Lock()
	out := &api.Hooks{Address: s.hookAddress, TLS: s.hookCertificate != nil}
	s.mu.Unlock()
	for path, e := range s.hooks.Endpoints() {
		out.Endpoints = append(out.Endpoints, api.HookEndpoint{Path: path, Forge: string(e.Forge), Accepted: e.Accepted, Rejected: e.Rejected})
	}
	return out
}

// lastDelivery returns what a forge told of a source last; nil for nothing.
func (s *System) lastDelivery(source string) *api.Delivery {
	if s.hooks == nil {
		return nil
	}
	d, ok := s.hooks.Last(source)
	if !ok {
		return nil
	}
	return &api.Delivery{Received: d.At, Forge: string(d.Forge), Event: string(d.Event), Ref: d.Ref}
}
