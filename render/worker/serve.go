package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/fairlead-dev/fairlead/render"
)

// Argument is the hidden command that makes a program a child of a Pool: it calls Serve with its standard
// input and output.
const Argument = "render-worker"

// memoryVariable tells a child how many bytes of memory it may have.
const memoryVariable = "FAIRLEAD_RENDER_MEMORY"

// job is what units are rendered with.
type job struct {
	Path    string
	Options render.Options
	Keys    []string
}

// Serve renders with engine what the parent sends until stdin ends or ctx is done. It gives up, for the whole process and
// for good, nearly everything that a process can do (see Confine), so it must be all that the process does.
func Serve(ctx context.Context, stdin io.Reader, stdout io.Writer, engine *render.Engine) error {
	memory, _ := strconv.ParseInt(os.Getenv(memoryVariable), 10, 64)
	if err := confine(memory); err != nil {
		// What could not be given up is said once; what could be is given up.
		fmt.Fprintln(os.Stderr, "confine the render worker:", err)
	}
	if memory > 0 {
		debug.SetMemoryLimit(memory / 4 * 3)
	}
	// The end of input ends the process at once, even in the middle of a unit that would never end.
	in, feed := io.Pipe()
	go func() {
		_, err := io.Copy(feed, stdin)
		if stdin == os.Stdin {
			os.Exit(0)
		}
		feed.CloseWithError(errors.Join(io.EOF, err))
	}()
	defer in.Close()
	return serve(ctx, newConn(in, stdout), engine)
}

func serve(ctx context.Context, c *conn, engine *render.Engine) error {
	var req render.Request
	var files *remote
	for ctx.Err() == nil {
		kind, f, err := c.receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read what to render: %w", err)
		}
		switch kind {
		case msgJob:
			var j job
			if err := json.Unmarshal(f.bytes(), &j); err != nil {
				return fmt.Errorf("read what to render with: %w", err)
			}
			files = newRemote(c)
			req = render.Request{Files: files, Path: j.Path, Options: j.Options}
			req.AgeKeys = j.Keys
		case msgUnit:
			if files == nil {
				return fmt.Errorf("unit before job: %w", errProtocol)
			}
			u := render.Unit{Dir: f.text(), Resource: f.text()}
			how := f.int()
			u.Plain, u.Whole = how == unitPlain, how == unitWhole
			if f.int() == 1 {
				files.learn(f)
			}
			if f.err != nil {
				return f.err
			}
			res, err := engine.Unit(req, u)
			m := newMessage(msgResult)
			if err != nil {
				m.int(0)
				m.text(err.Error())
			} else {
				m.int(1)
				m.result(res)
			}
			if err := c.send(m); err != nil {
				return fmt.Errorf("send a result: %w", err)
			}
		default:
			return errProtocol
		}
	}
	return ctx.Err()
}
