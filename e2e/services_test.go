package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// cmdConsul does something with a Consul server of the script's own. The first start tells its address to the daemon's
// settings; $CONSUL and $CONSUL_DNS are set from then on.
func cmdConsul(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	if neg || len(args) != 1 || (h.consul == nil) != (args[0] == "begin") {
		ts.Fatalf("usage: consul begin, and after it consul kill|start|wipe|stop|continue")
	}
	switch args[0] {
	case "begin":
		h.consul = consultest.Server(h.t)
		ts.Setenv("CONSUL", h.consul.HTTP())
		ts.Setenv("CONSUL_DNS", h.consul.DNS())
		f, err := os.OpenFile(ts.Getenv("FAIRLEAD_CONFIG"), os.O_APPEND|os.O_WRONLY, 0)
		ts.Check(err)
		_, err = fmt.Fprintf(f, "consul: {address: %s, dns: %s, compare: 1s}\n", h.consul.HTTP(), h.consul.DNS())
		ts.Check(err)
		ts.Check(f.Close())
	case "kill":
		h.consul.Kill()
	case "start":
		h.consul.Start()
		h.consul.WaitReady()
	case "wipe":
		h.consul.Kill()
		h.consul.Wipe()
	case "stop":
		h.consul.Stop()
	case "continue":
		h.consul.Continue()
	default:
		ts.Fatalf("consul knows no %s", args[0])
	}
}

// hasProgram is the condition [program:NAME]: the program is installed.
func hasProgram(cond string) (bool, error) {
	name, ok := strings.CutPrefix(cond, "program:")
	if !ok {
		return false, fmt.Errorf("unknown condition %s", cond)
	}
	_, err := exec.LookPath(name)
	return err == nil, nil
}

// cmdBackends fails unless a number of requests to an address, one connection each, is answered by exactly that many
// different pods.
func cmdBackends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: backends COUNT URL")
	}
	var want int
	_, err := fmt.Sscan(args[0], &want)
	ts.Check(err)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	seen := map[string]bool{}
	deadline := time.Now().Add(10 * time.Second)
	for len(seen) < want || time.Now().Before(deadline.Add(-9*time.Second)) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s was answered by %d pods, not %d: %v", args[1], len(seen), want, seen)
		}
		body, err := pageBy(client, args[1])
		ts.Check(err)
		seen[body] = true
	}
	if len(seen) != want {
		ts.Fatalf("%s was answered by %d pods, not %d: %v", args[1], len(seen), want, seen)
	}
}

// cmdRefused fails unless a TCP connection to an address is refused at once.
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: refused ADDRESS:PORT")
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", args[0], 3*time.Second)
		if err == nil {
			conn.Close()
		}
		if err != nil && strings.Contains(err.Error(), "refused") {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("a connection to %s is not refused: %v", args[0], err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cmdCapture keeps what the last command printed in a variable.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if neg || len(args) != 1 || value == "" {
		ts.Fatalf("usage: capture NAME, after a command that printed something")
	}
	ts.Setenv(args[0], value)
}

// cmdChange replaces a text in a file of a work tree and commits it.
func cmdChange(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: change DIR FILE FROM TO")
	}
	file := ts.MkAbs(filepath.Join(args[0], args[1]))
	before := ts.ReadFile(file)
	if !strings.Contains(before, args[2]) {
		ts.Fatalf("%s does not contain %q", file, args[2])
	}
	ts.Check(os.WriteFile(file, []byte(strings.ReplaceAll(before, args[2], args[3])), 0o600))
	cmdCommit(ts, false, []string{args[0], "Replace " + args[2] + " by " + args[3]})
}

// cmdRolled waits until the application of a work tree runs its newest commit.
func cmdRolled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rolled DIR")
	}
	ts.Check(ts.Exec("git", "-C", ts.MkAbs(args[0]), "rev-parse", "HEAD"))
	head := strings.TrimSpace(ts.ReadFile("stdout"))
	deadline := time.Now().Add(time.Minute)
	for {
		var list struct{ Items []api.Application }
		err := ts.Exec("fairlead", "get", "applications", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(ts.ReadFile("stdout")), &list)
		}
		if err == nil && len(list.Items) == 1 && list.Items[0].Ready && list.Items[0].Applied.ID == head {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(ts.MkAbs("daemon.log"))
			ts.Fatalf("%s is not rolled out after a minute (%v)\n%s", head, err, log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cmdFlush deletes the kernel's table of the installation's Services, as somebody else's firewall script would.
func cmdFlush(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: flush")
	}
	c, err := nftables.New()
	ts.Check(err)
	tables, err := c.ListTables()
	ts.Check(err)
	found := 0
	for _, t := range tables {
		if strings.Contains(t.Name, hostOf(ts).installation) {
			c.DelTable(t)
			found++
		}
	}
	if found == 0 {
		ts.Fatalf("the kernel has no table of %s", hostOf(ts).installation)
	}
	ts.Check(c.Flush())
}
