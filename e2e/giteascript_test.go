package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-dev/fairlead/e2e/giteatest"
)

// gitea is the Gitea of a script, with the repository team/config. Team owns it, bot is the daemon's account, jane and joe
// may write to it, and mallory is a stranger.
type gitea struct {
	*giteatest.Server
	accounts map[string]giteatest.Account
	opened   int // number of the newest pull request
}

const giteaRepository = "/repos/team/config"

// giteaPatience is how long something is waited for that comes from elsewhere: much longer than it ever takes.
const giteaPatience = 3 * time.Minute

func startGitea(t *testing.T) *gitea {
	g := &gitea{Server: giteatest.Start(t), accounts: map[string]giteatest.Account{}}
	for _, name := range []string{"team", "bot", "jane", "joe", "mallory"} {
		g.accounts[name] = g.User(name)
	}
	team := g.accounts["team"]
	team.Call(http.MethodPost, "/user/repos", map[string]any{"name": "config", "default_branch": "main"}, nil)
	for _, name := range []string{"bot", "jane", "joe"} {
		team.Call(http.MethodPut, giteaRepository+"/collaborators/"+name, map[string]any{"permission": "write"}, nil)
	}
	return g
}

// cmdGitea is what people do in Gitea:
//
//	gitea begin                           start one; it is at $GITEA, team's token is $GITEA_TOKEN, that of ACCOUNT is $GITEA_ACCOUNT
//	gitea hook URL SECRET                 have what happens delivered to a URL
//	gitea open WHO BRANCH TITLE           open a pull request; with OWNER:BRANCH from a fork
//	gitea fork WHO                        make a fork of the repository
//	gitea say WHO N TEXT                  comment on a pull request
//	gitea edit WHO N FROM TO              replace a text in the comments of an account
//	gitea merge N                         merge a pull request
//	gitea said N PATTERN                  wait until a comment of the daemon on a pull request matches, and print all of them
//	gitea status COMMIT CONTEXT PATTERN   wait until a status, as "state: description", matches; ! is not known, as anything may come
//	gitea digest N                        print what the newest preview or outcome on a pull request asks to approve
//	gitea comments N                      print how many comments of the daemon there are
//	gitea rendered N                      print those comments as the browser gets them, in HTML
func cmdGitea(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	if neg || len(args) == 0 || (h.gitea == nil) != (args[0] == "begin") {
		ts.Fatalf("usage: gitea begin, and then gitea WHAT ARG...")
	}
	g := h.gitea
	count := map[string]int{"begin": 0, "hook": 2, "open": 3, "fork": 1, "say": 3, "edit": 4, "merge": 1, "said": 2, "status": 3, "comments": 1, "rendered": 1, "digest": 1}
	if want, ok := count[args[0]]; !ok || len(args)-1 != want {
		ts.Fatalf("gitea %s with %d arguments is not known", args[0], len(args)-1)
	}
	as := func(i int) giteatest.Account {
		a, ok := g.accounts[args[i]]
		if !ok {
			ts.Fatalf("there is no account %s", args[i])
		}
		return a
	}
	switch args[0] {
	case "begin":
		g = startGitea(h.t)
		h.gitea = g
		ts.Setenv("GITEA", g.URL)
		ts.Setenv("GITEA_HOST", strings.TrimPrefix(g.URL, "http://"))
		hooks, err := freeAddress()
		ts.Check(err)
		ts.Setenv("LISTEN_HOOKS", hooks)
		ts.Setenv("GITEA_TOKEN", g.accounts["team"].Token)
		for name, a := range g.accounts {
			ts.Setenv("GITEA_"+strings.ToUpper(name), a.Token)
		}
	case "hook":
		g.accounts["team"].Hook("team/config", args[1], args[2])
	case "open":
		var made struct {
			Number int `json:"number"`
		}
		as(1).Call(http.MethodPost, giteaRepository+"/pulls", map[string]string{"head": args[2], "base": "main", "title": args[3]}, &made)
		if g.opened++; made.Number != g.opened {
			ts.Fatalf("the pull request has the number %d, not %d", made.Number, g.opened)
		}
	case "fork":
		as(1).Call(http.MethodPost, giteaRepository+"/forks", map[string]string{}, nil)
	case "say":
		as(1).Call(http.MethodPost, giteaRepository+"/issues/"+args[2]+"/comments", map[string]string{"body": args[3]}, nil)
	case "edit":
		g.edit(ts, as(1), args[2], args[3], args[4])
	case "merge":
		wait(ts, func() error { // it looks first whether it can be merged, which takes a moment
			return g.accounts["team"].Try(http.MethodPost, giteaRepository+"/pulls/"+args[1]+"/merge", map[string]string{"Do": "merge"}, nil)
		})
	case "said":
		pattern := regexp.MustCompile("(?m)" + args[2])
		var all string
		wait(ts, func() error {
			if all = strings.Join(g.said(ts, args[1]), "\n=====\n"); !pattern.MatchString(all) {
				return fmt.Errorf("no comment on %s matches %s:\n%s", args[1], args[2], all)
			}
			return nil
		})
		fmt.Fprintln(ts.Stdout(), all)
	case "status":
		pattern := regexp.MustCompile(args[3])
		wait(ts, func() error {
			got, all := g.status(ts, args[1], args[2])
			if !pattern.MatchString(got) {
				return fmt.Errorf("the status %s of %s is %q and does not match %s; all of them: %q", args[2], args[1], got, args[3], all)
			}
			return nil
		})
	case "digest":
		m := asked.FindStringSubmatch(strings.Join(g.said(ts, args[1]), "\n"))
		if m == nil {
			ts.Fatalf("nothing on %s asks for an approval", args[1])
		}
		fmt.Fprintln(ts.Stdout(), m[1])
	case "comments":
		fmt.Fprintln(ts.Stdout(), len(g.said(ts, args[1])))
	case "rendered":
		html, err := g.accounts["team"].Render("team/config", strings.Join(g.said(ts, args[1]), "\n\n"))
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), html)
	}
}

var asked = regexp.MustCompile("waits for an approval: `/fairlead approve ([0-9a-f]+)`")

// wait waits until something holds.
func wait(ts *testscript.TestScript, holds func() error) {
	for deadline := time.Now().Add(giteaPatience); ; time.Sleep(100 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v\nthe daemon's log:\n%s", err, ts.ReadFile("daemon.log"))
		}
	}
}

type giteaComment struct {
	ID   int    `json:"id"`
	Body string `json:"body"`
	User struct {
		Login string `json:"login"`
	} `json:"user"`
}

// said are the daemon's comments on a pull request.
func (g *gitea) said(ts *testscript.TestScript, number string) []string {
	var all []giteaComment
	ts.Check(g.accounts["team"].Try(http.MethodGet, giteaRepository+"/issues/"+number+"/comments", nil, &all))
	var out []string
	for _, c := range all {
		if c.User.Login == "bot" {
			out = append(out, c.Body)
		}
	}
	return out
}

// edit replaces a text in comments, as somebody may who administers the repository.
func (g *gitea) edit(ts *testscript.TestScript, whose giteatest.Account, number, from, to string) {
	var all []giteaComment
	team := g.accounts["team"]
	ts.Check(team.Try(http.MethodGet, giteaRepository+"/issues/"+number+"/comments", nil, &all))
	edited := 0
	for _, c := range all {
		if c.User.Login == whose.Name && strings.Contains(c.Body, from) {
			team.Call(http.MethodPatch, giteaRepository+"/issues/comments/"+strconv.Itoa(c.ID), map[string]string{"body": strings.ReplaceAll(c.Body, from, to)}, nil)
			edited++
		}
	}
	if edited == 0 {
		ts.Fatalf("no comment of %s has %q", whose.Name, from)
	}
}

// status is the newest status of a commit with a name, and the newest of every name. Gitea orders them by times in whole seconds, so
// that only their numbers tell which of two is the newer.
func (g *gitea) status(ts *testscript.TestScript, commit, name string) (string, map[string]string) {
	newest, number := map[string]string{}, map[string]int{}
	for page := 1; ; page++ {
		var list []struct {
			ID          int    `json:"id"`
			Context     string `json:"context"`
			Status      string `json:"status"`
			Description string `json:"description"`
		}
		path := fmt.Sprintf("%s/commits/%s/statuses?sort=oldest&page=%d", giteaRepository, url.PathEscape(commit), page)
		ts.Check(g.accounts["team"].Try(http.MethodGet, path, nil, &list))
		if len(list) == 0 {
			return newest[name], newest
		}
		for _, s := range list {
			if s.ID > number[s.Context] {
				newest[s.Context], number[s.Context] = s.Status+": "+s.Description, s.ID
			}
		}
	}
}

// trap counts who connects to it.
type trap struct{ caught atomic.Int64 }

// cmdTrap listens at $TRAP: trap begin. Whoever connects is caught: trap untouched fails then.
func cmdTrap(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	switch {
	case !neg && len(args) == 1 && args[0] == "begin" && h.trap == nil:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		h.trap = &trap{}
		ts.Setenv("TRAP", l.Addr().String())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				h.trap.caught.Add(1)
				c.Close()
			}
		}()
		ts.Defer(func() {
			l.Close()
			<-ended
		})
	case !neg && len(args) == 1 && args[0] == "untouched" && h.trap != nil:
		if n := h.trap.caught.Load(); n > 0 {
			ts.Fatalf("%d connections were made to the trap", n)
		}
	default:
		ts.Fatalf("usage: trap begin, and after it trap untouched")
	}
}
