package forge

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Marker is the line that tells an own comment from others. People do not see it.
func Marker(kind Kind, name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r == '/':
			return r
		}
		return '_'
	}, name)
	name = strings.ReplaceAll(name, "--", "-_") // would end an HTML comment
	switch kind {
	case Bitbucket, BitbucketServer:
		// They show HTML as text. A link that nothing refers to is not shown.
		return "[//]: # (fairlead:" + name + ")"
	case GitHub, GitLab, Gitea, Forgejo, AzureDevOps, Generic:
	}
	return "<!-- fairlead:" + name + " -->"
}

// FindComment returns the own comment with a name, and false when there is none. A comment of another account is
// never returned, whatever is in it.
func FindComment(ctx context.Context, f Forge, repo string, number int, name string) (Comment, bool, error) {
	self, err := f.Self(ctx, repo)
	if err != nil {
		return Comment{}, false, err
	}
	all, err := f.Comments(ctx, repo, number)
	if err != nil {
		return Comment{}, false, err
	}
	marker := Marker(f.Kind(), name)
	for _, c := range all {
		first, _, _ := strings.Cut(c.Body, "\n")
		if strings.TrimRight(first, "\r ") == marker && c.Author == self {
			return c, true, nil
		}
	}
	return Comment{}, false, nil
}

// PutComment keeps one comment with a name on a pull request: it makes it, or replaces its body, or leaves it as it
// is. It reports whether anything changed. What is put for one name and pull request is put by one caller at a time.
func PutComment(ctx context.Context, f Forge, repo string, number int, name, body string) (_ Comment, changed bool, err error) {
	body = Marker(f.Kind(), name) + "\n\n" + body
	if most := f.Limits().Comment; len(body) > most {
		return Comment{}, false, fmt.Errorf("the comment has %d bytes, and %s takes %d: cut it before", len(body), f.Kind(), most)
	}
	for try := 0; ; try++ {
		c, ok, err := FindComment(ctx, f, repo, number, name)
		switch {
		case err != nil:
			return Comment{}, false, err
		case ok && sameText(c.Body, body):
			return c, false, nil
		case ok:
			c, err = f.EditComment(ctx, repo, number, c, body)
			return c, err == nil, err
		}
		c, err = f.CreateComment(ctx, repo, number, body)
		if err == nil {
			return c, true, nil
		}
		if try > 0 || !errors.Is(err, ErrUnavailable) {
			return Comment{}, false, err
		}
		// It may have been made, and the answer lost.
	}
}

// sameText compares bodies as a service may have changed them.
func sameText(a, b string) bool {
	plain := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }
	return plain(a) == plain(b)
}
