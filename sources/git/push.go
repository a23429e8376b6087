package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitfile "github.com/go-git/go-git/v5/plumbing/transport/file"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/crypto/ssh"

	"github.com/fairlead-dev/fairlead/sources"
)

// ErrMoved: the branch is not where the change was made from, so that nothing was pushed.
var ErrMoved = errors.New("the branch has moved")

// Commit is a change of files that Push makes.
type Commit struct {
	// Branch is where it is pushed, without refs/heads/. When it is not the one that Parent is the head of, the commit replaces
	// whatever is there.
	Branch string
	// Parent is a commit that this source has fetched.
	Parent sources.Revision
	// Files are the new contents of files that exist in Parent.
	Files map[string][]byte
	// Name and Email are those of the author and committer, When the time; Message is the whole message.
	Name, Email string
	When        time.Time
	Message     string
	// Sign returns an armored signature of a commit's bytes; nil leaves the commit unsigned.
	Sign func(commit []byte) (string, error)
}

// Push makes a commit and pushes it, and returns its id. With onto it is pushed to the branch that Parent is the head of, and only
// when it still is: otherwise the error wraps ErrMoved. Without onto nothing is pushed when the branch has these files
// on this parent already; then the id is that of the branch.
func (s *Source) Push(ctx context.Context, c Commit, onto bool) (sources.Revision, error) {
	if s.opt.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opt.Timeout)
		defer cancel()
	}
	select {
	case <-ctx.Done():
		return "", s.explain(ctx, ctx.Err())
	case <-s.turn:
	}
	defer func() { s.turn <- struct{}{} }()
	id, err := s.push(ctx, c, onto)
	if err != nil {
		return "", s.explainPush(ctx, err)
	}
	return sources.Revision(id.String()), nil
}

// explainPush is explain, and keeps the class of a push.
func (s *Source) explainPush(ctx context.Context, err error) error {
	explained := s.explain(ctx, err)
	var e *Error
	if errors.Is(err, ErrMoved) && errors.As(explained, &e) {
		e.causes = append(e.causes, ErrMoved)
	}
	return explained
}

func (s *Source) push(ctx context.Context, c Commit, onto bool) (plumbing.Hash, error) {
	parent := hashOf(string(c.Parent))
	if parent.IsZero() || !s.repo.has(parent) {
		return parent, fmt.Errorf("%w: %s was not fetched", ErrNoCommit, c.Parent.Short())
	}
	base, err := s.repo.objects().commit(parent)
	if err != nil {
		return parent, err
	}
	made := memory.NewStorage()
	root, err := change(s.repo.objects(), made, base.tree, c.Files)
	if err != nil {
		return parent, err
	}
	l, err := s.repo.list(ctx, nil)
	if err != nil {
		return parent, err
	}
	ref := "refs/heads/" + c.Branch
	now := l.refs[ref]
	l.done()
	switch {
	case onto && now != parent:
		return parent, fmt.Errorf("%w: %s is at %s, and the change was made from %s", ErrMoved, c.Branch, now.String()[:12], parent.String()[:12])
	case !onto && !now.IsZero() && s.same(ctx, now, root, parent):
		return now, nil
	}
	id, err := c.write(made, root, parent)
	if err != nil {
		return parent, err
	}
	return id, s.send(ctx, made, &packp.Command{Name: plumbing.ReferenceName(ref), Old: now, New: id})
}

// same reports whether a commit has a tree and a parent. What cannot be read does not.
func (s *Source) same(ctx context.Context, id, tree, parent plumbing.Hash) bool {
	if !s.repo.has(id) {
		l, err := s.repo.list(ctx, nil)
		if err != nil {
			return false
		}
		defer l.done()
		if s.repo.obtain(ctx, selection{kind: byCommit, commit: id, object: id}, l) != nil {
			return false
		}
	}
	c, err := s.repo.objects().commit(id)
	return err == nil && c.tree == tree && len(c.parents) == 1 && c.parents[0] == parent
}

// change writes a tree in which files have new contents, and returns its id. The files must exist.
func change(from *store, to *memory.Storage, tree plumbing.Hash, files map[string][]byte) (plumbing.Hash, error) {
	entries, err := from.tree(tree)
	if err != nil {
		return tree, err
	}
	below := map[string]map[string][]byte{}
	for path, content := range files {
		first, rest, deeper := strings.Cut(path, "/")
		if !deeper {
			rest = ""
		}
		if below[first] == nil {
			below[first] = map[string][]byte{}
		}
		below[first][rest] = content
	}
	// Git sorts directories as if their names ended in a slash.
	key := func(e entry) string {
		if e.mode&modeType == modeTree {
			return e.name + "/"
		}
		return e.name
	}
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(key(a), key(b)) })
	var out bytes.Buffer
	for _, e := range entries {
		if inside, ok := below[e.name]; ok {
			delete(below, e.name)
			content, isFile := inside[""]
			switch {
			case e.mode&modeType == modeTree && !isFile:
				e.hash, err = change(from, to, e.hash, inside)
			case e.mode&modeType == modeFile && isFile && len(inside) == 1:
				e.hash, err = keep(to, plumbing.BlobObject, content)
			default:
				err = fmt.Errorf("%s is no file that can be changed", e.name)
			}
			if err != nil {
				return tree, err
			}
		}
		fmt.Fprintf(&out, "%o %s\x00", e.mode, e.name)
		out.Write(e.hash[:])
	}
	for name := range below {
		return tree, fmt.Errorf("there is no %s to be changed", name)
	}
	return keep(to, plumbing.TreeObject, out.Bytes())
}

// keep adds an object and returns its id.
func keep(to *memory.Storage, kind plumbing.ObjectType, data []byte) (plumbing.Hash, error) {
	o := to.NewEncodedObject()
	o.SetType(kind)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return to.SetEncodedObject(o)
}

// write makes the commit.
func (c Commit) write(to *memory.Storage, tree, parent plumbing.Hash) (plumbing.Hash, error) {
	for _, s := range []string{c.Name, c.Email} {
		if strings.ContainsAny(s, "<>\n\x00") {
			return tree, fmt.Errorf("%q cannot be in the name or address of an author", s)
		}
	}
	when := fmt.Sprintf("%d %s", c.When.Unix(), c.When.Format("-0700"))
	head := fmt.Sprintf("tree %s\nparent %s\n", tree, parent)
	for _, role := range []string{"author", "committer"} {
		head += fmt.Sprintf("%s %s <%s> %s\n", role, c.Name, c.Email, when)
	}
	message := "\n" + strings.TrimRight(strings.ReplaceAll(c.Message, "\x00", ""), "\n") + "\n"
	if c.Sign != nil {
		signature, err := c.Sign([]byte(head + message))
		if err != nil {
			return tree, fmt.Errorf("sign the commit: %w", err)
		}
		head += "gpgsig " + strings.ReplaceAll(strings.TrimRight(signature, "\n"), "\n", "\n ") + "\n"
	}
	return keep(to, plumbing.CommitObject, []byte(head+message))
}

// send pushes objects and moves one reference.
func (s *Source) send(ctx context.Context, objects *memory.Storage, command *packp.Command) error {
	var ids []plumbing.Hash
	for id := range objects.Objects {
		ids = append(ids, id)
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, objects, false).Encode(ids, 0); err != nil {
		return fmt.Errorf("pack the change: %w", err)
	}
	session, err := s.receiver(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	adv, err := session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		err = ErrEmptyRepository
	}
	if err != nil {
		return err
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{command}
	req.Packfile = io.NopCloser(&pack)
	report, err := session.ReceivePack(ctx, req)
	if report != nil {
		if report.UnpackStatus != "ok" && report.UnpackStatus != "" {
			return fmt.Errorf("the server refuses the push: %s", report.UnpackStatus)
		}
		for _, c := range report.CommandStatuses {
			if c.Status == "ok" {
				continue
			}
			// Servers word it differently; where the branch is says whether it moved.
			if l, err := s.repo.list(ctx, nil); err == nil {
				defer l.done()
				if now := l.refs[string(command.Name)]; now != command.Old {
					return fmt.Errorf("%w: %s is at %s", ErrMoved, command.Name.Short(), now.String()[:12])
				}
			}
			return fmt.Errorf("the server refuses the push to %s: %s: check the branch's protection, and that the credentials may write", command.Name.Short(), c.Status)
		}
	}
	return err
}

// receiver begins a conversation with git-receive-pack.
func (s *Source) receiver(ctx context.Context) (transport.ReceivePackSession, error) {
	switch r := s.repo.(type) {
	case *localRepository:
		if err := r.open(); err != nil {
			return nil, err
		}
		if _, err := os.Stat(r.gitDir); err != nil {
			return nil, err
		}
		return gitfile.NewClient("git-upload-pack", "git-receive-pack").NewReceivePackSession(&transport.Endpoint{Protocol: "file", Path: r.common}, nil)
	case *clone:
		switch d := r.dial.(type) {
		case *httpDialer:
			endpoint := d.endpoint
			return d.client.NewReceivePackSession(&endpoint, d.auth)
		case *sshDialer:
			config, done, err := d.config()
			if err != nil {
				return nil, err
			}
			// An agent is needed for the handshake only, which is over when the session is there.
			defer done()
			host, port := d.at.hostname(), d.at.port()
			if port == 0 {
				port = 22
			}
			endpoint := &transport.Endpoint{Protocol: "ssh", User: config.User, Host: host, Port: port, Path: d.at.path}
			return gitssh.NewClient(config).NewReceivePackSession(endpoint, sshLogin{config})
		}
	}
	return nil, fmt.Errorf("nothing can be pushed to %s", s.at.shown())
}

// sshLogin gives go-git our configuration of ssh.
type sshLogin struct{ config *ssh.ClientConfig }

// Name implements transport.AuthMethod.
func (sshLogin) Name() string { return "fairlead" }

// String implements transport.AuthMethod.
func (sshLogin) String() string { return "fairlead" }

// ClientConfig implements ssh.AuthMethod.
func (l sshLogin) ClientConfig() (*ssh.ClientConfig, error) { return l.config, nil }
