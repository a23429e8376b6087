package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// completeTimeout is how long the shell may wait for names.
const completeTimeout = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// asking runs f with the daemon. Without one nothing is completed: working on one's own takes too long
// for a key press.
func (a *app) asking(c *cobra.Command, f func(context.Context, api.Backend) []string) ([]string, cobra.ShellCompDirective) {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	a.defaults(c) // the flags of the line to be completed were read only now
	client, err := a.daemon(ctx)
	if err != nil {
		return nil, noFiles
	}
	defer client.Close()
	return f(ctx, client), noFiles
}

// completeKindName completes KIND NAME… and KIND/NAME….
func (a *app) completeKindName(c *cobra.Command, got []string, word string) ([]string, cobra.ShellCompDirective) {
	kind, _, slash := strings.Cut(word, "/")
	switch {
	case slash:
		return a.completeSlash(c, kind)
	case len(got) == 0:
		return kindWords(word), noFiles
	case strings.Contains(got[0], "/"):
		return nil, noFiles
	}
	r, err := findResource(got[0])
	if err != nil {
		return nil, noFiles
	}
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		found, _ := refs(ctx, b, r, a.inNamespace(), "")
		return slices.DeleteFunc(names(found), func(n string) bool { return slices.Contains(got[1:], n) })
	})
}

// kindWords are the kinds, behind those of a list that is begun.
func kindWords(word string) []string {
	begun := word[:strings.LastIndex(word, ",")+1]
	var out []string
	for _, p := range append(plurals(), "all") {
		if !slices.Contains(strings.Split(begun, ","), p) {
			out = append(out, begun+p)
		}
	}
	return out
}

func (a *app) completeSlash(c *cobra.Command, kind string) ([]string, cobra.ShellCompDirective) {
	r, err := findResource(kind)
	if err != nil {
		return nil, noFiles
	}
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		found, _ := refs(ctx, b, r, a.inNamespace(), "")
		var out []string
		for _, n := range names(found) {
			out = append(out, kind+"/"+n)
		}
		return out
	})
}

// completePod completes the one pod of logs and exec.
func (a *app) completePod(c *cobra.Command, got []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(got) > 0 {
		return nil, noFiles
	}
	if kind, _, slash := strings.Cut(word, "/"); slash {
		return a.completeSlash(c, kind)
	}
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		pod, _ := findResource("pod")
		found, _ := refs(ctx, b, pod, a.inNamespace(), "")
		return names(found)
	})
}

// completeContainer completes --container once the pod is there.
func (a *app) completeContainer(c *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(got) == 0 {
		return nil, noFiles
	}
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		pods, _ := a.podsOf(ctx, b, got[0])
		var out []string
		for _, p := range pods {
			for _, container := range p.Containers {
				if !slices.Contains(out, container.Name) {
					out = append(out, container.Name)
				}
			}
		}
		return out
	})
}

// completeApplications completes any number of applications.
func (a *app) completeApplications(c *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		app, _ := findResource("application")
		found, _ := refs(ctx, b, app, "", "")
		return slices.DeleteFunc(names(found), func(n string) bool { return slices.Contains(got, n) })
	})
}

// completeNamespace completes --namespace.
func (a *app) completeNamespace(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		var out []string
		add := func(ns string) {
			if ns != "" && !slices.Contains(out, ns) {
				out = append(out, ns)
			}
		}
		objs, _ := b.Objects(ctx, api.Query{})
		for _, o := range objs {
			add(o.Namespace)
			if o.Kind == "Namespace" {
				add(o.Name)
			}
		}
		pods, _ := b.Pods(ctx, api.Query{})
		for _, p := range pods {
			add(p.Namespace)
		}
		slices.Sort(out)
		return out
	})
}

// completes registers how the value of a flag is completed.
func completes(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	_ = c.RegisterFlagCompletionFunc(flag, f) // fails only for a flag that does not exist
}
