package e2e

import (
	"errors"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// notifySocket is what systemd has for a service with Type=notify.
type notifySocket struct {
	mu    sync.Mutex
	lines []string
}

// cmdSystemd listens at $NOTIFY_SOCKET the first time, without arguments, and then waits for lines.
func cmdSystemd(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	switch {
	case neg || len(args) > 1 || (len(args) == 1) != (h.notified != nil):
		ts.Fatalf("usage: systemd, and after it systemd PATTERN")
	case len(args) == 0:
		// Paths of sockets are short; $WORK is long.
		dir, err := os.MkdirTemp("", "fl")
		ts.Check(err)
		file := dir + "/notify"
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: file, Net: "unixgram"})
		ts.Check(err)
		h.notified = &notifySocket{}
		go h.notified.read(conn)
		ts.Defer(func() { ts.Check(errors.Join(conn.Close(), os.RemoveAll(dir))) })
		ts.Setenv("NOTIFY_SOCKET", file)
	default:
		want := regexp.MustCompile("(?m)" + args[0])
		deadline := time.Now().Add(30 * time.Second)
		for !want.MatchString(h.notified.text()) {
			if time.Now().After(deadline) {
				ts.Fatalf("systemd was not told %s, but\n%s", args[0], h.notified.text())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// read keeps what comes until the socket is closed.
func (n *notifySocket) read(conn *net.UnixConn) {
	buf := make([]byte, 4096)
	for {
		size, err := conn.Read(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.lines = append(n.lines, strings.Split(string(buf[:size]), "\n")...)
		n.mu.Unlock()
	}
}

func (n *notifySocket) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

// cmdCrash kills the daemon after a while and starts it again.
func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	if neg || len(args) != 1 || h.daemon == nil {
		ts.Fatalf("usage: crash DURATION, while a daemon runs")
	}
	wait, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(wait) // the moment is what is tested
	ts.Check(h.stop(syscall.SIGKILL))
	cmdDaemon(ts, false, h.args)
}

// freeAddress returns an address of this machine at which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
