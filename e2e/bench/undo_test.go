package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// undo holds what has to be undone on this machine. A benchmark that ends undoes its own; when somebody interrupts
// the benchmarks, no function of theirs runs any more, and all of it is undone here. The engine is shared by
// the whole process, so this is one for the process.
var undo undoing

type undoing struct {
	mu   sync.Mutex
	todo []*func() error
}

// later undoes something when the benchmark ends, or when the process is interrupted.
func (u *undoing) later(b testing.TB, f func() error) {
	b.Helper()
	u.mu.Lock()
	u.todo = append(u.todo, &f)
	u.mu.Unlock()
	b.Cleanup(func() {
		u.mu.Lock()
		defer u.mu.Unlock() // an interruption waits for what is being undone
		for i, g := range u.todo {
			if g == &f {
				u.todo = append(u.todo[:i:i], u.todo[i+1:]...)
				if err := f(); err != nil {
					b.Errorf("clean up: %v", err)
				}
				return
			}
		}
	})
}

// onInterrupt ends the process when it is told to, with everything undone.
func (u *undoing) onInterrupt() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	go func() { // for as long as the process lives
		<-told
		fmt.Fprintln(os.Stderr, "interrupted: cleaning up")
		u.mu.Lock() // and never given back: nothing else is undone
		var errs []error
		for i := len(u.todo) - 1; i >= 0; i-- {
			errs = append(errs, (*u.todo[i])())
		}
		if err := errors.Join(append(errs, removeImages(), os.RemoveAll(binDir))...); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(130)
	}()
}

// removeImages removes the images that runtimetest made for this process.
func removeImages() error {
	ctx := context.Background()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "fairlead-test/program"))})
	errs := []error{err}
	for _, i := range all {
		for _, tag := range i.RepoTags {
			if strings.HasSuffix(tag, fmt.Sprint("-", os.Getpid())) {
				_, err := c.ImageRemove(ctx, tag, unnamed())
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
