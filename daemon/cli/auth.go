package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

func (a *app) authCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "auth",
		Short: "Ask who may do what",
		Long: `Ask who may do what by the Role, ClusterRole, RoleBinding and ClusterRoleBinding objects that are applied. They rule what an
application does that acts as a service account: see docs/rbac.md.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(a.canICmd(), a.whoCanCmd())
	return c
}

func (a *app) canICmd() *cobra.Command {
	var user string
	var groups []string
	c := &cobra.Command{
		Use:   "can-i VERB RESOURCE[/NAME] --as USER",
		Short: "Say whether somebody may do something",
		Long: `Say whether somebody may do something, and which binding allows it. RESOURCE is a kind as ` + "`fairlead get`" + ` takes it, a resource as a
rule has it (queues.example.org, pods/log), or a path that begins with a slash.

Exit codes: 0 for yes, 1 for no and on an error.`,
		Example: `  fairlead auth can-i create deployments -n payments --as system:serviceaccount:payments:robot
  fairlead auth can-i get secret/key -n payments --as jane --as-group ops`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.accessRequest(args[0], args[1])
			if err != nil {
				return err
			}
			r.User, r.Groups = user, groups
			return a.with(c.Context(), Look, func(b api.Backend) error {
				answer, err := b.Access(c.Context(), r)
				if err != nil {
					return err
				}
				if err := a.printAccess(answer); err != nil || answer.Allowed {
					return err
				}
				return exitCode(1)
			})
		},
	}
	c.Flags().StringVar(&user, "as", "", "who: a user, or system:serviceaccount:NAMESPACE:NAME")
	c.Flags().StringSliceVar(&groups, "as-group", nil, "groups besides those that follow from the user")
	_ = c.MarkFlagRequired("as")
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

func (a *app) whoCanCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "who-can VERB RESOURCE[/NAME]",
		Short: "List who may do something",
		Long: `List who may do something, each with the binding that allows it. RESOURCE is as for ` + "`fairlead auth can-i`" + `. Applications that act as
nobody may do everything, and are not in the list.

Exit codes: 0, also when nobody may, 1 on an error.`,
		Example: `  fairlead auth who-can delete persistentvolumeclaims -n payments`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.accessRequest(args[0], args[1])
			if err != nil {
				return err
			}
			return a.with(c.Context(), Look, func(b api.Backend) error {
				answer, err := b.Access(c.Context(), r)
				if err != nil {
					return err
				}
				return a.printHolders(answer)
			})
		},
	}
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

// accessRequest reads a verb and RESOURCE[.GROUP][/NAME], a path, or RESOURCE/SUBRESOURCE where that is one of Kubernetes'.
func (a *app) accessRequest(verb, what string) (api.AccessRequest, error) {
	r := api.AccessRequest{Verb: verb}
	if strings.HasPrefix(what, "/") {
		r.Path = what
		return r, nil
	}
	kind, name, _ := strings.Cut(what, "/")
	scoped := true
	if known, err := findResource(kind); err == nil && known.group != api.Group {
		r.Group, r.Resource, scoped = known.group, known.plural, known.scoped
	} else {
		r.Resource, r.Group, _ = strings.Cut(kind, ".")
	}
	if r.Resource == "" {
		return r, fmt.Errorf("%q names no resource: write it like deployments, queues.example.org or pods/log", what)
	}
	switch name {
	case "log", "exec", "attach", "portforward", "proxy", "eviction", "scale", "status":
		r.Subresource = name
	default:
		r.Name = name
	}
	if scoped && !a.allNamespaces {
		r.Namespace = cmp.Or(a.inNamespace(), "default")
	}
	return r, nil
}

func (a *app) printAccess(answer api.AccessAnswer) error {
	if a.output == "json" || a.output == "yaml" {
		answer.Holders = nil
		return a.printValue(answer)
	}
	if answer.Allowed {
		fmt.Fprintf(a.Stdout, "yes - by %s\n", answer.By)
		return nil
	}
	fmt.Fprintln(a.Stdout, "no - no binding allows it")
	return nil
}

func (a *app) printHolders(answer api.AccessAnswer) error {
	if a.output == "json" || a.output == "yaml" {
		return a.printValue(answer.Holders)
	}
	if len(answer.Holders) == 0 {
		fmt.Fprintln(a.Stdout, "Nobody may, by any binding.")
		return nil
	}
	t := table{head: []string{"KIND", "NAMESPACE", "NAME", "BY"}}
	for _, h := range answer.Holders {
		t.rows = append(t.rows, row{cells: []string{h.Kind, h.Namespace, h.Name, h.By}})
	}
	return writeTables(a.Stdout, []table{t}, layout{})
}
