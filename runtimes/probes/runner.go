package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ExecFunc runs a command in the target's container and waits for it. The output may be cut at any
// length. An error means that the command could not be run, or that ctx ended.
type ExecFunc func(ctx context.Context, t Target, cmd []string) (code int, output []byte, err error)

// Runner makes attempts from the host's network: it is the Prober of real containers, and runs
// lifecycle hooks.
type Runner struct {
	exec   ExecFunc
	dialer *net.Dialer
	http   *http.Transport
}

// NewRunner returns a Runner that runs commands with exec.
func NewRunner(exec ExecFunc) *Runner {
	d := &net.Dialer{
		KeepAlive: -1,
		Control:   linger,
	}
	return &Runner{exec: exec, dialer: d, http: newTransport(d)}
}

// linger closes probing connections with a short linger, so that they leave few sockets behind in
// TIME_WAIT.
func linger(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
	}); e != nil {
		return e
	}
	return err
}

// maxMessage is how much of an answer or an output becomes part of a message.
const maxMessage = 1024

// Probe implements Prober.
func (r *Runner) Probe(ctx context.Context, p *corev1.Probe, c *corev1.Container, t Target) (Outcome, error) {
	switch {
	case p.Exec != nil:
		return r.command(ctx, p.Exec.Command, t)
	case p.HTTPGet != nil:
		return r.get(ctx, p.HTTPGet, c, t)
	case p.TCPSocket != nil:
		return r.connect(ctx, p.TCPSocket, c, t)
	case p.GRPC != nil:
		return r.health(ctx, p.GRPC, t)
	}
	return Outcome{}, errors.New("the probe has no handler")
}

func (r *Runner) command(ctx context.Context, cmd []string, t Target) (Outcome, error) {
	code, output, err := r.exec(ctx, t, cmd)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Outcome{Message: fmt.Sprintf("the command %q timed out", cmd)}, nil
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("run %q: %w", cmd, err)
	}
	if code != 0 {
		return Outcome{Message: fmt.Sprintf("the command %q exited with code %d: %s", cmd, code, excerpt(output))}, nil
	}
	return Outcome{Success: true}, nil
}

func (r *Runner) connect(ctx context.Context, a *corev1.TCPSocketAction, c *corev1.Container, t Target) (Outcome, error) {
	port, err := portNumber(a.Port, c)
	if err != nil {
		return Outcome{}, err
	}
	conn, err := r.dialer.DialContext(ctx, "tcp", address(a.Host, t, port))
	if err != nil {
		return Outcome{Message: message(err)}, nil
	}
	conn.Close()
	return Outcome{Success: true}, nil
}

// Hook runs a postStart or preStop handler and blocks until it is over or ctx ends. A tcpSocket
// handler does nothing, as in Kubernetes.
func (r *Runner) Hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, t Target) error {
	switch {
	case h.Exec != nil:
		code, output, err := r.exec(ctx, t, h.Exec.Command)
		if err != nil {
			return fmt.Errorf("run %q: %w", h.Exec.Command, err)
		}
		if code != 0 {
			return fmt.Errorf("the command %q exited with code %d: %s", h.Exec.Command, code, excerpt(output))
		}
		return nil
	case h.HTTPGet != nil:
		out, err := r.get(ctx, h.HTTPGet, c, t)
		if err != nil {
			return err
		}
		if !out.Success {
			return errors.New(out.Message)
		}
		return nil
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// portNumber resolves a port that may be the name of one of the container's ports.
func portNumber(p intstr.IntOrString, c *corev1.Container) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String {
		found := false
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				port, found = int(cp.ContainerPort), true
				break
			}
		}
		if n, err := strconv.Atoi(p.StrVal); !found && err != nil {
			return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
		} else if !found {
			port = n
		}
	}
	if port < 1 || port > 65535 {
		return 0, fmt.Errorf("container %s: %s is not a port", c.Name, p.String())
	}
	return port, nil
}

// address joins host, or the pod's address when there is none, and the port.
func address(host string, t Target, port int) string {
	if host == "" {
		host = t.IP
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

func excerpt(b []byte) string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(b[:min(len(b), maxMessage)]), "?"))
	if len(b) > maxMessage {
		s += "…"
	}
	return s
}

// message shortens the errors of a timeout, which name Go's internals.
func message(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timed out: " + err.Error()
	}
	return err.Error()
}
