// Package consultest runs the real Consul for tests: single agents and clusters, each agent on a loopback address of its
// own with Consul's usual ports, with its data in the test's temporary directory. Agents can be killed, stopped, started
// again and wiped. Nothing is left when the test ends.
//
// Consul itself is built from source as a Go tool, once; see e2e/tools/consul. The first time takes some minutes.
package consultest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// build builds Consul, or finds it built, and returns its path in the build cache.
var build = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	args := []string{"go", "tool", "-modfile=" + filepath.Join(root, "e2e/tools/consul/go.mod"), "-n", "consul"}
	if nice, err := exec.LookPath("nice"); err == nil {
		args = append([]string{nice}, args...)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stderr = root, &stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err = cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build Consul: %w\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// Binary returns the path of the Consul binary, and builds it if needed.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Agent is a Consul agent under test.
type Agent struct {
	t      testing.TB
	Name   string
	IP     string
	Dir    string
	config map[string]any
	token  string

	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// HTTP returns the address of the HTTP API, host:port.
func (a *Agent) HTTP() string { return net.JoinHostPort(a.IP, "8500") }

// DNS returns the address of the name server, host:port.
func (a *Agent) DNS() string { return net.JoinHostPort(a.IP, "8600") }

// Option changes an agent's configuration before it starts.
type Option func(config map[string]any)

// With sets keys of Consul's configuration file.
func With(config map[string]any) Option {
	return func(c map[string]any) { maps.Copy(c, config) }
}

// RootToken is the management token of agents with ACL.
const RootToken = "11111111-2222-3333-4444-555555555555"

// ACL denies by default all that no token allows. RootToken allows everything.
func ACL(config map[string]any) {
	config["primary_datacenter"] = "dc1"
	config["acl"] = map[string]any{
		"enabled": true, "default_policy": "deny", "enable_token_persistence": true,
		"tokens": map[string]any{"initial_management": RootToken, "agent": RootToken},
	}
}

// Server starts one server that elects itself, and waits until it leads.
func Server(t testing.TB, options ...Option) *Agent {
	t.Helper()
	a := newAgent(t, "server", map[string]any{"server": true, "bootstrap_expect": 1}, options)
	a.Start()
	a.WaitReady()
	return a
}

// Cluster starts servers that elect a leader, and waits until all follow it.
func Cluster(t testing.TB, servers int, options ...Option) []*Agent {
	t.Helper()
	var all []*Agent
	var ips []string
	for i := range servers {
		a := newAgent(t, fmt.Sprintf("server-%d", i), map[string]any{"server": true, "bootstrap_expect": servers}, options)
		all, ips = append(all, a), append(ips, a.IP)
	}
	for _, a := range all {
		a.config["retry_join"] = ips
		a.config["retry_interval"] = "1s"
		a.Start()
	}
	for _, a := range all {
		a.WaitReady()
	}
	return all
}

// Client starts an agent that is no server and joins the servers.
func Client(t testing.TB, servers []*Agent, options ...Option) *Agent {
	t.Helper()
	var ips []string
	for _, s := range servers {
		ips = append(ips, s.IP)
	}
	a := newAgent(t, "client", map[string]any{"server": false, "retry_join": ips, "retry_interval": "1s"}, options)
	a.Start()
	a.WaitReady()
	return a
}

var addresses atomic.Int32

// address returns a loopback address on which none of Consul's ports is taken.
func address(t testing.TB) string {
	for range 200 {
		n := int(addresses.Add(1))
		ip := fmt.Sprintf("127.%d.%d.%d", 40+os.Getpid()%150, os.Getpid()/150%250, 1+n%250)
		if free(ip) {
			return ip
		}
	}
	t.Fatal("no loopback address is free for Consul")
	return ""
}

func free(ip string) bool {
	for _, port := range []string{"8300", "8301", "8500", "8600"} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

func newAgent(t testing.TB, name string, config map[string]any, options []Option) *Agent {
	t.Helper()
	a := &Agent{t: t, Name: name, IP: address(t), Dir: t.TempDir(), config: map[string]any{
		"node_name": name, "log_level": "info", "disable_update_check": true, "disable_host_node_id": true,
		"leave_on_terminate": false, "skip_leave_on_interrupt": true,
		"performance": map[string]any{"raft_multiplier": 1},
		"connect":     map[string]any{"enabled": false},
		"ports":       map[string]any{"grpc": -1, "grpc_tls": -1, "serf_wan": -1},
	}}
	maps.Copy(a.config, config)
	for _, o := range options {
		o(a.config)
	}
	if _, acl := a.config["acl"]; acl {
		a.token = RootToken
	}
	a.config["bind_addr"], a.config["client_addr"], a.config["data_dir"] = a.IP, a.IP, filepath.Join(a.Dir, "data")
	Binary(t)
	t.Cleanup(a.Kill)
	return a
}

// Start starts the agent, again with what its data directory holds.
func (a *Agent) Start() {
	a.t.Helper()
	b, err := json.MarshalIndent(a.config, "", "  ")
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(a.Dir, "consul.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		a.t.Fatal(err)
	}
	if a.log, err = os.OpenFile(filepath.Join(a.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.cmd = exec.Command(Binary(a.t), "agent", "-config-file", file)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	done := make(chan struct{})
	a.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(a.cmd)
}

// Kill ends the agent at once, as a power failure would, and returns when it has ended. It may be called again.
func (a *Agent) Kill() {
	if a.cmd == nil {
		return
	}
	_ = a.cmd.Process.Kill()
	<-a.done
	a.log.Close()
	a.cmd = nil
}

// Wipe removes all that the agent knows. It must have been killed.
func (a *Agent) Wipe() {
	a.t.Helper()
	if err := os.RemoveAll(filepath.Join(a.Dir, "data")); err != nil {
		a.t.Fatal(err)
	}
}

// Stop makes the agent do nothing, not even answer, until Continue.
func (a *Agent) Stop() { _ = a.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a stopped agent go on.
func (a *Agent) Continue() { _ = a.cmd.Process.Signal(syscall.SIGCONT) }

// API returns a client of the agent, with RootToken where there are ACLs.
func (a *Agent) API() *api.Client {
	a.t.Helper()
	conf := api.DefaultConfig()
	conf.Address, conf.Token = a.HTTP(), a.token
	c, err := api.NewClient(conf)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// WaitReady waits until there is a leader and the agent is in the catalog.
func (a *Agent) WaitReady() {
	a.t.Helper()
	client := a.API()
	var last error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		node, _, err := client.Catalog().Node(a.Name, &api.QueryOptions{RequireConsistent: true})
		if err == nil && node != nil {
			return
		}
		last = err
		select {
		case <-a.done:
			a.t.Fatalf("Consul ended by itself: %s", a.Log())
		default:
		}
	}
	a.t.Fatalf("Consul at %s is not ready: %v: %s", a.IP, last, a.Log())
}

// Log returns the end of what the agent logged.
func (a *Agent) Log() string {
	b, _ := os.ReadFile(filepath.Join(a.Dir, "log"))
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}
