package docker

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Logs copies a container's log.
func (e *Engine) Logs(ctx context.Context, id string, opt runtimes.LogOptions, stdout, stderr io.Writer) error {
	doing := "read the log of container " + short(id)
	terminal, err := e.tty(ctx, id)
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	o := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: opt.Follow, Timestamps: opt.Timestamps, Tail: "all"}
	if opt.Tail >= 0 {
		o.Tail = strconv.Itoa(opt.Tail)
	}
	if !opt.Since.IsZero() {
		o.Since = fmt.Sprintf("%d.%09d", opt.Since.Unix(), opt.Since.Nanosecond())
	}
	var stream io.ReadCloser
	stop, err := e.answered(ctx, func(ctx context.Context) (err error) {
		stream, err = e.cli.ContainerLogs(ctx, id, o)
		return err
	})
	defer stop()
	if stream != nil {
		defer stream.Close()
	}
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	if terminal {
		_, err = io.Copy(stdout, stream)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
	}
	return e.wrap(ctx, doing, err)
}

// tty reports whether a container of ours has a terminal, so that its log is one stream.
func (e *Engine) tty(ctx context.Context, id string) (bool, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return false, err
	}
	r, _, err := e.ask(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			err = e.wrap(ctx, "inspect it", err)
		}
		return false, err
	}
	return r.Config.Tty, nil
}
