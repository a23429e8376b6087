package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/e2e/giteatest"
	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/forgetest"
)

// giteaHost is a repository of the real Gitea as the contract of forges sees it.
type giteaHost struct {
	server                   *giteatest.Server
	team, bot, jane, mallory giteatest.Account
	name                     string
	files                    int
}

// TestGiteaKeepsTheContract holds the contract of forges against the real Gitea.
func TestGiteaKeepsTheContract(t *testing.T) {
	server := giteatest.Start(t)
	h := giteaHost{server: server, team: server.User("team"), bot: server.User("fairlead-bot"), jane: server.User("jane"), mallory: server.User("mallory")}
	n := 0
	forgetest.Run(t, func(t *testing.T) forgetest.Host {
		n++
		host := h
		host.name = fmt.Sprint("config-", n)
		host.team.Repository(host.name, host.bot, host.jane)
		return &host
	})
}

func (h *giteaHost) Config() forge.Config {
	return forge.Config{Kind: forge.Gitea, URL: h.server.URL, Token: func() (string, error) { return h.bot.Token, nil }}
}

func (h *giteaHost) Repository() string { return "team/" + h.name }
func (h *giteaHost) CloneURL() string   { return h.server.URL + "/team/" + h.name + ".git" }
func (h *giteaHost) Many() int          { return 5 } // a page has three

// file is the name of a new file.
func (h *giteaHost) file() string {
	h.files++
	return fmt.Sprintf("file-%d.yaml", h.files)
}

func (h *giteaHost) Open(t *testing.T, title string, fork bool) forgetest.Pull {
	t.Helper()
	who, repo, branch := h.jane, h.Repository(), fmt.Sprint("change-", h.files+1)
	head := branch
	if fork {
		who, repo, head = h.mallory, "mallory/"+h.name, "mallory:"+branch
		h.mallory.Call(http.MethodPost, "/repos/"+h.Repository()+"/forks", map[string]string{"name": h.name}, nil)
	}
	p := forgetest.Pull{Base: h.jane.Head(h.Repository(), "main"), Head: who.Commit(repo, branch, h.file(), "a: 1\n")}
	var made struct {
		Number int `json:"number"`
	}
	who.Call(http.MethodPost, "/repos/"+h.Repository()+"/pulls", map[string]string{"title": title, "head": head, "base": "main"}, &made)
	p.Number = made.Number
	return p
}

// branchOf is the branch of a pull request.
func (h *giteaHost) branchOf(t *testing.T, number int) string {
	t.Helper()
	var p struct {
		Head struct {
			Ref string `json:"ref"`
		} `json:"head"`
	}
	h.jane.Call(http.MethodGet, h.pull(number), nil, &p)
	return p.Head.Ref
}

func (h *giteaHost) pull(number int) string {
	return "/repos/" + h.Repository() + "/pulls/" + strconv.Itoa(number)
}

func (h *giteaHost) Push(t *testing.T, number int) string {
	t.Helper()
	commit := h.jane.Commit(h.Repository(), h.branchOf(t, number), h.file(), "b: 2\n")
	// Gitea brings its pull requests up to date a moment after the push.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var p struct {
			Head struct {
				SHA string `json:"sha"`
			} `json:"head"`
		}
		h.jane.Call(http.MethodGet, h.pull(number), nil, &p)
		if p.Head.SHA == commit {
			return commit
		}
	}
	t.Fatalf("the pull request has not got commit %s", commit)
	return ""
}

func (h *giteaHost) PushBranch(t *testing.T) {
	t.Helper()
	h.jane.Commit(h.Repository(), "main", h.file(), "c: 3\n")
}

func (h *giteaHost) Merge(t *testing.T, number int) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		// It looks first whether it can be merged, which takes a moment.
		if err = h.jane.Try(http.MethodPost, h.pull(number)+"/merge", map[string]string{"Do": "merge"}, nil); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (h *giteaHost) Close(t *testing.T, number int) {
	t.Helper()
	h.team.Call(http.MethodPatch, h.pull(number), map[string]string{"state": "closed"}, nil)
}

func (h *giteaHost) CommentAs(t *testing.T, number int, body string) {
	t.Helper()
	h.jane.Call(http.MethodPost, "/repos/"+h.Repository()+"/issues/"+strconv.Itoa(number)+"/comments", map[string]string{"body": body}, nil)
}

func (h *giteaHost) Subscribe(t *testing.T, url, secret string) {
	t.Helper()
	h.team.Hook(h.Repository(), url, secret)
}
