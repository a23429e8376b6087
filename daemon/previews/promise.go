package previews

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// promise is what was said on a pull request before it was merged. It outlives a restart.
type promise struct {
	Repository string    `json:"repository"`
	Number     int       `json:"number"`
	Head       string    `json:"head"`
	Made       time.Time `json:"made"`
	// Applications are those that the merge was said to change.
	Applications []promised `json:"applications"`
	// Body is the comment.
	Body string `json:"body"`
	// Withheld is true when it was made without keys, so that nothing can be held against it.
	Withheld bool `json:"withheld,omitempty"`
	// Told is the merge commit whose outcome was shown to the end.
	Told string `json:"told,omitempty"`
}

// promised is what one application was said to become.
type promised struct {
	Name string `json:"name"`
	// Wants is the digest of what it was to want after the merge; empty when it was to be removed.
	Wants  string     `json:"wants,omitempty"`
	Counts api.Counts `json:"counts"`
	// Needs is what of it waits for an approval, as plan.Blocked.Content; empty for nothing. Approval is the one that was given
	// for exactly that.
	Needs    string    `json:"needs,omitempty"`
	Approval *approval `json:"approval,omitempty"`
}

// promises are files in one directory, one for each pull request.
type promises struct {
	dir string
	mu  sync.Mutex // held while one is changed
}

// maxPromises is how many are kept: the newest.
const maxPromises = 1000

func (p *promises) file(key pull) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", key.forge, key.repo, key.number))
	return filepath.Join(p.dir, hex.EncodeToString(sum[:12])+".json")
}

// load returns the promise of a pull request, and false when there is none. One that cannot be read is none.
func (p *promises) load(key pull) (promise, bool) {
	if p.dir == "" {
		return promise{}, false
	}
	b, err := os.ReadFile(p.file(key))
	var out promise
	if err != nil || json.Unmarshal(b, &out) != nil || out.Number != key.number || out.Repository != key.repo {
		return promise{}, false
	}
	return out, true
}

// untold are the pull requests of a repository of whose merge nothing was told yet.
func (p *promises) untold(repo string) []int {
	files, err := filepath.Glob(filepath.Join(p.dir, "*.json"))
	if err != nil || p.dir == "" {
		return nil
	}
	var out []int
	for _, file := range files {
		b, err := os.ReadFile(file)
		var have promise
		if err == nil && json.Unmarshal(b, &have) == nil && have.Repository == repo && have.Told == "" {
			out = append(out, have.Number)
		}
	}
	slices.Sort(out)
	return out
}

// change changes the promise of a pull request, or makes it, where f returns true. f is told whether there is one.
func (p *promises) change(key pull, f func(said *promise, found bool) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	said, found := p.load(key)
	if !f(&said, found) {
		return nil
	}
	return p.save(key, said)
}

func (p *promises) save(key pull, what promise) error {
	if p.dir == "" {
		return nil
	}
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("remember the preview: %w", err)
	}
	f, err := os.CreateTemp(p.dir, ".promise-")
	if err != nil {
		return fmt.Errorf("remember the preview: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), p.file(key))
	}
	if err != nil {
		return fmt.Errorf("remember the preview: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return p.trim()
}

// trim removes the oldest.
func (p *promises) trim() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil || len(entries) <= maxPromises {
		return err
	}
	type dated struct {
		name string
		at   time.Time
	}
	var all []dated
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			all = append(all, dated{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b dated) int { return a.at.Compare(b.at) })
	for _, d := range all[:max(0, len(all)-maxPromises)] {
		if err := os.Remove(filepath.Join(p.dir, d.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget an old preview: %w", err)
		}
	}
	return nil
}

// promiseOf is what a preview says. What was approved before stays approved where it is the same.
func promiseOf(p api.Preview, repo string, number int, before promise) promise {
	out := promise{Repository: repo, Number: number, Head: p.Head.ID, Made: p.Plan.Created, Withheld: p.Withheld}
	for _, a := range p.Plan.Applications {
		one := api.PlanResult{Applications: []api.ApplicationPlan{a}}
		said := promised{Name: a.Name, Wants: a.Wants, Counts: one.Counts()}
		if b := a.Plan.Blocked; b != nil {
			said.Needs = b.Content
			for _, had := range before.Applications {
				if had.Name == a.Name && had.Approval != nil && had.Approval.Content == said.Needs {
					said.Approval = had.Approval
				}
			}
		}
		out.Applications = append(out.Applications, said)
	}
	return out
}
