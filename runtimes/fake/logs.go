package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

type line struct {
	at     time.Time
	text   string
	stderr bool
}

func (c *container) print(text string, stderr bool) {
	end := "\n"
	if c.spec.TTY {
		end, stderr = "\r\n", false
	}
	c.lines = append(c.lines, line{time.Now(), text + end, stderr})
}

// Print makes a container's process write a line.
func (e *Engine) Print(id, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		c.print(text, false)
		e.change()
	}
}

// Logs implements runtimes.Engine.
func (e *Engine) Logs(ctx context.Context, id string, opt runtimes.LogOptions, stdout, stderr io.Writer) error {
	var c *container
	if err := e.call(ctx, Call{Kind: CallLogs, Target: id}, func() (err error) {
		c, err = e.ours(id)
		return err
	}); err != nil {
		return err
	}
	first := true
	for at := 0; ; {
		e.mu.Lock()
		lines, running, changed := c.lines[at:], c.Running && !e.closed, e.changed
		at = len(c.lines)
		e.mu.Unlock()
		if n := len(lines) - opt.Tail; first && opt.Tail >= 0 && n > 0 {
			lines = lines[n:]
		}
		first = false
		for _, l := range lines {
			if l.at.Before(opt.Since) {
				continue
			}
			if err := l.write(opt, stdout, stderr); err != nil {
				return fmt.Errorf("copy the log: %w", err)
			}
		}
		if !opt.Follow || !running {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(runtimes.ErrUnavailable, ctx.Err())
		}
	}
}

func (l line) write(opt runtimes.LogOptions, stdout, stderr io.Writer) error {
	w := stdout
	if l.stderr {
		w = stderr
	}
	if w == nil {
		return nil
	}
	text := l.text
	if opt.Timestamps {
		text = l.at.UTC().Format(time.RFC3339Nano) + " " + text
	}
	_, err := io.WriteString(w, text)
	return err
}
