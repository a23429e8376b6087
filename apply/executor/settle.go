package executor

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Kubernetes' limits of a termination message.
const (
	maxTerminationMessage = 4096
	maxTerminationLog     = 2048
	terminationLogLines   = 80
)

// tailLines is how many lines of the log of a failed container are shown.
const tailLines = 10

// settle finds out what the end of a container was about: whether memory ran out, its message, the
// end of its log. The next attempt does not wait for it.
func (p *pod) settle(c *container, startFailed bool) {
	id, spec, attempt, code := c.id, c.spec, c.attempt, c.code
	if id == "" {
		return
	}
	p.begin(func() func() {
		ctx, cancel := context.WithTimeout(p.node.ctx, 30*time.Second)
		defer cancel()
		seen, err := p.node.opt.Engine.Inspect(ctx, id)
		var message string
		var lines []string
		if !startFailed {
			message = p.terminationMessage(ctx, id, spec, attempt, code)
			if code != 0 {
				lines = p.node.logTail(ctx, id, tailLines)
			}
		}
		return func() {
			if c.attempt != attempt && (c.previous == nil || c.previous.id != id) {
				return
			}
			if c.last.Message == "" {
				c.last.Message = message
			}
			if len(lines) > 0 {
				p.state.logTail = lines
			}
			if err != nil {
				return
			}
			if seen.OOM {
				c.last.OOM, c.last.Reason = true, reasonOOMKilled
				if c.id == id {
					c.oom = true
				}
			}
			if startFailed && seen.Error != "" {
				c.last.Message = seen.Error
			}
		}
	})
}

func (p *pod) terminationMessage(ctx context.Context, id string, spec *corev1.Container, attempt, code int) string {
	message, err := p.node.opt.Volumes.ReadTerminationLog(p.uid, spec.Name, attempt, maxTerminationMessage)
	if err != nil {
		return err.Error()
	}
	if message == "" && code != 0 && spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		message = strings.Join(p.node.logTail(ctx, id, terminationLogLines), "\n")
		if len(message) > maxTerminationLog {
			message = strings.ToValidUTF8(message[len(message)-maxTerminationLog:], "")
		}
	}
	return message
}

// logTail returns the last lines of a container's log; none when it cannot be read.
func (n *Node) logTail(ctx context.Context, id string, lines int) []string {
	var out bytes.Buffer
	if err := n.opt.Engine.Logs(ctx, id, runtimes.LogOptions{Tail: lines}, &out, &out); err != nil {
		return nil
	}
	text := strings.TrimRight(strings.ToValidUTF8(out.String(), "�"), "\n")
	if text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	return all[max(0, len(all)-lines):]
}

// mustNotBeRoot reports whether runAsNonRoot holds for a container.
func mustNotBeRoot(pod *corev1.PodSpec, c *corev1.Container) bool {
	if c.SecurityContext != nil && c.SecurityContext.RunAsNonRoot != nil {
		return *c.SecurityContext.RunAsNonRoot
	}
	return pod.SecurityContext != nil && pod.SecurityContext.RunAsNonRoot != nil && *pod.SecurityContext.RunAsNonRoot
}

// provenNonRoot looks at the process itself: images can say anything of their users. A process that has ended
// proves nothing and harms nothing.
func provenNonRoot(pid int) error {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		for _, id := range strings.Fields(ids) {
			if id == "0" {
				return problemf(reasonConfigError, "container has runAsNonRoot and its process runs as root: set runAsUser, or an image user that is not root")
			}
		}
		return nil
	}
	return nil
}
