package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/worker"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
)

// Mode is how much a System may do.
type Mode int

// The modes.
const (
	// Read only reads: the engine, the sources and the state directory.
	Read Mode = iota
	// Validate reads the sources only.
	Validate
	// Exec is Read, and commands may be run in containers.
	Exec
	// Once reads until Apply or Down is called.
	Once
	// Run reconciles by itself.
	Run
)

// Options are what a System is made from.
type Options struct {
	Settings settings.Settings
	Mode     Mode
	Version  string
	Log      zerolog.Logger

	// openMachine replaces the machine that pods run on; nil is this one.
	openMachine func(s *System, key []byte) (machine, error)
}

// machine is what pods run on.
type machine struct {
	engine  runtimes.Engine
	network executor.Network
	volumes executor.Volumes
	// hostIPs are its addresses, and dns what pods' resolv.conf files are made from.
	hostIPs []string
	dns     networking.DNS
	// clear removes what pods stood on when none is left: their network, the directories for volumes, and
	// the image of their sandboxes unless another installation uses it.
	clear func(ctx context.Context) error
}

// System is the daemon: every subsystem is a field.
type System struct {
	settings settings.Settings
	version  string
	mode     Mode
	readOnly bool
	started  time.Time
	log      zerolog.Logger

	store    *store.Store
	machine  machine
	node     *executor.Node
	renderer *worker.Pool
	planning plan.Options
	ageKeys  []string // of the settings
	recorder *telemetry.Recorder
	health   *telemetry.Health
	events   *events
	claims   *claims

	wasReconciled atomic.Bool

	planMu    sync.Mutex
	hasLooked bool           // guarded by planMu
	closers   []func() error // undone by Close, last first

	mu           sync.Mutex
	running      context.Context // nil before Run
	group        *errgroup.Group
	applying     bool
	only         []string // limits a pass to these applications
	declared     map[string]applications.Declared
	beside       map[string]map[object.Ref]plan.Config // what is beside an application's declarations, by its name
	sources      map[string]*sourceEntry
	applications map[string]*applicationEntry
	down         map[string]bool             // removed by hand, until somebody asks for a reconciliation
	looked       map[string]reconcile.Status // what looking without a worker found last
	seen         map[string]seen
	drift        map[string][]plan.Drift
	restarts     map[string]int  // by the pod's UID
	caughtUp     map[string]bool // declarers that were compared with what was recorded before this start
	stepsDone    map[string]int  // of the plan that an application's worker carries out
	held         map[string]string
	pods         map[string]string // application to what was last seen of its pods
	silent       bool              // the node did not answer then
}

// New puts a System together. It changes nothing on the engine.
func New(o Options) (_ *System, err error) {
	s := &System{
		settings: o.Settings, version: o.Version, mode: o.Mode, readOnly: o.Mode < Once, log: o.Log, started: time.Now(),
		recorder: telemetry.NewRecorder(o.Version, ""), health: telemetry.NewHealth(telemetry.CheckReconciled, telemetry.CheckEngine),
		events: newEvents(o.Settings.Events.Keep), claims: newClaims(),
		declared: map[string]applications.Declared{}, sources: map[string]*sourceEntry{}, applications: map[string]*applicationEntry{},
		down: map[string]bool{}, beside: map[string]map[object.Ref]plan.Config{}, looked: map[string]reconcile.Status{}, seen: map[string]seen{}, drift: map[string][]plan.Drift{}, restarts: map[string]int{}, stepsDone: map[string]int{}, caughtUp: map[string]bool{}, held: map[string]string{}, pods: map[string]string{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openStore(); err != nil {
		return nil, err
	}
	key, err := s.store.Key()
	if err != nil {
		return nil, err
	}
	if key == nil {
		key = make([]byte, 32) // nothing was ever made here, so nothing on the engine is ours
	}
	s.planning = plan.Options{Node: localNode, DigestKey: key}
	if err := s.readAgeKeys(); err != nil {
		return nil, err
	}
	if o.Mode != Validate {
		open := o.openMachine
		if open == nil {
			open = (*System).openMachine
		}
		if err := s.openNode(open, key); err != nil {
			return nil, err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own program for render workers: %w", err)
	}
	s.renderer = worker.NewPool(worker.Options{Command: []string{exe, worker.Argument}})
	s.closers = append(s.closers, s.renderer.Close)
	return s, s.claimRecorded()
}

// localNode is the name of the only node.
const localNode plan.NodeID = "local"

// openStore locks the state directory, or looks into it when it cannot and only reads.
func (s *System) openStore() error {
	var st *store.Store
	if s.readOnly {
		// Nothing is written, clones neither: another fairlead may be at work in the same directory.
		st = store.View(s.settings.StateDir)
		tmp, err := os.MkdirTemp("", "fairlead-read-")
		if err != nil {
			return fmt.Errorf("make a directory to read sources in: %w", err)
		}
		s.settings.SourceDir = tmp
		s.closers = append(s.closers, func() error { return os.RemoveAll(tmp) })
	} else {
		var err error
		if st, err = store.Open(s.settings.StateDir); err != nil {
			return err
		}
	}
	s.store = st
	s.closers = append(s.closers, st.Close)
	if s.settings.SourceDir == "" {
		s.settings.SourceDir = filepath.Join(s.settings.StateDir, "sources")
	}
	return nil
}

// readAgeKeys reads the keys of the settings.
func (s *System) readAgeKeys() error {
	if s.settings.AgeKeyFile == "" {
		return nil
	}
	b, err := os.ReadFile(s.settings.AgeKeyFile)
	if err != nil {
		return fmt.Errorf("read the age keys: %w", err)
	}
	keys, ok := applications.AgeKeys(b)
	if !ok {
		return fmt.Errorf("ageKeyFile %s holds no age key: it must have lines that begin with AGE-SECRET-KEY-", s.settings.AgeKeyFile)
	}
	s.ageKeys = keys
	return nil
}

// claimRecorded gives every application what it had applied before this start.
func (s *System) claimRecorded() error {
	names, err := s.store.Applications()
	if err != nil {
		return err
	}
	for _, name := range names {
		r, err := s.store.Load(name)
		if err != nil {
			continue // the application's worker reports it
		}
		refs := make([]object.Ref, 0, len(r.Inventory))
		for _, o := range r.Inventory {
			refs = append(refs, o.Ref)
		}
		s.claims.hold(name, refs)
	}
	return nil
}

// Run works until ctx ends: it looks at the sources, and in mode Run reconciles the applications. What
// runs on the engine goes on running afterwards.
func (s *System) Run(ctx context.Context) error {
	s.begin(ctx)
	return s.wait()
}

// Start works beside the caller until stop is called, which releases everything.
func (s *System) Start(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	s.begin(ctx)
	return func() error {
		cancel()
		return errors.Join(s.wait(), s.Close())
	}
}

func (s *System) begin(ctx context.Context) {
	group, running := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.running, s.group, s.applying = running, group, s.mode == Run
	s.mu.Unlock()
	group.Go(func() error { <-running.Done(); return nil })
	if !s.readOnly {
		group.Go(func() error {
			err := s.node.Watch(running, s.nodeChanged)
			if s.mode == Once {
				return nil // it ends when everything was taken down
			}
			return err
		})
	}
	declared, found := s.settings.Declared()
	for _, d := range found {
		s.log.Warn().Msg(d.String())
	}
	s.declare(bySettings, declared)
	s.mu.Lock()
	none := len(s.applications) == 0
	s.mu.Unlock()
	if none {
		s.health.Set(telemetry.CheckReconciled, nil)
	}
}

func (s *System) wait() error {
	err := s.group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// beginApplying starts the workers of the applications, in a System that only read until now.
func (s *System) beginApplying(only []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.applying {
		return
	}
	s.applying, s.only = true, only
	for _, e := range s.applications {
		e.worker.Configure(s.config(*e))
		if !e.unstarted {
			s.runApplication(e)
		}
	}
}

func (s *System) isApplying() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applying
}

// nodeChanged wakes the applications whose pods changed.
func (s *System) nodeChanged() {
	state := s.observe(context.Background())
	now := map[string]string{}
	groups := map[telemetry.PodGroup]int{}
	for _, p := range state.Pods {
		now[p.Application] += signature(p)
		groups[telemetry.PodGroup{Application: p.Application, Phase: string(p.Phase)}]++
	}
	s.recorder.SetPods(groups)
	s.countRestarts(state.Pods)
	s.recorder.SetEngineUp(state.Node, !state.Stale)
	s.mu.Lock()
	for name, e := range s.applications {
		if before, known := s.pods[name]; now[name] != before || !known || state.Stale || s.silent {
			e.worker.Poke()
		}
	}
	s.pods, s.silent = now, state.Stale
	s.mu.Unlock()
	s.events.touch()
}

// countRestarts counts what was restarted since it was called last.
func (s *System) countRestarts(pods []plan.ObservedPod) {
	now := make(map[string]int, len(pods))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pods {
		for _, c := range p.Containers {
			now[p.UID] += c.Restarts
		}
		if before, known := s.restarts[p.UID]; known {
			s.recorder.ContainerRestarted(p.Application, now[p.UID]-before)
		}
	}
	s.restarts = now
}

// signature is everything of a pod that a plan can depend on.
func signature(p plan.ObservedPod) string {
	var b strings.Builder
	fmt.Fprint(&b, p.PodKey, p.UID, p.Template, p.Phase, p.Ready, p.Terminating, p.Reason, p.Finished, p.Mounted)
	for _, c := range p.Containers {
		fmt.Fprint(&b, c.Name, c.ID, c.State, c.Ready, c.Restarts, c.ExitCode, c.Reason, c.Resources)
	}
	return b.String()
}

// reconciledOnce says that the daemon is ready as soon as every application was looked at.
func (s *System) reconciledOnce() {
	if s.wasReconciled.Load() {
		return
	}
	for _, st := range s.statuses() {
		if st.Pass == 0 {
			return
		}
	}
	s.wasReconciled.Store(true)
	s.health.Set(telemetry.CheckReconciled, nil)
}

// lookup returns the data of a ConfigMap or Secret that any application has.
func (s *System) lookup(ref applications.Ref) (map[string][]byte, bool) {
	c, ok := s.desiredConfig(object.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
	return c.Data, ok
}

// desiredConfig returns a ConfigMap or Secret as an application has it now.
func (s *System) desiredConfig(ref object.Ref) (plan.Config, bool) {
	// What is declared may start before the pass that declares it has ended.
	s.mu.Lock()
	for _, configs := range s.beside {
		if c, ok := configs[ref]; ok {
			s.mu.Unlock()
			return c, true
		}
	}
	s.mu.Unlock()
	for _, st := range s.statuses() {
		if c, ok := st.Desired.Configs[ref]; ok {
			return c, true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.looked {
		if c, ok := st.Desired.Configs[ref]; ok {
			return c, true
		}
	}
	return plan.Config{}, false
}

// Close releases everything. Containers go on running.
func (s *System) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	s.closers = nil
	return errors.Join(errs...)
}
