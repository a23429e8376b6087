package routing

import (
	"bufio"
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-dev/fairlead/plan"
)

// removeTable deletes the table as somebody else would.
func removeTable(t testing.TB, name string) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	conn.DelTable(&nftables.Table{Name: name, Family: family})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// foreignNAT makes a table of somebody else, because of which the kernel follows and translates connections also when
// ours is gone.
func foreignNAT(t testing.TB) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "foreign", Family: family})
	for name, hook := range map[string]*nftables.ChainHook{"pre": nftables.ChainHookPrerouting, "out": nftables.ChainHookOutput, "post": nftables.ChainHookPostrouting} {
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
		if name == "post" { // only rules that translate make the kernel follow connections
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(loadNetwork(0, 12, 4), equal(0, []byte{172, 31, 0, 1}), []expr.Any{&expr.Masq{}})})
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.DelTable(table)
		_ = conn.Flush()
	})
}

func TestConnectionsBegunWithoutTheTableSucceed(t *testing.T) {
	for name, foreign := range map[string]bool{"alone": false, "with another NAT": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			pods, client := l.servers(2), l.pod("client")
			if foreign {
				foreignNAT(t)
			}
			r := l.routes()
			l.set(r, route("web", "10.202.0.10", pods...))
			if err := r.take(t.Context()); err != nil { // nothing is repaired meanwhile
				t.Fatal(err)
			}
			removeTable(t, r.table)
			type result struct {
				who string
				err error
			}
			results := make(chan result)
			began := 0
			for who, from := range map[string]*place{"host": nil, "pod": client} {
				began++
				go func() {
					got, err := from.ask("10.202.0.10:80")
					if err == nil && !strings.HasPrefix(got, "pod") {
						t.Errorf("%s heard %q", who, got)
					}
					results <- result{who, err}
				}()
			}
			time.Sleep(300 * time.Millisecond)
			r.release()
			for range began {
				if got := <-results; got.err != nil {
					t.Errorf("a connection of %s that began without the table: %v", got.who, got.err)
				}
			}
		})
	}
}

// TestWholeRulesetFlushed is what the service of nftables does when it is started again.
func TestWholeRulesetFlushed(t *testing.T) {
	for _, program := range []string{"nft", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program)
		}
	}
	if out, err := exec.Command("iptables", "-V").Output(); err != nil || !strings.Contains(string(out), "nf_tables") {
		t.Skip("iptables does not write nftables")
	}
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", program, args, err, out)
		}
		return string(out)
	}
	l := newLab(t)
	pods, client, outside := l.servers(2), l.pod("client"), l.outside()
	outside.serve(t, 8080)
	engine := func() {
		t.Helper()
		run("iptables", "-P", "FORWARD", "DROP")
		run("iptables", "-N", "DOCKER-USER")
		run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
		run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
		run("iptables", "-A", "FORWARD", "-o", l.bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
		run("iptables", "-A", "FORWARD", "-i", l.bridge, "-j", "ACCEPT")
		run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "172.31.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE")
	}
	engine()
	t.Cleanup(func() { run("nft", "flush", "ruleset") })
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Ports[0].NodePort = 30080
	l.set(r, web)

	ways := []struct {
		name string
		from *place
		to   string
	}{
		{"host to Service", nil, "10.202.0.10:80"}, {"pod to Service", client, "10.202.0.10:80"},
		{"outside to node port", outside, "192.0.2.1:30080"}, {"pod to outside", client, "192.0.2.2:8080"},
	}
	type open struct {
		net.Conn
		in *bufio.Reader
	}
	var established []open
	for _, w := range ways {
		c, err := w.from.dial("tcp", w.to)
		if err != nil {
			t.Fatal(w.name, err)
		}
		defer c.Close()
		o := open{c, bufio.NewReader(c)}
		if _, err := o.in.ReadString('\n'); err != nil {
			t.Fatal(w.name, err)
		}
		established = append(established, o)
	}
	check := func(when string) {
		t.Helper()
		for i, w := range ways {
			c := established[i]
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write([]byte("still there\n")); err != nil {
				t.Errorf("%s: established, %s: %v", when, w.name, err)
			} else if got, err := c.in.ReadString('\n'); err != nil || got != "still there\n" {
				t.Errorf("%s: established, %s: %q, %v", when, w.name, got, err)
			}
			if got, err := w.from.ask(w.to); err != nil {
				t.Errorf("%s: new, %s: %v", when, w.name, err)
			} else if w.name == "pod to outside" && got != "outside 192.0.2.1" {
				t.Errorf("%s: new, %s: %q; want the host's address seen", when, w.name, got)
			}
		}
	}
	check("before")
	time.Sleep(200 * time.Millisecond) // acknowledgements are late by up to 40 ms, and the host refuses one that comes while nothing is translated
	flushed := time.Now()
	run("nft", "flush", "ruleset")
	waitFor(t, "the table", func() bool {
		return exec.CommandContext(context.Background(), "nft", "list", "table", "ip", r.table).Run() == nil
	})
	t.Log("the table was there again after", time.Since(flushed))
	check("after the flush")
	engine() // writes its rules anew
	waitFor(t, "the rule in DOCKER-USER", func() bool {
		return strings.Contains(run("iptables", "-S", "DOCKER-USER"), "fairlead "+l.bridge)
	})
	check("after the engine wrote its rules")
}

// TestWithoutABridgeAndServices holds that a host that has no network of pods, yet or any more, is no error, and
// that pods reach the outside without any Service.
func TestWithoutABridgeAndServices(t *testing.T) {
	l := newLab(t)
	o := l.options()
	o.Bridge = l.bridge + "x"
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	l.set(r)
	pods := l.servers(1)
	if err := r.Set(t.Context(), []*plan.Route{route("web", "10.202.0.10", pods...)}); err == nil || !strings.Contains(err.Error(), o.Bridge) {
		t.Errorf("a Service without a bridge gave %v; want an error that names it", err)
	}
	l.set(r)

	outside := l.outside()
	outside.serve(t, 8080)
	l.set(l.routes())
	if got, err := pods[0].ask("192.0.2.2:8080"); err != nil || got != "outside 192.0.2.1" {
		t.Errorf("a pod to the outside without any Service: %q, %v", got, err)
	}
}
