package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/hooks"
	"github.com/fairlead-dev/fairlead/daemon/images"
	"github.com/fairlead-dev/fairlead/daemon/notify"
	"github.com/fairlead-dev/fairlead/daemon/previews"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/policies/podsecurity"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/worker"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
	"github.com/fairlead-dev/fairlead/sources/forge"
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
	// serving is what serves Services, from ranges.
	serving serving
	ranges  plan.ServiceRanges
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

	store     *store.Store
	machine   machine
	node      *executor.Node
	renderer  *worker.Pool
	planning  plan.Options
	ageKeys   []string // of the settings
	recorder  *telemetry.Recorder
	health    *telemetry.Health
	events    *events
	claims    *reconcile.Claims
	authority authority
	policing  *policing
	previews  *previews.Manager // nil when no forge is known, or nothing is reconciled
	// hooks is nil when none are served; hookAddress is where they are.
	hooks           *hooks.Server
	hookCertificate *hooks.Certificate
	hookAddress     string // guarded by mu
	forges          *forge.Set
	notifier        *notify.Notifier // nil when nobody is told
	labels          sync.Map         // of applications, by name
	images          *images.Manager  // nil when nothing is reconciled
	updating        updating
	approvers       map[forge.Forge]previews.Approvers

	wasReconciled atomic.Bool

	handing sync.Mutex // held while the record of an application without a worker is written

	suspensions suspensions

	planMu    sync.Mutex
	hasLooked bool                  // guarded by planMu
	evaluated map[string]*evaluated // guarded by planMu
	merging   map[string]merging    // guarded by planMu
	closers   []func() error        // undone by Close, last first

	mu           sync.Mutex
	running      context.Context // nil before Run
	group        *errgroup.Group
	applying     bool
	only         []string // limits a pass to these applications
	declared     map[string]applications.Declared
	beside       map[string]plan.Configs // what is beside an application's declarations, by its name
	sources      map[string]*sourceEntry
	applications map[string]*applicationEntry
	down         map[string]bool             // removed by hand, until somebody asks for a reconciliation
	looked       map[string]reconcile.Status // what looking without a worker found last
	seen         map[string]seen
	drift        map[string][]plan.Drift
	caughtUp     map[string]bool    // declarers that were compared with what was recorded before this start
	stepsDone    map[string]int     // of the plan that an application's worker carries out
	awaiting     map[string]bool    // applications that wait until all others have said what they want
	pods         []plan.ObservedPod // that were seen last
	silent       bool               // the node did not answer then
}

// New puts a System together. It changes nothing on the engine.
func New(o Options) (_ *System, err error) {
	s := &System{
		settings: o.Settings, version: o.Version, mode: o.Mode, readOnly: o.Mode < Once, log: o.Log, started: time.Now(),
		recorder: telemetry.NewRecorder(o.Version, ""), health: telemetry.NewHealth(telemetry.CheckReconciled, telemetry.CheckEngine),
		events: newEvents(o.Settings.Events.Keep), awaiting: map[string]bool{},
		declared: map[string]applications.Declared{}, sources: map[string]*sourceEntry{}, applications: map[string]*applicationEntry{},
		down: map[string]bool{}, beside: map[string]plan.Configs{}, looked: map[string]reconcile.Status{}, seen: map[string]seen{}, drift: map[string][]plan.Drift{}, stepsDone: map[string]int{}, caughtUp: map[string]bool{}, evaluated: map[string]*evaluated{}, merging: map[string]merging{},
	}
	s.claims = reconcile.NewClaims(s.wakeClaimant)
	s.authority.defaults = podsecurity.Defaults(s.settings.Defaults.PodSecurity)
	s.policing = newPolicing()
	s.claims.Note(func(application string, inventory []plan.Applied) {
		s.policing.record(application, inventory)
		s.recordedRules(application, inventory)
	})
	s.suspensions.changed, s.suspensions.planned = make(chan struct{}, 1), map[string][]plan.SuspendedObject{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openStore(); err != nil {
		return nil, err
	}
	if err := s.loadSuspensions(); err != nil {
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
	} else if s.planning.Services, err = s.validRanges(); err != nil {
		return nil, err
	}
	if o.Mode == Run {
		if err := s.openHooks(); err != nil {
			return nil, err
		}
	}
	if o.Mode != Validate {
		s.openNotifier()
	}
	if o.Mode == Run {
		s.openImages()
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
		if err := store.Readable(s.settings.StateDir); err != nil {
			return err
		}
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
	defer s.policing.allRecorded()
	for _, name := range names {
		r, err := s.store.Load(name)
		if err != nil {
			s.policing.cannotRead(name, err)
			continue // the application's worker reports it
		}
		s.claims.Recorded(name, r.Inventory)
	}
	return nil
}

// releaseUndeclared lets others take over what applications have that nobody declares any more: those of the settings
// that are not in them, and those that such ones have declared. The others are decided on when their declarer was rendered.
func (s *System) releaseUndeclared() error {
	names, err := s.store.Applications()
	if err != nil {
		return err
	}
	declarer := map[string]string{}
	for _, name := range names {
		if r, err := s.store.Load(name); err == nil {
			declarer[name] = r.DeclaredBy
		}
	}
	s.mu.Lock()
	declared := maps.Clone(s.applications)
	s.mu.Unlock()
	for name := range declarer {
		at := name
		for range len(declarer) {
			if by, recorded := declarer[at]; declared[at] == nil && recorded && by != bySettings {
				at = by
			}
		}
		if by, recorded := declarer[at]; declared[at] == nil && recorded && by == bySettings {
			s.claims.Wants(name, nil)
		}
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
	if s.mode == Run {
		group.Go(func() error { return s.watchSuspensions(running) })
		group.Go(func() error { return s.images.Run(running) })
		if s.notifier != nil {
			group.Go(func() error { return s.notifier.Run(running) })
		}
	}
	declared, found := s.settings.Declared()
	for _, d := range found {
		s.log.Warn().Msg(d.String())
	}
	s.declare(bySettings, declared)
	if err := s.releaseUndeclared(); err != nil {
		s.log.Warn().Err(err).Msg("what is not declared any more cannot be looked for")
	}
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
		if c, ok := configs.Get(ref); ok {
			s.mu.Unlock()
			return c, true
		}
	}
	owner := s.applications[s.claims.Owner(ref)]
	s.mu.Unlock()
	if owner != nil {
		if c, ok := owner.worker.Status().Desired.Configs.Get(ref); ok {
			return c, true
		}
	}
	for _, st := range s.statuses() {
		if c, ok := st.Desired.Configs.Get(ref); ok {
			return c, true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.looked {
		if c, ok := st.Desired.Configs.Get(ref); ok {
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
	for _, m := range s.merging {
		errs = append(errs, m.source.Close())
	}
	s.merging = nil
	return errors.Join(errs...)
}
