package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/render"
)

// reason is why a child ended before its work was done.
type reason int

const (
	unknown reason = iota
	timeout
	memory
)

// child is one process. One goroutine at a time uses it.
type child struct {
	cmd    *exec.Cmd
	conn   *conn
	stdin  io.Closer
	stderr *tail
	keys   [sha256.Size]byte
	timer  *time.Timer // ends it when idle
	late   atomic.Bool // it was killed because it took too long

	run    *run
	served served

	once sync.Once
	why  reason
}

func start(o Options, keys [sha256.Size]byte) (*child, error) {
	cmd := exec.Command(o.Command[0], o.Command[1:]...)
	// No variable of the daemon's is passed on: they may hold secrets.
	cmd.Env = []string{memoryVariable + "=" + strconv.FormatInt(o.Memory, 10), "GOGC=200", "GOTRACEBACK=none", "GODEBUG=madvdontneed=1"}
	cmd.Dir = "/"
	c := &child{cmd: cmd, stderr: &tail{}, keys: keys}
	cmd.Stderr = c.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	c.stdin, c.conn = in, newConn(out, in)
	return c, nil
}

// render renders one unit. An error that is not a filesError means that the child is of no more use.
func (c *child) render(ctx context.Context, r *run, u render.Unit, limit time.Duration) (render.UnitResult, error) {
	kill := func() { _ = c.cmd.Process.Kill() } // it may have ended by itself
	stop := context.AfterFunc(ctx, kill)
	defer stop()
	alarm := time.AfterFunc(limit, func() { c.late.Store(true); kill() })
	defer alarm.Stop()
	if c.run != r {
		m := newMessage(msgJob)
		m.bytes(r.job)
		if err := c.conn.send(m); err != nil {
			return render.UnitResult{}, err
		}
		c.run, c.served = r, served{files: r.req.Files, dirs: map[string]bool{}}
	}
	if err := c.conn.send(unitMessage(u, &c.served)); err != nil {
		return render.UnitResult{}, err
	}
	for {
		kind, f, err := c.conn.receive()
		if err != nil {
			return render.UnitResult{}, err
		}
		m := newMessage(kind)
		switch kind {
		case msgList:
			c.served.list(m, f.text())
		case msgRead:
			c.served.read(m, f.text())
		case msgStat:
			c.served.stat(m, f.text())
		case msgResult:
			if f.int() == 0 {
				return render.UnitResult{}, &filesError{f.text()}
			}
			return f.result()
		default:
			return render.UnitResult{}, errProtocol
		}
		if f.err != nil {
			return render.UnitResult{}, f.err
		}
		if err := c.conn.send(m); err != nil {
			return render.UnitResult{}, err
		}
	}
}

// reads are the directories of which the child knows; what a unit that was broken off has read is below them.
func (c *child) reads(u render.Unit) []string {
	return slices.Sorted(maps.Keys(mergeKeys(c.served.dirs, u)))
}

func mergeKeys(dirs map[string]bool, u render.Unit) map[string]bool {
	out := map[string]bool{u.Dir: true, u.String(): true}
	maps.Copy(out, dirs)
	return out
}

// forget lets go of the snapshot that was rendered last.
func (c *child) forget() { c.run, c.served = nil, served{} }

// end kills the process, waits for its end and says why it ended. It may be called several times.
func (c *child) end() reason {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill() // it may have ended by itself
		_ = c.stdin.Close()
		err := c.cmd.Wait()
		var exit *exec.ExitError
		switch {
		case c.late.Load():
			c.why = timeout
		case errors.As(err, &exit) && c.stderr.saysOutOfMemory():
			c.why = memory
		}
	})
	return c.why
}

// tail keeps the beginning of what a child says about its end. It is never shown: it can quote what was rendered.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := 4096 - len(t.b); left > 0 {
		t.b = append(t.b, p[:min(left, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) saysOutOfMemory() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.b, []byte("out of memory")) || bytes.Contains(t.b, []byte("cannot allocate memory"))
}
