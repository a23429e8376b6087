// Package docker runs containers on a Docker engine. It is the only package that speaks to one.
//
// Every container that it makes carries its identity in labels, with a keyed MAC over all of it; a container
// whose MAC does not fit is not ours, and is neither shown nor touched. The body of every create call is
// built from the allow-list that runtimes.ContainerSpec is.
package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Options say which engine is spoken to, and as whom.
type Options struct {
	// Host is the engine's address; empty for DOCKER_HOST or the local engine.
	Host string
	// Key, of 32 bytes, proves ownership.
	Key []byte
	// Installation begins the names of containers and tells installations on one engine apart.
	Installation string
	// ReadOnly refuses every call that would change something, before it reaches the engine.
	ReadOnly bool
}

// Engine is a runtimes.Engine. Its methods may be called from any goroutine.
type Engine struct {
	opt Options
	cli *client.Client

	mu      sync.Mutex
	sandbox string                        // id of the sandbox image, once it is known to be present
	known   map[string]runtimes.Container // what was inspected and cannot have changed since, by id
	drop    context.CancelFunc            // ends the connection that events come over
	watched bool                          // events flow, so that what changes leaves known
	changes uint64                        // counts what left known, so that an inspection that was overtaken is not kept
}

var _ runtimes.Engine = (*Engine)(nil)

// New returns an Engine. It does not speak to it yet, so the engine need not run.
func New(o Options) (*Engine, error) {
	if len(o.Key) != 32 || o.Installation == "" {
		return nil, errors.New("an engine needs a key of 32 bytes and the name of an installation")
	}
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation(), client.WithUserAgent("fairlead")}
	if o.Host != "" {
		opts = append(opts, client.WithHost(o.Host))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("address of the Docker engine: %w", err)
	}
	if t, ok := cli.HTTPClient().Transport.(*http.Transport); ok {
		// Many calls run at the same time; connections that are kept spare the engine most of a call.
		t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 32, 32, time.Minute
	}
	return &Engine{opt: o, cli: cli, known: map[string]runtimes.Container{}}, nil
}

// Close releases the connections.
func (e *Engine) Close() error { return e.cli.Close() }

// Info describes the engine.
func (e *Engine) Info(ctx context.Context) (runtimes.EngineInfo, error) {
	info, err := e.cli.Info(ctx)
	if err != nil {
		return runtimes.EngineInfo{}, e.wrap(ctx, "ask the engine what it is", err)
	}
	return runtimes.EngineInfo{
		Name: info.Name, Version: info.ServerVersion, APIVersion: e.cli.ClientVersion(), CPUs: info.NCPU,
		MemoryBytes: info.MemTotal, CgroupV2: info.CgroupVersion == "2", Root: info.DockerRootDir,
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

// wrap says what was being done and adds the class that callers act on.
func (e *Engine) wrap(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	return fmt.Errorf("%s: %w", doing, e.classify(err))
}

func (e *Engine) classify(err error) error {
	class := error(nil)
	text := err.Error()
	var network net.Error
	switch {
	// The engine has no class for a full disk and for what a registry says, only these texts.
	case strings.Contains(text, "no space left on device"), strings.Contains(text, "disk quota exceeded"):
		class = runtimes.ErrDiskFull
	case client.IsErrConnectionFailed(err), errors.As(err, &network), errdefs.IsUnavailable(err):
		return fmt.Errorf("%w: %w (is the Docker engine running at %s?)", runtimes.ErrUnavailable, err, e.cli.DaemonHost())
	case strings.Contains(text, "pull access denied"), strings.Contains(text, "unauthorized"), strings.Contains(text, "no basic auth credentials"),
		strings.Contains(text, "denied: "), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		class = runtimes.ErrDenied
	case errdefs.IsNotFound(err):
		class = runtimes.ErrNotFound
	case errdefs.IsConflict(err), errdefs.IsNotModified(err):
		class = runtimes.ErrConflict
	case errdefs.IsInvalidArgument(err):
		class = runtimes.ErrInvalid
	default:
		return err
	}
	return fmt.Errorf("%w: %w", class, err)
}
