package docker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// bounds are how long an engine may take to answer before it counts as hanging.
type bounds struct{ read, change time.Duration }

// minAPI is the oldest version of the engine's API that fairlead speaks, that of Docker 20.10.
const minAPI = "1.41"

// errHangs is the cause of the end of a call whose bound is over.
var errHangs = errors.New("no answer in time")

// begin bounds a call, and before the first one makes sure that the engine can be spoken to. A bound of 0 is
// none. The function that it returns must be called, with or without an error.
func (e *Engine) begin(ctx context.Context, bound time.Duration) (context.Context, context.CancelFunc, error) {
	var cancel context.CancelFunc
	if bound > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, bound, errHangs)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	return ctx, cancel, e.check(ctx)
}

// check agrees with the engine on a version of its API, once.
func (e *Engine) check(ctx context.Context) error {
	if e.checked.Load() {
		return nil
	}
	select {
	case e.checking <- struct{}{}:
		defer func() { <-e.checking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.checked.Load() {
		return nil
	}
	if err := e.ping(ctx, true); err != nil {
		return err
	}
	if v := e.cli.ClientVersion(); versions.LessThan(v, minAPI) {
		return fmt.Errorf("%w: the engine at %s speaks version %s of the API, and fairlead needs %s: update it to Docker 20.10 or newer",
			runtimes.ErrInvalid, e.cli.DaemonHost(), v, minAPI)
	}
	e.checked.Store(true)
	return nil
}

// ping returns an error unless the engine answers within the bound of a read.
func (e *Engine) ping(ctx context.Context, negotiate bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.bounds.read, errHangs)
	defer cancel()
	ping, err := e.cli.Ping(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errHangs) {
		return e.hangs()
	}
	if err == nil && negotiate {
		e.cli.NegotiateAPIVersionPing(ping)
	}
	return err
}

// answered calls the engine for something that goes on after its answer, which the bound of a read is for.
// The context that call gets ends with the function that is returned.
func (e *Engine) answered(ctx context.Context, call func(context.Context) error) (context.CancelFunc, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(e.bounds.read, func() { cancel(errHangs) })
	err := call(ctx)
	if !timer.Stop() && errors.Is(context.Cause(ctx), errHangs) {
		err = e.hangs()
	}
	return func() { cancel(nil) }, err
}

func (e *Engine) hangs() error {
	return fmt.Errorf("%w: the Docker engine at %s took the request and did not answer it in time: it hangs or has too much to do; see its log",
		runtimes.ErrUnavailable, e.cli.DaemonHost())
}

// wrap says what was being done and adds the class that callers act on.
func (e *Engine) wrap(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errHangs):
		return fmt.Errorf("%s: %w", doing, e.hangs())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	return fmt.Errorf("%s: %w", doing, e.classify(err))
}

// classes are those that need no finding out.
var classes = []error{
	runtimes.ErrNotFound, runtimes.ErrConflict, runtimes.ErrUnavailable, runtimes.ErrInvalid, runtimes.ErrDenied, runtimes.ErrDiskFull,
}

// takenPort finds the host port in what the engine says of one that is taken: by another container, or by a
// program on the host.
var takenPort = regexp.MustCompile(
	`(?:Bind for|listen (?:tcp|udp|sctp)[46]?|failed to bind host port(?: for)?) (\[[^\]\s]*\]:\d+|[^\s:]+:\d+)\S* (?:failed: port is already allocated|(?:bind: )?address already in use)`)

// classify adds the class. Errors of registries are classified by registryError first.
func (e *Engine) classify(err error) error {
	for _, class := range classes {
		if errors.Is(err, class) {
			return err
		}
	}
	class := error(nil)
	text := err.Error()
	var network net.Error
	switch {
	// For a full disk and a taken port the engine has no class, only these texts.
	case strings.Contains(text, "no space left on device"), strings.Contains(text, "disk quota exceeded"):
		class = runtimes.ErrDiskFull
	case takenPort.MatchString(text):
		return fmt.Errorf("%w: the host port %s is taken by another container or program: %w", runtimes.ErrConflict, takenPort.FindStringSubmatch(text)[1], err)
	case client.IsErrConnectionFailed(err), errors.As(err, &network), errdefs.IsUnavailable(err),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: %w (is the Docker engine running at %s?)", runtimes.ErrUnavailable, err, e.cli.DaemonHost())
	case errdefs.IsNotFound(err):
		class = runtimes.ErrNotFound
	case errdefs.IsConflict(err), errdefs.IsNotModified(err):
		class = runtimes.ErrConflict
	case errdefs.IsInvalidArgument(err), errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err):
		class = runtimes.ErrInvalid
	default:
		return err
	}
	return fmt.Errorf("%w: %w", class, err)
}

// registryError adds the class of what a registry answered. The engine passes it on as a text, under
// various classes, and in the stream of messages without any.
func registryError(err error) error {
	if err == nil || client.IsErrConnectionFailed(err) {
		return err
	}
	text := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("pull access denied", "unauthorized", "no basic auth credentials", "denied: ", "403 Forbidden", "401 Unauthorized"),
		errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return fmt.Errorf("%w: %w", runtimes.ErrDenied, err)
	case has("manifest unknown", "name unknown", "not found") && !has("no such host", "server misbehaving"):
		return fmt.Errorf("%w: %w", runtimes.ErrNotFound, err)
	}
	return err
}

// withoutCredentials returns an error whose text holds none of what was sent to a registry: some repeat a whole request
// in their answer.
func withoutCredentials(err error, auth *runtimes.Auth) error {
	if err == nil || auth == nil {
		return err
	}
	plain, _ := base64.StdEncoding.DecodeString(auth.Auth) // user:password
	user, password, _ := strings.Cut(string(plain), ":")
	text := err.Error()
	for _, secret := range []string{
		auth.Auth, base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password)),
		base64.StdEncoding.EncodeToString([]byte(user + ":" + password)), auth.Password, password, auth.IdentityToken,
	} {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return &redacted{text, err}
}

// redacted is an error with another text.
type redacted struct {
	text string
	err  error
}

func (r *redacted) Error() string { return r.text }
func (r *redacted) Unwrap() error { return r.err }
