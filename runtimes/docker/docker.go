// Package docker runs containers on a Docker engine. It is the only package that speaks to one.
//
// Every container that it makes carries its identity in labels, with a keyed MAC over all of it and over what
// the container was made from; a container whose MAC does not fit is not ours, and is neither shown nor touched.
// The body of every create call is built from the allow-list that runtimes.ContainerSpec is.
package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Options say which engine is spoken to, and as whom.
type Options struct {
	// Host is the engine's address; empty for DOCKER_HOST or the local engine.
	Host string
	// Key, of 32 bytes, proves ownership.
	Key []byte
	// Installation begins the names of containers and tells installations on one engine apart: a letter or a
	// digit, then letters, digits, '_', '.' and '-'.
	Installation string
	// ReadOnly refuses every call that would change something, before it reaches the engine.
	ReadOnly bool
}

// Engine is a runtimes.Engine. Its methods may be called from any goroutine. No call waits for ever for an
// engine that hangs, whatever its context says; only what is long by nature, which are pulls, logs that are
// followed, events and commands, has no bound once the engine has answered.
type Engine struct {
	opt       Options
	cli       *client.Client
	transport *http.Transport
	bounds    bounds
	checking  chan struct{} // holds one: who looks at the engine's version
	checked   atomic.Bool
	making    chan struct{} // holds one: who makes the sandbox image
	memory    memory
	work      sync.WaitGroup // ends commands that were given up

	mu      sync.Mutex
	sandbox string             // id of the sandbox image, once it is known to be present
	drop    context.CancelFunc // ends the connection that events come over
}

var _ runtimes.Engine = (*Engine)(nil)

// installationName is what the engine allows names to begin with.
var installationName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// New returns an Engine. It does not speak to it yet, so the engine need not run.
func New(o Options) (*Engine, error) {
	if len(o.Key) != 32 {
		return nil, errors.New("an engine needs a key of 32 bytes")
	}
	if len(o.Installation) > 63 || !installationName.MatchString(o.Installation) {
		return nil, fmt.Errorf("the installation's name %q begins the names of containers: it must begin with a letter or a digit, go on with letters, digits, '_', '.' and '-', and have at most 63 bytes",
			o.Installation)
	}
	e := &Engine{opt: o, bounds: bounds{read: 30 * time.Second, change: 2 * time.Minute}, checking: make(chan struct{}, 1), making: make(chan struct{}, 1)}
	e.memory.init()
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation(), client.WithUserAgent("fairlead")}
	if o.Host != "" {
		opts = append(opts, client.WithHost(o.Host))
	}
	cli, err := client.NewClientWithOpts(append(opts, e.tune)...)
	if err != nil {
		return nil, fmt.Errorf("address of the Docker engine: %w", err)
	}
	e.cli = cli
	return e, nil
}

// tune sets up the connections. The client hides them once it is made.
func (e *Engine) tune(c *client.Client) error {
	t, ok := c.HTTPClient().Transport.(*http.Transport)
	if !ok {
		return fmt.Errorf("connections of type %T cannot be set up", c.HTTPClient().Transport)
	}
	// Many calls run at the same time; connections that are kept spare the engine most of a call.
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 32, 32, time.Minute
	e.transport = t
	return nil
}

// Close releases the connections.
func (e *Engine) Close() error {
	e.work.Wait()
	return e.cli.Close()
}

// Info describes the engine.
func (e *Engine) Info(ctx context.Context) (runtimes.EngineInfo, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return runtimes.EngineInfo{}, e.wrap(ctx, "ask the engine what it is", err)
	}
	info, err := e.cli.Info(ctx)
	if err != nil {
		return runtimes.EngineInfo{}, e.wrap(ctx, "ask the engine what it is", err)
	}
	return runtimes.EngineInfo{
		Name: info.Name, Version: info.ServerVersion, APIVersion: e.cli.ClientVersion(), CPUs: info.NCPU,
		MemoryBytes: info.MemTotal, CgroupV2: info.CgroupVersion == "2", Root: info.DockerRootDir,
		AppArmor: slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=apparmor") }),
	}, nil
}

// errReadOnly is what changing calls of a read-only Engine return.
var errReadOnly = errors.New("this fairlead only reads: nothing on the engine may be changed")

// mayChange is called before everything that changes something.
func (e *Engine) mayChange(ctx context.Context) error {
	if e.opt.ReadOnly {
		return errReadOnly
	}
	return ctx.Err()
}
