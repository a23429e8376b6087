package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// why is one thing, how it is, and what that follows from.
type why struct {
	// Subject names the thing: "application shop", "Deployment shop/web", "pod shop/web-1".
	Subject string `json:"subject"`
	// State is "as it should be", or one word in Kubernetes' or the application's words, Message says more.
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
	// Do is what a person can do about it.
	Do string `json:"do,omitempty"`
	// Because are the things that it follows from.
	Because []why `json:"because,omitempty"`
}

// fine is the state of what needs no explanation.
const fine = "as it should be"

func (a *app) whyCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "why APPLICATION | KIND/NAME",
		Short: "Say why something is not as it should be",
		Long: `Say what an application, a workload, a pod, a Service or a source waits for, or why it is as it is, as a
chain: each line follows from those that are indented below it. Other applications, earlier waves and hooks that
are waited for are part of it.

Exit codes: 0 when it is as it should be, 2 when it is not, 1 on an error.`,
		Example: `  fairlead why shop
  fairlead why deploy/web -n shop
  fairlead why svc/web -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), Look, func(b api.Backend) error { return a.why(c.Context(), b, args[0]) })
		},
	}
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

func (a *app) why(ctx context.Context, b api.Backend, arg string) error {
	e, err := newExplainer(ctx, b)
	if err != nil {
		return err
	}
	found, known := e.application(arg, nil), false
	if _, known = e.apps[arg]; !known {
		if !strings.Contains(arg, "/") {
			err := a.applicationError(ctx, b, notFoundError(fmt.Sprintf("there is no application %q", arg)), []string{arg})
			return notFoundError(fmt.Sprintf("%v; of something else say the kind too, as in deploy/%s", err, arg))
		}
		r, name, err := parseKindName(arg)
		if err != nil {
			return err
		}
		ref, err := a.find(ctx, b, r, name)
		if err != nil {
			return err
		}
		if found, err = e.thing(ctx, b, ref); err != nil {
			return err
		}
	}
	if a.output == "json" || a.output == "yaml" {
		if err := a.printValue(found); err != nil {
			return err
		}
	} else {
		a.printWhy(found, 0)
	}
	if found.State != fine {
		return exitCode(2)
	}
	return nil
}

func (a *app) printWhy(w why, depth int) {
	indent := strings.Repeat("  ", depth)
	line := planview.Clean(w.Subject) + ": " + planview.Clean(w.State)
	if w.Message != "" {
		line += ": " + planview.Clean(w.Message)
	}
	fmt.Fprintf(a.Stdout, "%s%s\n", indent, line)
	if w.Do != "" {
		fmt.Fprintf(a.Stdout, "%s  do: %s\n", indent, planview.Clean(w.Do))
	}
	for _, x := range w.Because {
		a.printWhy(x, depth+1)
	}
}

// explainer knows what is read once for an explanation.
type explainer struct {
	apps     map[string]api.Application
	sources  map[string]api.Source
	pods     []api.Pod
	services []api.Service
}

func newExplainer(ctx context.Context, b api.Backend) (*explainer, error) {
	e := &explainer{apps: map[string]api.Application{}, sources: map[string]api.Source{}}
	apps, err := b.Applications(ctx)
	if err != nil {
		return nil, err
	}
	for _, app := range apps {
		e.apps[app.Name] = app
	}
	srcs, err := b.Sources(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range srcs {
		e.sources[s.Name] = s
	}
	if e.pods, err = b.Pods(ctx, api.Query{}); err != nil {
		return nil, err
	}
	e.services, err = b.Services(ctx, api.Query{})
	return e, err
}

// application explains an application; above are those that wait for it, which are not explained again.
func (e *explainer) application(name string, above []string) why {
	out := why{Subject: "application " + name, State: fine}
	app, known := e.apps[name]
	switch {
	case !known:
		out.State, out.Message = "NotDeclared", "no application of that name is declared"
		return out
	case slices.Contains(above, name):
		out.State, out.Message = "Circular", "it waits for itself: "+strings.Join(append(above, name), " → ")
		return out
	}
	if !app.Ready || app.Reason == "Suspended" {
		out.State, out.Message = app.Reason, app.Message
		if out.State == "" {
			out.State = string(app.Health)
		}
	}
	add := func(w why) {
		if w.State != fine {
			out.Because = append(out.Because, w)
		}
	}
	add(e.source(app.Source))
	if app.Reason == "DependencyNotReady" || app.Reason == "DependencyFailed" {
		for _, d := range app.DependsOn {
			add(e.application(d, append(slices.Clone(above), name)))
		}
	}
	if f := app.Failure; f != nil {
		out.Message, _, _ = strings.Cut(out.Message, "\n") // the log is told with what failed
		add(failed(f))
		out.Do = "push a fix, or try it again with `fairlead reconcile " + name + "`"
	}
	if app.Blocked != nil {
		out.Do = "fairlead approve " + name + " " + app.Blocked.Digest
	}
	switch app.Reason {
	case "Suspended":
		out.Do = "take suspend out of its declaration, or `fairlead reconcile " + name + "` after `fairlead down`"
		if app.Suspension != nil && app.Suspension.By != "" {
			out.Do = "fairlead resume " + name
		}
	case "OutOfSync":
		out.Do = "fairlead apply " + name
	case "SyncFailed":
		out.Do = "commit what mends it, or try the same again: fairlead apply " + name
	}
	for _, d := range app.Diagnostics {
		if d.Severity == diag.Error {
			subject := d.Ref.String()
			if d.Origin.Path != "" {
				subject = d.Origin.String()
			}
			add(why{Subject: subject, State: d.Code, Message: d.Message, Do: d.Hint})
		}
	}
	for _, w := range app.Workloads {
		if w.Reason == "SyncFailed" && app.Reason == "SyncFailed" {
			continue // it waits for what the application says itself
		}
		add(e.workload(w))
	}
	if len(out.Because) > 0 && out.State == fine {
		out.State, out.Message = "Degraded", "something of it is not as it should be"
	}
	return out
}

// failed explains a revision that failed, by what failed of it and its last log lines.
func failed(f *api.Failure) why {
	message, log, _ := strings.Cut(f.Message, "\n")
	out := why{Subject: "revision " + f.Revision.Short, State: f.Reason, Message: message}
	if lines := strings.Split(strings.TrimSpace(log), "\n"); log != "" {
		out.Because = append(out.Because, why{Subject: "last log line", State: lines[len(lines)-1]})
	}
	if f.BackReason != "" {
		message, _, _ := strings.Cut(f.BackMessage, "\n")
		out.Because = append(out.Because, why{Subject: "going back to " + f.Back.Short, State: f.BackReason, Message: message})
	}
	return out
}

// source explains a source.
func (e *explainer) source(name string) why {
	out := why{Subject: "source " + name, State: fine}
	s, known := e.sources[name]
	switch {
	case !known:
		out.State, out.Message = "NotDeclared", "no source of that name is declared"
	case s.Suspended:
		out.State, out.Message = "Suspended", "what was fetched last stays in force"
	case !s.Ready:
		out.State, out.Message = "NotFetched", s.Message
	}
	return out
}

// workload explains a workload, or a Service, by its pods.
func (e *explainer) workload(w plan.WorkloadStatus) why {
	out := why{Subject: w.Ref.String(), State: fine}
	if w.Health == "" || w.Health == "Healthy" {
		return out
	}
	out.State, out.Message = w.Health, w.Message
	if w.Reason != "" {
		out.State = w.Reason
	}
	if w.Ref.Kind == "Service" {
		for _, s := range e.services {
			if s.Ref == w.Ref {
				out.Because = e.service(s).Because
			}
		}
		return out
	}
	for _, ref := range w.WaitsFor {
		if x := e.waitedFor(ref); x.State != fine {
			out.Because = append(out.Because, x)
		}
	}
	for _, p := range e.pods {
		if p.Owner == w.Ref || p.PodKey.Ref() == w.Ref {
			if x := e.pod(p); x.State != fine {
				out.Because = append(out.Because, x)
			}
		}
	}
	return out
}

// waitedFor explains an object that another one waits for. What it waits for itself is waited for by both, so it is
// explained once.
func (e *explainer) waitedFor(ref object.Ref) why {
	for _, app := range e.apps {
		for _, w := range app.Workloads {
			if w.Ref == ref {
				w.WaitsFor = nil
				return e.workload(w)
			}
		}
	}
	return why{Subject: ref.String(), State: "NotApplied", Message: "it is not applied yet"}
}

// pod explains a pod by its containers.
func (e *explainer) pod(p api.Pod) why {
	out := why{Subject: "pod " + p.PodKey.String(), State: fine}
	if p.IsReady || p.Phase == "Succeeded" {
		return out
	}
	out.State, out.Message = p.Status, p.Message
	for _, c := range p.Containers {
		if c.Ready || c.Reason == "" || c.Reason == "Completed" {
			continue
		}
		x := why{Subject: "container " + c.Name, State: c.Reason, Message: c.Message}
		if c.ExitCode != 0 {
			x.Message = strings.TrimPrefix(fmt.Sprintf("%s, exit code %d", x.Message, c.ExitCode), ", ")
		}
		out.Because = append(out.Because, x)
	}
	if n := len(p.LogTail); n > 0 {
		out.Because = append(out.Because, why{Subject: "last log line", State: p.LogTail[n-1]})
	}
	return out
}

// service explains a Service by the pods behind it that are not ready.
func (e *explainer) service(s api.Service) why {
	out := why{Subject: s.Ref.String(), State: fine}
	ready, all := s.Endpoints()
	if ready > 0 || s.Spec.Type == "ExternalName" {
		return out
	}
	out.State, out.Message = "NoEndpoints", fmt.Sprintf("none of its %d endpoints is ready", all)
	if all == 0 && len(s.Missing) == 0 {
		out.Message = "no pod has the labels that it selects"
	}
	for _, m := range s.Missing {
		x := why{Subject: "pod " + m.Pod.String(), State: "NoEndpoint", Message: m.Reason}
		for _, p := range e.pods {
			if p.PodKey == m.Pod {
				x.Because = e.pod(p).Because
			}
		}
		out.Because = append(out.Because, x)
	}
	for _, slice := range s.Slices {
		for _, ep := range slice.Endpoints {
			if ep.TargetRef == nil {
				continue
			}
			for _, p := range e.pods {
				if p.Namespace == ep.TargetRef.Namespace && p.Name == ep.TargetRef.Name {
					if x := e.pod(p); x.State != fine {
						out.Because = append(out.Because, x)
					}
				}
			}
		}
	}
	return out
}

// thing explains what a reference names, and then the application that it belongs to.
func (e *explainer) thing(ctx context.Context, b api.Backend, ref object.Ref) (why, error) {
	d, err := b.Describe(ctx, ref)
	if err != nil {
		return why{}, err
	}
	var out why
	owner := ""
	switch {
	case d.Application != nil:
		return e.application(d.Application.Name, nil), nil
	case d.Source != nil:
		return e.source(d.Source.Name), nil
	case d.Service != nil:
		out, owner = e.service(*d.Service), d.Service.Application
	case d.Pod != nil:
		out, owner = e.pod(*d.Pod), d.Pod.Application
	case d.Object != nil:
		out, owner = why{Subject: d.Object.Ref.String(), State: fine}, d.Object.Application
		if d.Object.Status != nil {
			out = e.workload(*d.Object.Status)
		}
		if s := d.Object.Suspension; s != nil {
			out.State, out.Message = "Suspended", "it is left as it is "+s.String()
			if out.Do = "take " + plan.SuspendAnnotation + "… out of its annotations"; s.By != "" {
				out.Do = "fairlead resume " + strings.ToLower(ref.Kind) + "/" + ref.Name + " -n " + ref.Namespace
			}
		}
	}
	app, known := e.apps[owner]
	if !known || app.Ready {
		return out, nil
	}
	x := e.application(owner, nil)
	said := []string{out.Subject}
	for _, w := range out.Because {
		said = append(said, w.Subject)
	}
	x.Because = slices.DeleteFunc(x.Because, func(w why) bool { return slices.Contains(said, w.Subject) })
	if x.State != fine {
		out.Because = append(out.Because, x)
		if out.State == fine && (app.Reason == "Suspended" || !app.Ready) {
			out.State, out.Message = "AsApplied", "it is as it was applied last, and its application is not done with its newest revision"
		}
	}
	return out, nil
}
