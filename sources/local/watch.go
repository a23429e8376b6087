package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watching says how directories are watched.
type watching struct {
	recursive bool
	// quiet is how long nothing must have happened before wake is called, limit how long that may be put off.
	quiet, limit time.Duration
	// skip leaves out files and directories.
	skip func(name string) bool
	// began is called when everything is watched, touched for a path below a root that changed, after what is new there is
	// watched as well, and missed when changes were lost. All three may be nil.
	began   func()
	touched func(root, at string, replaced bool)
	missed  func()
}

// WatchDirs calls wake after changes in any of the directories and what is below them, until ctx ends. Changes of
// files for which skip returns true do not count, directories for which it does are not watched.
func WatchDirs(ctx context.Context, dirs []string, skip func(name string) bool, wake func()) error {
	return watch(ctx, dirs, watching{recursive: true, quiet: 2 * time.Millisecond, limit: 50 * time.Millisecond, skip: skip}, wake)
}

// exhausted reports whether the system has no watches left.
func exhausted(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func watch(ctx context.Context, roots []string, how watching, wake func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch directory: %w", err)
	}
	defer w.Close()
	var reals []string
	for _, root := range roots {
		real, err := filepath.EvalSymlinks(root)
		if err != nil {
			return fmt.Errorf("watch directory: %w", err)
		}
		if err := add(w, real, how); err != nil {
			return fmt.Errorf("watch directory %s: %w", root, err)
		}
		reals = append(reals, real)
	}
	if how.began != nil {
		how.began()
	}
	// What changed before the watches were set is nobody's event.
	wake()
	var quiet, limit *time.Timer
	var quietC, limitC <-chan time.Time
	stop := func() {
		if quiet != nil {
			quiet.Stop()
			limit.Stop()
		}
		quiet, limit, quietC, limitC = nil, nil, nil, nil
	}
	defer stop()
	changed := func() {
		if quiet == nil {
			quiet, limit = time.NewTimer(how.quiet), time.NewTimer(how.limit)
			quietC, limitC = quiet.C, limit.C
			return
		}
		quiet.Reset(how.quiet)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watch directory: the watch has ended")
			}
			if how.skip(e.Name) || e.Op == fsnotify.Chmod && !exists(e.Name) {
				continue
			}
			if e.Has(fsnotify.Create) && how.recursive {
				if err := add(w, e.Name, how); exhausted(err) {
					return fmt.Errorf("watch directory %s: %w", e.Name, err)
				}
			}
			if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				for _, root := range roots {
					if !exists(root) {
						wake()
						return fmt.Errorf("watch directory %s: it is gone", root)
					}
				}
			}
			if how.touched != nil {
				for _, real := range reals {
					how.touched(real, e.Name, e.Op&^fsnotify.Write != 0)
				}
			}
			changed()
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch directory: %w", err)
			}
			// Events were lost, those of new directories perhaps.
			if how.missed != nil {
				how.missed()
			}
			for _, root := range roots {
				if err := add(w, root, how); exhausted(err) {
					return fmt.Errorf("watch directory %s: %w", root, err)
				}
			}
			changed()
		case <-quietC:
			stop()
			wake()
		case <-limitC:
			stop()
			wake()
		}
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// add watches a directory and, if asked, all below it. Links are not followed. What vanishes meanwhile is left out.
func add(w *fsnotify.Watcher, root string, how watching) error {
	return filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if at != root && (how.skip(at) || !how.recursive) {
			return fs.SkipDir
		}
		if err := w.Add(at); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	})
}
