package plan

import (
	"fmt"
	"strings"
	"time"
)

// String returns one line per step: its number, what it does to which pod, on which node, after which
// steps, and why.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// String returns the step on one line.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", s.ID, s.Op)
	switch args := s.Args.(type) {
	case PullImage:
		b.WriteString(" " + args.Image)
		if args.Always {
			b.WriteString(" always")
		}
	case SetService:
		fmt.Fprintf(&b, " %s/%s", s.Target.Namespace, s.Target.Name)
		if shown := args.Service.shown(); shown != "" {
			b.WriteString(" (" + shown + ")")
		}
	case DeleteService:
		fmt.Fprintf(&b, " %s/%s", s.Target.Namespace, s.Target.Name)
	case SetEndpoints, DeleteEndpoints:
		fmt.Fprintf(&b, " %s/%s (%s)", s.Target.Namespace, s.Target.Name, s.Target.Kind)
	case SetStorage:
		b.WriteString(" " + args.Storage.String())
	case DeleteStorage:
		b.WriteString(" " + args.Storage.String())
		if args.Keep {
			b.WriteString(" and keep what it holds")
		}
	case WaitHealthy:
		b.WriteString(" before " + args.Stage.String())
	case CreatePod, DeletePod:
		fmt.Fprintf(&b, " %s/%s", s.Target.Namespace, s.Target.Name)
	case MovePod:
		fmt.Fprintf(&b, " %s/%s (%s → %s)", s.Target.Namespace, s.Target.Name, args.From, args.To)
	case UpdatePod:
		fmt.Fprintf(&b, " %s/%s (%s)", s.Target.Namespace, s.Target.Name, strings.Join(args.Changes, ", "))
	case WaitReady:
		fmt.Fprintf(&b, " %s/%s", s.Target.Namespace, s.Target.Name)
		if args.MinReady > 0 {
			fmt.Fprintf(&b, " for %s", args.MinReady)
		}
		if !args.Deadline.IsZero() {
			fmt.Fprintf(&b, " until %s", args.Deadline.UTC().Format(time.RFC3339))
		}
	}
	if s.Node != "" {
		b.WriteString(" on " + string(s.Node))
	}
	if len(s.After) > 0 {
		b.WriteString(" after")
		for i, id := range s.After {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %d", id)
		}
	}
	b.WriteString(": " + strings.ReplaceAll(s.Cause, "\n", " "))
	return b.String()
}
