package executor

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/fairlead-dev/fairlead/plan"
)

// ground is what the pods of a node stand on as a whole: their network.
type ground struct {
	// mu is held while the network is made or removed, so that a list that is under way does not make again
	// what is being removed.
	mu sync.Mutex
	// cleared says that the network was removed, and that no pod was made since.
	cleared atomic.Bool
}

// Clear calls remove, which removes what pods stand on; it is for a node without pods. The network is not made
// again before a pod is made that needs one.
func (n *Node) Clear(ctx context.Context, remove func(context.Context) error) error {
	n.ground.mu.Lock()
	defer n.ground.mu.Unlock()
	n.ground.cleared.Store(true)
	return remove(ctx)
}

// keepNetwork makes a network that is gone again, unless it was cleared away.
func (n *Node) keepNetwork(ctx context.Context) error {
	n.ground.mu.Lock()
	defer n.ground.mu.Unlock()
	if n.opt.Network == nil || n.opt.ReadOnly || n.ground.cleared.Load() {
		return nil
	}
	return n.opt.Network.Ensure(ctx)
}

// layNetwork makes the network that was cleared away, for a pod that needs it.
func (n *Node) layNetwork(ctx context.Context, pod *plan.Pod) error {
	if n.opt.Network == nil || pod.Spec.HostNetwork || !n.ground.cleared.Load() {
		return nil
	}
	n.ground.mu.Lock()
	defer n.ground.mu.Unlock()
	if err := n.opt.Network.Ensure(ctx); err != nil {
		return err
	}
	n.ground.cleared.Store(false)
	return nil
}
