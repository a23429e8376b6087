package networking

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// The tests of links run in a network namespace of their own, so that nothing on the machine is
// touched and no firewall interferes. Pods are child processes with a namespace each.
const (
	roleVariable = "FAIRLEAD_NETWORKING_TEST"
	roleHost     = "host"
	rolePod      = "pod"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case rolePod:
		os.Exit(podMain())
	case roleHost:
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleHost)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace:", err)
		os.Exit(1)
	}
}

// podMain answers every connection to port 8080 with its name, and connects where its input says.
func podMain() int {
	l, err := net.Listen("tcp4", ":8080")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "hello %s\n", host)
			c.Close()
		}
	}()
	fmt.Println("ready")
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		fmt.Println(dial(s.Text()))
	}
	return 0
}

func dial(addr string) string {
	c, err := net.DialTimeout("tcp4", addr, 2*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	return strings.TrimSpace(string(b))
}

type testPod struct {
	pid int
	in  io.WriteCloser
	out *bufio.Reader
}

func (p *testPod) dial(t *testing.T, addr string) string {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, addr); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func startPod(t testing.TB) *testPod {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+rolePod)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	p := &testPod{pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("pod: %q, %v", line, err)
	}
	return p
}

// kernelMaker stands for the engine: its networks are bridges with the gateway's address.
type kernelMaker struct{ calls []string }

func (k *kernelMaker) EnsureNetwork(_ context.Context, name, bridge string, subnet, ipRange netip.Prefix, gateway netip.Addr) error {
	k.calls = append(k.calls, fmt.Sprint("ensure ", name, " ", bridge, " ", subnet, " ", ipRange, " ", gateway))
	if len(k.calls) > 1 {
		return nil // like the engine, it does not look whether the bridge is still there
	}
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := netlink.LinkAdd(b); err != nil {
		return err
	}
	return netlink.LinkSetUp(b)
}

func (k *kernelMaker) RemoveNetwork(_ context.Context, name string) error {
	k.calls = append(k.calls, "remove "+name)
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func newNetwork(t testing.TB) (*Network, *kernelMaker) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root and network namespaces")
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root; use -short without")
	}
	maker := &kernelMaker{}
	n, err := New(maker, Options{Bridge: "flt0", CIDR: netip.MustParsePrefix("10.201.0.0/20"), MTU: 1400})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		if left := linkNames(t); !slices.Equal(left, []string{"lo"}) {
			t.Errorf("interfaces left over: %q", left)
		}
	})
	return n, maker
}

func linkNames(t testing.TB) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		// Interfaces that every new namespace has on some kernels are of no interest.
		if t := l.Type(); t == "device" && l.Attrs().Name == "lo" || t == "veth" || t == "bridge" {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names
}

func attach(t testing.TB, n *Network, pid int, uid, ip string) {
	t.Helper()
	if err := n.Attach(t.Context(), pid, uid, netip.MustParseAddr(ip)); err != nil {
		t.Fatal(err)
	}
}

func TestAttachedPodsReachEachOtherAndTheHost(t *testing.T) {
	n, maker := newNetwork(t)
	a, b := startPod(t), startPod(t)
	attach(t, n, a.pid, "uid-a", "10.201.0.2")
	attach(t, n, b.pid, "uid-b", "10.201.0.3")

	l, err := net.Listen("tcp4", "10.201.0.1:9090")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "host")
			c.Close()
		}
	}()
	got := map[string]string{
		"a to b":       a.dial(t, "10.201.0.3:8080"),
		"b to a":       b.dial(t, "10.201.0.2:8080"),
		"a to itself":  a.dial(t, "10.201.0.2:8080"),
		"a to its lo":  a.dial(t, "127.0.0.1:8080"),
		"a to host":    a.dial(t, "10.201.0.1:9090"),
		"host to b":    dial("10.201.0.3:8080"),
		"host to none": dial("10.201.0.4:8080"),
	}
	want := map[string]string{
		"a to b":       "hello 10.201.0.2",
		"b to a":       "hello 10.201.0.3",
		"a to itself":  "hello 10.201.0.2",
		"a to its lo":  "hello 127.0.0.1",
		"a to host":    "host",
		"host to b":    "hello 10.201.0.1",
		"host to none": "dial tcp4 10.201.0.4:8080: i/o timeout",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("connections (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"ensure flt0 flt0 10.201.0.0/20 10.201.15.0/24 10.201.0.1"}, maker.calls); d != "" {
		t.Errorf("calls of the engine (-want +got):\n%s", d)
	}
	sameNamespaceEverywhere(t)
}

// sameNamespaceEverywhere holds that no thread stayed in a pod's namespace.
func sameNamespaceEverywhere(t *testing.T) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads found: %v", err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != own {
			t.Errorf("%s is in %s, the process in %s", task, ns, own)
		}
	}
}

func TestAttachAgainChangesNothing(t *testing.T) {
	n, _ := newNetwork(t)
	p := startPod(t)
	attach(t, n, p.pid, "uid", "10.201.0.9")
	before, err := netlink.LinkByName(n.Link("uid"))
	if err != nil {
		t.Fatal(err)
	}
	attach(t, n, p.pid, "uid", "10.201.0.9")
	after, err := netlink.LinkByName(n.Link("uid"))
	if err != nil {
		t.Fatal(err)
	}
	if before.Attrs().Index != after.Attrs().Index {
		t.Errorf("the link was made again: index %d, then %d", before.Attrs().Index, after.Attrs().Index)
	}
	if after.Attrs().MTU != 1400 || after.Attrs().Alias != "fairlead flt0 uid" {
		t.Errorf("link has MTU %d and alias %q", after.Attrs().MTU, after.Attrs().Alias)
	}
	if got := dial("10.201.0.9:8080"); got != "hello 10.201.0.1" {
		t.Errorf("host to pod: %s", got)
	}
}

func TestAttachRepairs(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, n *Network){
		"link deleted by hand": func(t *testing.T, n *Network) {
			must(t, netlink.LinkDel(link(t, n.Link("uid"))))
		},
		"link taken off the bridge and down": func(t *testing.T, n *Network) {
			must(t, netlink.LinkSetNoMaster(link(t, n.Link("uid"))))
			must(t, netlink.LinkSetDown(link(t, n.Link("uid"))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := newNetwork(t)
			p := startPod(t)
			attach(t, n, p.pid, "uid", "10.201.0.9")
			breakIt(t, n)
			attach(t, n, p.pid, "uid", "10.201.0.9")
			if got := dial("10.201.0.9:8080"); got != "hello 10.201.0.1" {
				t.Errorf("host to pod: %s", got)
			}
		})
	}
}

func TestAttachTakesTheLinkOfAReplacedSandbox(t *testing.T) {
	n, _ := newNetwork(t)
	first, second := startPod(t), startPod(t)
	attach(t, n, first.pid, "uid", "10.201.0.9")
	attach(t, n, second.pid, "uid", "10.201.0.9")
	if got := dial("10.201.0.9:8080"); got != "hello 10.201.0.1" {
		t.Errorf("host to pod: %s", got)
	}
	if got := second.dial(t, "10.201.0.9:8080"); got != "hello 10.201.0.9" {
		t.Errorf("the new sandbox to itself: %s", got)
	}
}

func TestAttachRefuses(t *testing.T) {
	n, _ := newNetwork(t)
	for _, test := range []struct {
		name string
		pid  int
		ip   string
		want string
	}{
		{"the host's namespace", os.Getpid(), "10.201.0.2", "it is the host's"},
		{"a foreign address", 1, "10.202.0.2", "the address 10.202.0.2 is outside of the pods' subnet 10.201.0.0/20"},
		{"a process that is gone", 1 << 22, "10.201.0.2", "no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := n.Attach(t.Context(), test.pid, "uid", netip.MustParseAddr(test.ip))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestEnsureRebuildsADeletedBridge(t *testing.T) {
	n, _ := newNetwork(t)
	a, b := startPod(t), startPod(t)
	attach(t, n, a.pid, "uid-a", "10.201.0.2")
	attach(t, n, b.pid, "uid-b", "10.201.0.3")
	must(t, netlink.LinkDel(link(t, "flt0")))
	if err := n.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.dial(t, "10.201.0.3:8080"); got != "hello 10.201.0.2" {
		t.Errorf("a to b: %s", got)
	}
	if got := dial("10.201.0.3:8080"); got != "hello 10.201.0.1" {
		t.Errorf("host to b: %s", got)
	}
}

func TestDetachAndStrays(t *testing.T) {
	n, _ := newNetwork(t)
	p := startPod(t)
	attach(t, n, p.pid, "uid-a", "10.201.0.2")
	q := startPod(t)
	attach(t, n, q.pid, "uid-b", "10.201.0.3")
	// Neither another installation's link nor a foreign one with such a name may be touched.
	foreign := []string{n.linkPrefix() + "foreign1", "fl-other"}
	for i, name := range foreign {
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: fmt.Sprint("peer", i)}))
	}
	t.Cleanup(func() {
		for _, name := range foreign {
			must(t, netlink.LinkDel(link(t, name)))
		}
	})
	removed, err := n.Strays(t.Context(), []string{"uid-a"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{n.Link("uid-b")}, removed); d != "" {
		t.Errorf("strays (-want +got):\n%s", d)
	}
	for range 2 {
		if err := n.Detach(t.Context(), "uid-a"); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"flt0", "lo", "peer0", "peer1"}
	want = append(want, foreign...)
	slices.Sort(want)
	if d := cmp.Diff(want, linkNames(t)); d != "" {
		t.Errorf("interfaces (-want +got):\n%s", d)
	}
}

func link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAttach is what wiring costs a pod's start.
func BenchmarkAttach(b *testing.B) {
	n, _ := newNetwork(b)
	ip := netip.MustParseAddr("10.201.0.2")
	for b.Loop() {
		b.StopTimer()
		p := startPod(b)
		b.StartTimer()
		if err := n.Attach(b.Context(), p.pid, "uid", ip); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		p.in.Close()
		must(b, n.Detach(context.Background(), "uid"))
		b.StartTimer()
	}
}
