package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) approveCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "approve APPLICATION DIGEST",
		Short: "Let go on what waits for an approval",
		Long: `Let the deletions of an application go that wait for an approval, or its plan be carried out that changes objects
of kinds for which the settings ask for one. ` + "`fairlead plan`" + ` shows what waits, with its digest. The approval is for
exactly that: when something else is to be deleted, or the application is to become something else, it needs
another one. Who approved it is recorded.

Exit codes: 0 when it is approved, 1 on an error and when another set waits, or none.`,
		Example:           `  fairlead approve shop 3f9a1c55d0e2b7a4`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), Change, func(b api.Backend) error {
				res, err := b.Approve(c.Context(), api.ApproveRequest{Application: args[0], Digest: args[1]})
				if errors.Is(err, api.ErrNotFound) {
					return a.applicationError(c.Context(), b, err, args[:1])
				}
				if err != nil {
					return err
				}
				if a.output == "json" || a.output == "yaml" {
					return a.printValue(res)
				}
				fmt.Fprintf(a.Stdout, "Approved for %s, by %s:\n", planview.Clean(res.Application), planview.Clean(res.By))
				for _, r := range res.Approved.Changes {
					fmt.Fprintf(a.Stdout, "  ~ %s\n", planview.Clean(r.String()))
				}
				for _, r := range res.Approved.Objects {
					fmt.Fprintf(a.Stdout, "  - %s\n", planview.Clean(r.String()))
				}
				for _, k := range res.Approved.Pods {
					fmt.Fprintf(a.Stdout, "  - %s\n", planview.Clean(k.Ref().String()))
				}
				return nil
			})
		},
	}
	a.formats(c, "text", "json", "yaml")
	return c
}
