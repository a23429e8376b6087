package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// inNamespace are those of a namespace; empty is every one.
func inNamespace[T any](all []T, namespace string, of func(T) string) []T {
	var out []T
	for _, x := range all {
		if namespace == "" || of(x) == namespace {
			out = append(out, x)
		}
	}
	return out
}

// imagePolicyTable shows what policies choose.
func imagePolicyTable(all []api.ImagePolicy, now time.Time) table {
	t := table{head: []string{"NAME", "LATEST", "SINCE", "POLICY", "TAGS", "SCANNED", "MESSAGE"}}
	kind, _ := findResource("ImagePolicy")
	for _, p := range all {
		message := p.Message
		if p.Suspended {
			message = strings.TrimSpace("suspended " + message)
		}
		t.rows = append(t.rows, row{kind.ref(p.Namespace, p.Name), []string{
			p.Name, orNone(p.Latest), since(now, p.Since), p.Policy, strconv.Itoa(p.Tags), since(now, p.Scanned), message,
		}})
		t.items = append(t.items, own("ImagePolicy", p))
	}
	return t
}

// imageAutomationTable shows what automations have done, and what they wait for.
func imageAutomationTable(all []api.ImageAutomation, now time.Time) table {
	t := table{head: []string{"NAME", "SOURCE", "RAN", "PUSHED", "REVISION", "BRANCH", "PENDING", "MESSAGE"}}
	kind, _ := findResource("ImageUpdateAutomation")
	for _, x := range all {
		message := x.Message
		switch {
		case x.Suspended:
			message = strings.TrimSpace("suspended " + message)
		case message == "" && len(x.Pending) > 0:
			c := x.Pending[0]
			message = fmt.Sprintf("%s:%d: %s → %s", c.File, c.Line, c.Old, c.New)
			if n := len(x.Pending) - 1; n > 0 {
				message += fmt.Sprintf(" and %d more", n)
			}
			if x.PullRequest != "" {
				message = x.PullRequest + " " + message
			}
		}
		t.rows = append(t.rows, row{kind.ref(x.Namespace, x.Name), []string{
			x.Name, x.Source, since(now, x.Ran), since(now, x.Pushed), orNone(x.Revision[:min(12, len(x.Revision))]), orNone(x.Branch), strconv.Itoa(len(x.Pending)), message,
		}})
		t.items = append(t.items, own("ImageUpdateAutomation", x))
	}
	return t
}

func since(now, at time.Time) string {
	if at.IsZero() {
		return "<never>"
	}
	return age(now, at) + " ago"
}
