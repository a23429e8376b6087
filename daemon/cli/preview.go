package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) previewCmd() *cobra.Command {
	var detailed bool
	c := &cobra.Command{
		Use:   "preview PULL_REQUEST_URL",
		Short: "Show what merging a pull request would do",
		Long: `Show what merging a pull request would do to every application that follows the branch which it would be merged
into: the plan from the branch to the merge, Git against Git, and apart from it what runs otherwise already. It
is what the daemon writes on the pull request. Nothing is changed, and nothing is written there.

The forge must be named in the settings, under forges; its credentials are the daemon's.

Exit codes: 0, and 1 on an error or when the merge could not be applied. With --detailed-exitcode: 0 nothing
to do, 2 changes, 1 error.`,
		Example: `  fairlead preview https://git.example.org/team/config/pulls/7
  fairlead preview https://github.com/team/config/pull/7 -o markdown`,
		Args: args(1, 1, "exactly one URL of a pull request"),
		RunE: func(c *cobra.Command, args []string) error {
			var p api.Preview
			err := a.with(c.Context(), Look, func(b api.Backend) (err error) {
				p, err = b.Preview(c.Context(), api.PreviewRequest{URL: args[0]})
				return err
			})
			if err != nil {
				return err
			}
			if err := a.printPreview(p); err != nil {
				return err
			}
			return planExit(p.Failed(), detailed && p.Plan.Pending())
		},
	}
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit code 0 nothing to do, 2 changes, 1 error")
	a.formats(c, "text", "json", "yaml", "markdown")
	return c
}

func (a *app) printPreview(p api.Preview) error {
	switch a.output {
	case "json":
		p.Plan = planview.Redacted(p.Plan)
		return writeJSON(a.Stdout, p)
	case "yaml":
		p.Plan = planview.Redacted(p.Plan)
		return writeYAML(a.Stdout, p)
	case "markdown":
		_, err := fmt.Fprint(a.Stdout, planview.Comment(p, planview.CommentOptions{Folds: true}))
		return err
	}
	color := a.color(a.Stdout)
	fmt.Fprintf(a.Stdout, "Merging %s into %s (%s)\n", planview.Clean(p.Head.Short), planview.Clean(p.Branch), planview.Clean(p.Base.Short))
	for _, f := range p.Conflicts {
		fmt.Fprintf(a.Stdout, "%s %s was changed on both sides\n", planview.Paint(color, planview.Red, "conflict:"), planview.Clean(f))
	}
	var differs []string
	for _, d := range p.Differs {
		differs = append(differs, planview.Clean(d.Application))
	}
	if len(differs) > 0 {
		fmt.Fprintf(a.Stdout, "%s runs otherwise than Git says already: see fairlead plan\n", strings.Join(differs, ", "))
	}
	fmt.Fprintln(a.Stdout)
	err := planview.Text(a.Stdout, p.Plan, planview.Options{Color: color})
	if err == nil && len(p.Conflicts) > 0 {
		err = errors.New("it cannot be merged as it is: merge the target branch into it, and resolve the conflicts")
	}
	return err
}
