// Package git reads desired state from Git repositories: over https and ssh through shallow bare clones, and
// from repositories on this machine directly. Nothing is ever checked out; a snapshot reads Git's objects.
package git

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources"
)

// Options say what a source follows. Of the references the first that is set counts: Commit, RefName,
// SemVer, Tag, Branch, Revision; with none the remote's default branch is followed.
type Options struct {
	// Name is the name of the source, as it appears in snapshots.
	Name string
	// URL is https://host/path, ssh://user@host/path, user@host:path, file:///path or a path on this machine.
	URL string

	Branch  string
	Tag     string
	SemVer  string // a range of versions; the highest tag in it is followed
	RefName string // a full name such as refs/pull/420/head
	Commit  string // all 40 characters
	// Revision is any of the above in one word: a branch, a tag, a full reference, a whole or abbreviated
	// commit id, HEAD, or semver:RANGE.
	Revision string

	Auth Auth
	// Submodules mounts submodules at their recorded commits; without it they are empty directories.
	Submodules bool
	// Timeout bounds one Fetch; 0 leaves that to its context.
	Timeout time.Duration
	// Sparse are the only directories that are shown; empty shows everything.
	Sparse []string
	// Ignore are patterns in the form of .gitignore. With it, or with a file .sourceignore at the root, Flux's default
	// exclusions do not apply.
	Ignore string
	// Dir is the directory for the clone. Nothing outside of it is written, and what is in it may be removed
	// at any time; it is fetched again then. Repositories on this machine need none, but with Verify the last
	// revision that was not refused is noted there.
	Dir string
	// Verify says whose signature a revision has to have; nil asks for none.
	Verify *Verify
}

// Auth are credentials. They appear in no error and no log.
type Auth struct {
	Username, Password string
	BearerToken        string
	// Identity is a private key in PEM, IdentityPassword its passphrase. KnownHosts are lines of known_hosts;
	// without any, those of the user and the system count.
	Identity         []byte
	IdentityPassword string
	KnownHosts       []byte
	// CA, ClientCert and ClientKey are PEM. CA adds to the authorities of the system.
	CA, ClientCert, ClientKey []byte
	// Agent uses the SSH agent of the process.
	Agent bool
}

// String tells nothing, so that credentials cannot be printed by accident.
func (Auth) String() string { return "(credentials)" }

// GoString tells nothing.
func (a Auth) GoString() string { return a.String() }

// Source follows one reference of one repository. It is safe for concurrent use; fetches wait for each other.
type Source struct {
	opt  Options
	at   location
	repo repository
	turn chan struct{} // holds one token while nobody fetches

	// Below is for the holder of the token.
	pinned  plumbing.Hash // what an abbreviated commit id was resolved to
	last    selection     // what the newest snapshot was made of
	judged  verdict       // which revision was found good last, by which keys
	modules map[string]*Source
	links   *links
	depth   int // how many repositories this one is a submodule of
	closed  bool
}

// repository is where references and objects come from.
type repository interface {
	// list returns the references; only those named have to be in it when names is not nil.
	list(ctx context.Context, names []string) (*listing, error)
	// obtain makes the commit of sel and everything below it readable.
	obtain(ctx context.Context, sel selection, l *listing) error
	// has reports whether the commit can be read whole without asking the remote.
	has(commit plumbing.Hash) bool
	// deepen makes more of the history of commit readable. It returns false when there is no more to be had.
	deepen(ctx context.Context, l *listing, from plumbing.Hash, round int) (bool, error)
	// find makes the commit that starts with prefix readable, without its files.
	find(ctx context.Context, l *listing, prefix string) (plumbing.Hash, error)
	objects() *store
	// broken reports whether reading objects found damage since they were opened.
	broken() bool
	// reset forgets everything that was fetched.
	reset() error
	close() error
}

// New returns a source. It neither reads nor writes anything yet.
func New(o Options) (*Source, error) {
	if err := checkOptions(o); err != nil {
		return nil, err
	}
	if o.Verify != nil && !o.Verify.head() && !o.Verify.tag() {
		return nil, fmt.Errorf("%q is no mode of verification: use HEAD, Tag or TagAndHEAD", o.Verify.Mode)
	}
	at, err := parseLocation(o.URL)
	if err != nil {
		return nil, err
	}
	if at.user != "" && at.scheme != "ssh" && o.Auth.Username == "" && o.Auth.BearerToken == "" {
		o.Auth.Username, o.Auth.Password = at.user, at.password
	}
	s := &Source{opt: o, at: at, turn: make(chan struct{}, 1), modules: map[string]*Source{}, links: newLinks()}
	if at.scheme == "file" {
		s.repo = &localRepository{path: at.path}
	} else {
		if o.Dir == "" {
			return nil, fmt.Errorf("git source %s: no directory for the clone is set", at.shown())
		}
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("clone directory: %w", err)
		}
		dialer, err := newDialer(at, o.Auth)
		if err != nil {
			return nil, fmt.Errorf("git source %s: %w", at.shown(), err)
		}
		s.repo = &clone{root: dir, at: at, dial: dialer}
	}
	s.turn <- struct{}{}
	return s, nil
}

// Fetch returns the newest snapshot, or sources.ErrUnchanged. Errors are of this package's classes
// (ErrAuthentication, ErrNoReference …) and say what to do.
func (s *Source) Fetch(ctx context.Context, have sources.Revision) (sources.Snapshot, error) {
	return s.inTurn(ctx, func(ctx context.Context) (sources.Snapshot, error) {
		return s.guarded(ctx, have)
	})
}

// inTurn looks into the clone, one at a time and within the time that a look may take. A clone that turns out damaged is
// removed, and made anew, once. Errors of look are explained.
func (s *Source) inTurn(ctx context.Context, look func(ctx context.Context) (sources.Snapshot, error)) (sources.Snapshot, error) {
	if s.opt.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opt.Timeout)
		defer cancel()
	}
	select {
	case <-ctx.Done():
		return sources.Snapshot{}, s.explain(ctx, ctx.Err())
	case <-s.turn:
	}
	defer func() { s.turn <- struct{}{} }()
	if s.closed {
		return sources.Snapshot{}, errors.New("the source is closed")
	}
	snapshot, err := look(ctx)
	if errors.Is(err, errDamaged) && ctx.Err() == nil {
		if err := s.repo.reset(); err != nil {
			return sources.Snapshot{}, s.explain(ctx, fmt.Errorf("remove the damaged clone: %w", err))
		}
		snapshot, err = look(ctx)
	}
	if err != nil && !errors.Is(err, sources.ErrUnchanged) {
		err = s.explain(ctx, err)
	}
	return snapshot, err
}

// Close releases files and connections. Snapshots of the source cannot be read any more after it.
func (s *Source) Close() error {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.repo.close()
	for _, m := range s.modules {
		err = errors.Join(err, m.Close())
	}
	return err
}

// guarded is fetch. A server can send what go-git panics at; that is a failed fetch.
func (s *Source) guarded(ctx context.Context, have sources.Revision) (snapshot sources.Snapshot, err error) {
	defer func() {
		if p := recover(); p != nil {
			snapshot, err = sources.Snapshot{}, fmt.Errorf("the server's answer cannot be read: %v", p)
		}
	}()
	return s.fetch(ctx, have)
}

func (s *Source) fetch(ctx context.Context, have sources.Revision) (sources.Snapshot, error) {
	broken := s.repo.broken()
	if broken {
		if err := s.repo.reset(); err != nil {
			return sources.Snapshot{}, err
		}
	}
	had := hashOf(string(have))
	sel, l, err := s.selects(ctx)
	defer l.done()
	if err != nil {
		return sources.Snapshot{}, err
	}
	keys, err := s.opt.Verify.keys()
	if err != nil {
		return s.lastGood(ctx, had, nil, s.refusal(sel, nil, "commit", err))
	}
	if sel.commit == had && !broken && s.judged.holds(keys, sel) {
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	if !s.repo.has(sel.commit) || keys != nil && s.opt.Verify.tag() && !s.repo.objects().has(sel.object) {
		if l == nil {
			if l, err = s.repo.list(ctx, nil); err != nil {
				return sources.Snapshot{}, err
			}
			defer l.done()
		}
		if err := s.repo.obtain(ctx, sel, l); err != nil {
			return sources.Snapshot{}, err
		}
	}
	signatures, err := s.verify(keys, sel)
	if errors.Is(err, ErrNotVerified) {
		return s.lastGood(ctx, had, keys, err)
	} else if err != nil {
		return sources.Snapshot{}, err
	}
	if sel.commit == had && !broken {
		s.judged = verdict{keys.Digest(), sel}
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	snapshot, err := s.selected(ctx, sel, signatures)
	if err != nil {
		return sources.Snapshot{}, err
	}
	if !had.IsZero() {
		snapshot.History = s.relation(ctx, l, had, sel)
	}
	s.last, s.judged = sel, verdict{keys.Digest(), sel}
	s.noteGood(keys, sel)
	return snapshot, nil
}

// selected is the snapshot of what is followed.
func (s *Source) selected(ctx context.Context, sel selection, signatures []sources.Signature) (sources.Snapshot, error) {
	snapshot, err := s.snapshot(ctx, s.repo.objects(), sel.commit)
	snapshot.Ref, snapshot.Signatures, snapshot.History = sel.ref, signatures, sources.First
	return snapshot, err
}

// selects says which commit is followed now. The listing is nil when the remote did not have to be asked.
func (s *Source) selects(ctx context.Context) (selection, *listing, error) {
	want := wanted(s.opt)
	if want.kind == byCommit {
		if s.pinned.IsZero() && len(want.value) == 40 {
			s.pinned = plumbing.NewHash(want.value)
		}
		if !s.pinned.IsZero() {
			return selection{kind: byCommit, commit: s.pinned, object: s.pinned}, nil, nil
		}
	}
	l, err := s.repo.list(ctx, want.names())
	if err != nil {
		return selection{}, nil, err
	}
	sel, err := resolve(want, l)
	if errors.Is(err, ErrNoReference) && l.partial {
		// All names are needed to say which ones are near.
		if l, err = s.repo.list(ctx, nil); err != nil {
			return selection{}, nil, err
		}
		sel, err = resolve(want, l)
	}
	if err != nil {
		return selection{}, l, err
	}
	if sel.prefix != "" {
		if s.pinned.IsZero() {
			if s.pinned, err = s.repo.find(ctx, l, sel.prefix); err != nil {
				return selection{}, l, err
			}
		}
		sel = selection{kind: byCommit, commit: s.pinned, object: s.pinned}
	}
	return sel, l, nil
}

func hashOf(s string) plumbing.Hash {
	if !plumbing.IsHash(s) {
		return plumbing.ZeroHash
	}
	return plumbing.NewHash(s)
}
