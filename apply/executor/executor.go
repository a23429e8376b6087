// Package executor keeps the pods of one node true to what was asked of it, as a kubelet does: it
// creates, watches, restarts, updates and deletes them on one Docker engine.
//
// Node implements apply.Executor. Every pod has one worker (pod.go), which holds all that is known
// of the pod, is told of everything that happens, and after each message compares what is with what
// has to be (advance). Calls to the engine run beside the worker and report back to it, so a worker
// always hears what happens. Nothing polls: the engine's events, the verdicts of probes and timers
// drive everything.
//
// The engine is the record: labels say what a pod is, and its containers say what became of it. What
// changes while a pod lives (deadlines, in-place updates) is in small files below StateDir, and so is
// every Service: serving.go joins Services and pods to what the node's registries are set to.
package executor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
	"github.com/fairlead-dev/fairlead/runtimes/probes"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// Network wires pods. *networking.Network is one.
type Network interface {
	// Name is the engine's network that pods with host ports join.
	Name() string
	// Ensure makes the network exist.
	Ensure(ctx context.Context) error
	// Allocate chooses an address that is not in used.
	Allocate(used []netip.Addr) (netip.Addr, error)
	// Attach wires the network namespace of process pid; doing it again changes nothing.
	Attach(ctx context.Context, pid int, uid string, ip netip.Addr) error
	// Adopt changes the network namespace of process pid, which the engine wired, so that its packets to other pods go
	// through the host; doing it again changes nothing.
	Adopt(ctx context.Context, pid int) error
	// Detach removes a pod's link; a missing one is not an error.
	Detach(ctx context.Context, uid string) error
	// Strays removes the links of pods that are not in keep.
	Strays(ctx context.Context, keep []string) (removed []string, err error)
}

// Volumes makes what pods mount. *volumes.Volumes is one.
type Volumes interface {
	Prepare(ctx context.Context, pod *plan.Pod, uid string, facts volumes.Facts) error
	Mounts(ctx context.Context, pod *plan.Pod, uid string, c *corev1.Container, expand func(expr string) (string, error)) ([]runtimes.Mount, error)
	Update(ctx context.Context, pod *plan.Pod, uid string, facts volumes.Facts) (changed []string, err error)
	Mounted(uid string) (map[object.Ref]string, error)
	Usage(ctx context.Context, pod *plan.Pod, uid string) (map[string]int64, error)
	WriteFile(uid, name string, data []byte) (hostPath string, err error)
	TerminationLog(uid, container string, attempt int) (hostPath string, err error)
	ReadTerminationLog(uid, container string, attempt int, limit int64) (string, error)
	Remove(ctx context.Context, uid string) error
	Strays(ctx context.Context, keep []string) (removed []string, err error)
}

// Prober makes probes and runs lifecycle hooks. *probes.Runner is one.
type Prober interface {
	probes.Prober
	Hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, t probes.Target) error
}

// Policies bound whom pods reach and who reaches them. PodSeen, PodGone and Adopted do not block, and do not call the Node.
type Policies interface {
	// PodSeen takes how a pod is now; the pod is shared and never changes.
	PodSeen(pod *plan.ObservedPod)
	// PodGone takes that a pod is gone: its address is free.
	PodGone(uid string)
	// Adopted takes that every pod that was there before this process has been seen. It may be called again.
	Adopted()
	// Admit returns when what bounds a pod is in force. With an error the pod does not start.
	Admit(ctx context.Context, uid string) error
}

// noPolicies bound nothing.
type noPolicies struct{}

func (noPolicies) PodSeen(*plan.ObservedPod)           {}
func (noPolicies) PodGone(string)                      {}
func (noPolicies) Adopted()                            {}
func (noPolicies) Admit(context.Context, string) error { return nil }

// Options make a Node.
type Options struct {
	// ID names the node, to pods too.
	ID     plan.NodeID
	Engine runtimes.Engine
	// Network may be nil: then pods have a network namespace without any link.
	Network Network
	Volumes Volumes
	// Probes may be nil: then they are made from this machine's network.
	Probes Prober
	// StateDir is where the files of pods are kept.
	StateDir string
	// ReadOnly makes a Node that looks and changes nothing: no call that changes the engine, no file, no probe.
	ReadOnly bool
	// DNS is what pods' resolv.conf files are made from.
	DNS networking.DNS
	// HostIPs are the node's addresses, the main one first.
	HostIPs []string
	// SeccompDir holds the profiles of seccomp type Localhost.
	SeccompDir string
	// DockerConfig is a docker config.json whose auths are used where no imagePullSecret fits; credential
	// helpers are not run. It may be missing.
	DockerConfig string
	// Config looks up a ConfigMap or Secret as it is desired now. It is asked for what a pod needs when the
	// pod was adopted after a restart, because values are not kept in files. It may be nil.
	Config func(object.Ref) (plan.Config, bool)
	// Suspended reports whether an object is left as it is: then what is done by hand to containers of its pods stays. It
	// may be nil, and must not call the Node. Recheck has the pods ask again.
	Suspended func(owner object.Ref) bool
	// Slots bounds how many containers are created, started or removed at a time; 0 means twice the
	// engine's processors.
	Slots int
	// OnEvent is told what happens to pods, in Kubernetes' words. It must not block.
	OnEvent func(Event)
	// OnTrouble is told of errors that concern no pod. It must not block.
	OnTrouble func(error)
	// Policies bound pods with an address of their own. It may be nil.
	Policies Policies
	// Registries are what the node's Services are served by.
	Registries []Registered
	// Gather is how long changes are gathered before a registry is set to them, so that those that come together, as a
	// list of the engine's containers brings them, are one; 0 sets a registry at once.
	Gather time.Duration
}

// Node runs pods on one engine. Its methods may be called from any goroutine.
type Node struct {
	opt     Options
	images  *images
	prober  Prober
	probes  *probes.Manager
	serving *serving
	storage *storage
	// lowestOOM is the lowest oom_score_adj that containers can have here.
	lowestOOM int
	// hasIPv6 is true where the kernel speaks it.
	hasIPv6 bool
	ground  ground

	// ctx ends with Close: nothing new begins. calls ends a while later: what changes the engine may
	// finish until then.
	ctx         context.Context
	cancel      context.CancelFunc
	calls       context.Context
	cancelCalls context.CancelFunc
	wg          sync.WaitGroup

	relist chan struct{} // asks for a complete list
	synced chan struct{} // closed by sync
	sync   func()        // called after the first attempt to list and, where it succeeded, adopt; and again

	mu       sync.Mutex
	slots    chan struct{}
	info     runtimes.EngineInfo
	pods     map[string]*pod // by UID
	stale    bool
	staleErr error                // why the engine does not answer
	away     time.Time            // when it was last found not to answer, after it had; zero when it never was
	gap      bool                 // events may have been lost since the last list
	adopted  bool                 // the engine was listed with success
	dropped  map[string]time.Time // pods that are gone, since when: an older list says nothing of them
	orphans  map[string]time.Time // pods whose containers nobody knows, since when
	paused   map[string]bool      // ids of containers that somebody paused
	state    *plan.NodeState      // nil when it has to be built again
	watchers map[chan struct{}]struct{}
	closed   bool
}

// callTimeout bounds every call that changes the engine. An engine that takes longer hangs, and the
// outcome is unknown: the call is made again, which is safe because names are deterministic.
const callTimeout = 2 * time.Minute

// closeGrace is how long Close lets calls in flight finish.
const closeGrace = 10 * time.Second

// New returns a Node that begins to observe and to adopt at once. It fails only when StateDir cannot
// be used. Close it after use.
func New(o Options) (*Node, error) {
	if o.ID == "" || o.Engine == nil || o.Volumes == nil || o.StateDir == "" {
		return nil, errors.New("a node needs an ID, an engine, volumes and a state directory")
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.OnTrouble == nil {
		o.OnTrouble = func(error) {}
	}
	if o.Config == nil {
		o.Config = func(object.Ref) (plan.Config, bool) { return plan.Config{}, false }
	}
	if o.Policies == nil {
		o.Policies = noPolicies{}
	}
	if o.Suspended == nil {
		o.Suspended = func(object.Ref) bool { return false }
	}
	files := serviceFiles{dir: filepath.Join(o.StateDir, "services")}
	if !o.ReadOnly {
		if err := files.make(); err != nil {
			return nil, err
		}
		for _, dir := range []string{"pods", "storage"} {
			if err := os.MkdirAll(filepath.Join(o.StateDir, dir), 0o700); err != nil {
				return nil, fmt.Errorf("make the directory for %s: %w", dir, err)
			}
		}
		for _, dir := range []string{"pods", "services", "storage"} {
			if err := removeHalfWritten(filepath.Join(o.StateDir, dir)); err != nil {
				return nil, fmt.Errorf("remove what was written by half: %w", err)
			}
		}
	}
	n := &Node{
		opt: o, pods: map[string]*pod{}, watchers: map[chan struct{}]struct{}{}, stale: true, gap: true,
		staleErr: errUnseen, paused: map[string]bool{}, dropped: map[string]time.Time{},
		relist: make(chan struct{}, 1), synced: make(chan struct{}),
		slots: make(chan struct{}, max(o.Slots, 1)),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.calls, n.cancelCalls = context.WithCancel(context.Background())
	n.lowestOOM = readLowestOOMScore()
	_, err := os.Stat("/proc/sys/" + strings.ReplaceAll(ipv6Default, ".", "/"))
	n.hasIPv6 = err == nil
	n.images = newImages(n)
	n.prober = o.Probes
	if n.prober == nil {
		n.prober = probes.NewRunner(n.execForProbe)
	}
	n.probes = probes.NewManager(watchedProber{n}, n.onVerdict)
	n.sync = sync.OnceFunc(func() { close(n.synced) })
	n.serving = newServing(o.ID, files, o.Registries)
	n.serving.load(o.OnTrouble)
	n.storage = newStorage(filepath.Join(o.StateDir, "storage"), o.OnTrouble)
	if !o.ReadOnly {
		for _, r := range n.serving.registries {
			n.wg.Go(func() { n.keep(r) })
		}
	}
	n.wg.Go(n.follow)
	n.wg.Go(n.lists)
	return n, nil
}

// Close lets go of the pods: they run on, unwatched. It returns when nothing is under way any more.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	timer := time.AfterFunc(closeGrace, n.cancelCalls)
	defer timer.Stop()
	n.probes.Close()
	n.wg.Wait()
	n.cancelCalls()
	return nil
}

// errUnseen: the engine has not been looked at yet.
var errUnseen = errors.New("the engine has not answered yet")

// errClosed is returned by calls after Close.
var errClosed = errors.New("the node is closed")

// call returns the context of a call that changes the engine.
func (n *Node) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(n.calls, callTimeout)
}

// slot waits for one of the node's slots for heavy calls and returns how to give it back.
func (n *Node) slot(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err // also where a slot is free
	}
	n.mu.Lock()
	slots := n.slots
	n.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Recheck has every pod look again at what is to be done, because something changed that no event tells of.
func (n *Node) Recheck() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		p.tell(func() {})
	}
}

// Slots implements apply.Slots.
func (n *Node) Slots() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cap(n.slots)
}

func (n *Node) execForProbe(ctx context.Context, t probes.Target, cmd []string) (int, []byte, error) {
	r, err := n.opt.Engine.Exec(ctx, t.ContainerID, cmd, 16<<10)
	return r.ExitCode, r.Output, err
}
