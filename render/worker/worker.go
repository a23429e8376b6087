// Package worker renders in child processes, since a repository is hostile and kustomize is neither bounded in
// memory and time nor safe to be run twice at once in one process.
//
// A child is the same program started with Argument. It inherits no environment and no files but three pipes,
// gives up what it can (see confine) and gets the snapshot's files only by asking its parent. One that takes too
// long or too much memory is killed and replaced; the unit that it was rendering gets a diagnostic.
package worker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Options are how a Pool works. Only Command is needed.
type Options struct {
	// Command starts a child: a program that calls Serve, and its arguments.
	Command []string
	// Children is how many run at most at once; the number of processors that Go uses when 0.
	Children int
	// Timeout is how long one unit may take, a minute when 0.
	Timeout time.Duration
	// Memory is how many bytes of data a child may have, 448 MiB when 0.
	Memory int64
	// Idle is after what time a child without work ends, 30 seconds when 0.
	Idle time.Duration
}

// Pool renders units in child processes. It starts them when they are needed.
type Pool struct {
	opt   Options
	slots chan struct{}

	mu     sync.Mutex
	idle   []*child // the one that was used last is last
	closed bool
	used   sync.WaitGroup // children that are neither idle nor ended
}

var _ render.Runner = (*Pool)(nil)

// NewPool returns a pool without children.
func NewPool(o Options) *Pool {
	if o.Children <= 0 {
		o.Children = runtime.GOMAXPROCS(0)
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Memory <= 0 {
		o.Memory = 448 << 20
	}
	if o.Idle <= 0 {
		o.Idle = 30 * time.Second
	}
	return &Pool{opt: o, slots: make(chan struct{}, o.Children)}
}

// chunk is how many units a child renders before another rendering gets its turn.
const chunk = 16

// ErrClosed is what Run returns after Close.
var ErrClosed = errors.New("the render workers are closed")

// run is one call of Run.
type run struct {
	req   render.Request
	units []render.Unit
	next  atomic.Int64
	job   []byte
	// keys identify the decryption keys that a child gets; a child that has any serves no others.
	keys    [sha256.Size]byte
	results chan outcome
}

type outcome struct {
	i int
	r render.UnitResult
}

// Run renders units in children, several at once. Several Runs share the children.
func (p *Pool) Run(ctx context.Context, req render.Request, units []render.Unit, each func(i int, r render.UnitResult)) error {
	if len(units) == 0 {
		return nil
	}
	b, err := json.Marshal(job{Path: req.Path, Options: req.Options, Keys: req.AgeKeys})
	if err != nil {
		return fmt.Errorf("pass on options: %w", err)
	}
	r := &run{req: req, units: units, job: b, results: make(chan outcome, 2*chunk)}
	if len(req.AgeKeys) > 0 {
		r.keys = sha256.Sum256([]byte(strings.Join(req.AgeKeys, "\n")))
	}
	// A child costs more to start than some units cost to render.
	n := min(p.opt.Children, (len(units)+chunk-1)/chunk)
	group, ctx := errgroup.WithContext(ctx)
	for range n {
		group.Go(func() error { return p.work(ctx, r) })
	}
	done := make(chan error, 1)
	go func() { done <- group.Wait(); close(r.results) }()
	for o := range r.results {
		each(o.i, o.r)
	}
	return <-done
}

// work renders units of r until none is left.
func (p *Pool) work(ctx context.Context, r *run) error {
	for int(r.next.Load()) < len(r.units) {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := p.some(ctx, r)
		<-p.slots
		if err != nil {
			return err
		}
	}
	return nil
}

// some renders a few units in one child.
func (p *Pool) some(ctx context.Context, r *run) error {
	var c *child
	defer func() {
		if c != nil {
			p.give(c)
		}
	}()
	for range chunk {
		i := int(r.next.Add(1)) - 1
		if i >= len(r.units) {
			return nil
		}
		var res render.UnitResult
		for try := 0; ; try++ {
			if c == nil {
				var err error
				if c, err = p.take(r.keys, try > 0); err != nil {
					return err
				}
			}
			var err error
			res, err = c.render(ctx, r, r.units[i], p.opt.Timeout)
			if err == nil {
				break
			}
			reads := c.reads(r.units[i])
			why := c.end()
			p.used.Done()
			c = nil
			var failed *filesError
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.As(err, &failed):
				return err
			case why == unknown && try == 0:
				continue // it may have been killed while it was idle, or for want of memory elsewhere
			}
			res = render.UnitResult{Diags: diag.List{p.explain(r.units[i], why)}, Reads: reads}
			break
		}
		select {
		case r.results <- outcome{i, res}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// explain says why a unit could not be rendered.
func (p *Pool) explain(u render.Unit, why reason) diag.Diagnostic {
	d := diag.Diagnostic{Severity: diag.Error, Code: "render-stopped", Origin: object.Origin{Path: u.String()}}
	switch why {
	case timeout:
		d.Message = fmt.Sprintf("rendering it took longer than %s and was stopped", p.opt.Timeout)
		d.Hint = "look for what multiplies itself (bases used many times, huge generated files), or split it"
	case memory:
		d.Message = fmt.Sprintf("rendering it needed more than %d MiB of memory and was stopped", p.opt.Memory>>20)
		d.Hint = "look for what multiplies itself (bases used many times, huge generated files), or split it"
	case unknown:
		d.Message = "the process that rendered it broke down, twice"
		d.Hint = "see whether the machine is out of memory; `kustomize build` of the same directory may say more"
	}
	return d
}

// take returns an idle child, or a new one.
func (p *Pool) take(keys [sha256.Size]byte, fresh bool) (*child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	for i, c := range slices.Backward(p.idle) {
		if fresh || (c.keys != [sha256.Size]byte{} && c.keys != keys) {
			continue
		}
		if !c.timer.Stop() {
			continue // it is about to end
		}
		p.idle = slices.Delete(p.idle, i, i+1)
		p.used.Add(1)
		if c.keys == [sha256.Size]byte{} {
			c.keys = keys
		}
		return c, nil
	}
	if len(p.idle) > 0 && len(p.idle)+len(p.slots) > p.opt.Children {
		// Those that are idle hold keys of others.
		if c := p.idle[0]; c.timer.Stop() {
			p.idle = p.idle[1:]
			c.end()
		}
	}
	c, err := start(p.opt, keys)
	if err != nil {
		return nil, err
	}
	p.used.Add(1)
	return c, nil
}

// give makes a child idle.
func (p *Pool) give(c *child) {
	defer p.used.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.end()
		return
	}
	c.forget()
	c.timer = time.AfterFunc(p.opt.Idle, func() {
		p.mu.Lock()
		p.idle = slices.DeleteFunc(p.idle, func(x *child) bool { return x == c })
		p.mu.Unlock()
		c.end()
	})
	p.idle = append(p.idle, c)
}

// Close ends the children. Renderings that are under way fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		c.timer.Stop()
		c.end()
	}
	p.used.Wait()
	return nil
}

// filesError is a failure to read the snapshot, as opposed to one of the child.
type filesError struct{ msg string }

func (e *filesError) Error() string { return e.msg }

// unitMessage is a unit and what is likely to be read for it first.
func unitMessage(u render.Unit, s *served) *message {
	m := newMessage(msgUnit)
	m.text(u.Dir)
	m.text(u.Resource)
	how, dir := unitKustomization, u.String()
	switch {
	case u.Plain:
		how, dir = unitPlain, u.Dir
	case u.Whole:
		how = unitWhole
	}
	m.int(how)
	if s.dirs[dir] || !fs.ValidPath(dir) || dir == ".." || path.IsAbs(dir) {
		m.int(0)
		return m
	}
	m.int(1)
	s.list(m, dir)
	return m
}
