// Package giteatest runs the real Gitea for tests: one server on a loopback address, with its data in the test's
// temporary directory, without a way out, with users, repositories and hooks that are made through its API. Nothing
// is left when the test ends.
//
// Gitea itself is built from source as a Go tool, once; see e2e/tools/gitea. The first time takes some minutes.
package giteatest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is Gitea, and its module's directory, where its templates are.
type built struct{ program, files string }

// build builds Gitea, or finds it built. SQLite is C, so a compiler is needed.
var build = sync.OnceValues(func() (built, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return built{}, fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	mod := "-modfile=" + filepath.Join(root, "e2e/tools/gitea/go.mod")
	run := func(args ...string) (string, error) {
		if nice, err := exec.LookPath("nice"); err == nil {
			args = append([]string{nice}, args...)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stderr = root, &stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("build Gitea: %w\n%s", err, stderr.String())
		}
		return strings.TrimSpace(string(out)), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return built{}, fmt.Errorf("find where to keep Gitea: %w", err)
	}
	// `go tool` leaves out build tags, and without them there is no SQLite.
	program := filepath.Join(cache, "fairlead-e2e", "gitea")
	if _, err := run("go", "build", mod, "-tags", "sqlite,sqlite_unlock_notify", "-o", program, "code.gitea.io/gitea"); err != nil {
		return built{}, err
	}
	files, err := run("go", "list", mod, "-m", "-f", "{{.Dir}}", "code.gitea.io/gitea")
	return built{program, files}, err
})

// Server is a Gitea under test.
type Server struct {
	// URL is where it is.
	URL string

	t   testing.TB
	dir string
	cmd *exec.Cmd
}

// The account that administers a Server.
const (
	admin    = "root-of-gitea"
	password = "correct horse battery"
)

// perPage is the most that a list of the API has: small, so that tests see several pages.
const perPage = 3

const config = `APP_NAME = test
RUN_MODE = prod
RUN_USER = %[1]s
WORK_PATH = %[2]s
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[3]s
ROOT_URL = http://127.0.0.1:%[3]s/
DISABLE_SSH = true
OFFLINE_MODE = true
LFS_START_SERVER = false
STATIC_ROOT_PATH = %[4]s
[database]
DB_TYPE = sqlite3
PATH = %[2]s/gitea.db
LOG_SQL = false
[security]
INSTALL_LOCK = true
SECRET_KEY = of-a-test-and-of-no-use-elsewhere
INTERNAL_TOKEN = eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYmYiOjE0OTU1NTE2MTh9.hhSVGOANkaKk3vfCd2jDOIww4pUk0xtg9JRde5UogyQ
PASSWORD_HASH_ALGO = pbkdf2$1$8
[oauth2]
ENABLED = false
JWT_SECRET = 0000000000000000000000000000000000000000000
[service]
DISABLE_REGISTRATION = true
[webhook]
ALLOWED_HOST_LIST = loopback
DELIVER_TIMEOUT = 5
[log]
LEVEL = Warn
MODE = console
[cron]
ENABLED = false
[cron.update_checker]
ENABLED = false
[picture]
DISABLE_GRAVATAR = true
ENABLE_FEDERATED_AVATAR = false
[api]
ENABLE_SWAGGER = false
MAX_RESPONSE_ITEMS = %[5]d
[repository]
DEFAULT_BRANCH = main
[indexer]
ISSUE_INDEXER_TYPE = db
[queue]
TYPE = channel
[session]
PROVIDER = memory
[actions]
ENABLED = false
[packages]
ENABLED = false
[mailer]
ENABLED = false
`

// Wanted reports whether the real Gitea is wanted: building it takes minutes of processor time, and a C compiler. The
// variable FAIRLEAD_GITEA asks for it, and so does "go tool task test:gitea".
func Wanted() bool { return os.Getenv("FAIRLEAD_GITEA") != "" }

// Start starts Gitea and waits until it answers. The test is skipped where Gitea is not wanted.
func Start(t testing.TB) *Server {
	t.Helper()
	if !Wanted() {
		t.Skip("the real Gitea is not wanted: go tool task test:gitea")
	}
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: t.TempDir(), URL: "http://127.0.0.1:" + port}
	ini := filepath.Join(s.dir, "app.ini")
	if err := os.WriteFile(ini, fmt.Appendf(nil, config, who.Username, s.dir, port, b.files, perPage), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(b.program, append([]string{"--config", ini, "--work-path", s.dir}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+s.dir, "GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT=true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	s.cmd = command("web")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it ends what it has started
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = s.cmd.Process.Kill()
			<-ended
		}
		log.Close()
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if res, err := http.Get(s.URL + "/api/healthz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ended:
			t.Fatalf("Gitea ended by itself:\n%s", s.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("Gitea does not answer:\n%s", s.Log())
		}
	}
	if out, err := command("admin", "user", "create", "--admin", "--username", admin, "--password", password, "--email", "root@example.org", "--must-change-password=false").CombinedOutput(); err != nil {
		t.Fatalf("make the first account of Gitea: %v\n%s\n%s", err, out, s.Log())
	}
	return s
}

// Log is the end of what Gitea logged.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b[max(0, len(b)-4000):])
}

// Account is somebody with a token for everything.
type Account struct {
	Name, Token string
	s           *Server
}

// User makes an account.
func (s *Server) User(name string) Account {
	s.t.Helper()
	root := Account{Name: admin, s: s}
	root.Call(http.MethodPost, "/admin/users", map[string]any{"username": name, "password": password, "email": name + "@example.org", "must_change_password": false}, nil)
	a := Account{Name: name, s: s}
	var token struct {
		SHA1 string `json:"sha1"`
	}
	a.Call(http.MethodPost, "/users/"+name+"/tokens", map[string]any{"name": "test", "scopes": []string{"all"}}, &token)
	a.Token = token.SHA1
	return a
}

// Try calls the API, and returns an error for an answer that is none of success.
func (a Account) Try(method, path string, body, out any) error {
	b, err := a.request(method, path, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// Render returns a comment on a repository's pull requests as Gitea has browsers show it, in HTML.
func (a Account) Render(repo, markdown string) (string, error) {
	b, err := a.request(http.MethodPost, "/markdown", map[string]any{"Text": markdown, "Mode": "comment", "Context": repo})
	return string(b), err
}

func (a Account) request(method, path string, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(method, a.s.URL+"/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if a.Token == "" {
		r.SetBasicAuth(a.Name, password)
	} else {
		r.Header.Set("Authorization", "token "+a.Token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode > 299 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	return b, nil
}

// Call calls the API. A failure ends the test.
func (a Account) Call(method, path string, body, out any) {
	a.s.t.Helper()
	if err := a.Try(method, path, body, out); err != nil {
		a.s.t.Fatalf("%v\n%s", err, a.s.Log())
	}
}

// Repository makes one with a first commit, in which others may write.
func (a Account) Repository(name string, writers ...Account) {
	a.s.t.Helper()
	a.Call(http.MethodPost, "/user/repos", map[string]any{"name": name, "auto_init": true, "default_branch": "main"}, nil)
	for _, w := range writers {
		a.Call(http.MethodPut, "/repos/"+a.Name+"/"+name+"/collaborators/"+w.Name, map[string]any{"permission": "write"}, nil)
	}
}

// Commit adds a file on a branch, which begins at main when it is new, and returns the commit.
func (a Account) Commit(repo, branch, file, content string) string {
	a.s.t.Helper()
	o := map[string]any{"content": base64.StdEncoding.EncodeToString([]byte(content)), "message": "Add " + file, "branch": branch}
	if err := a.Try(http.MethodGet, "/repos/"+repo+"/branches/"+branch, nil, nil); err != nil {
		o["branch"], o["new_branch"] = "main", branch
	}
	var made struct {
		Commit struct {
			SHA string `json:"sha"`
		} `json:"commit"`
	}
	a.Call(http.MethodPost, "/repos/"+repo+"/contents/"+file, o, &made)
	return made.Commit.SHA
}

// Head is the commit of a branch.
func (a Account) Head(repo, branch string) string {
	a.s.t.Helper()
	var b struct {
		Commit struct {
			ID string `json:"id"`
		} `json:"commit"`
	}
	a.Call(http.MethodGet, "/repos/"+repo+"/branches/"+branch, nil, &b)
	return b.Commit.ID
}

// Hook has a repository's events delivered to a URL.
func (a Account) Hook(repo, url, secret string) {
	a.s.t.Helper()
	a.Call(http.MethodPost, "/repos/"+repo+"/hooks", map[string]any{
		"type": "gitea", "active": true, "config": map[string]string{"url": url, "content_type": "json", "secret": secret},
		"events": []string{"push", "create", "delete", "pull_request", "pull_request_only", "pull_request_sync", "pull_request_comment", "issue_comment"},
	}, nil)
}
