package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) notifyCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "Try the channels for notifications",
		Long: `Try the channels that the settings name for notifications. The daemon tells them by itself what happens.

` + "`fairlead status`" + ` shows the channels, with what was sent last and why it failed.`,
		Args: a.noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	test := &cobra.Command{
		Use:   "test CHANNEL",
		Short: "Send a test message to a channel",
		Long: `Send a message to a channel that says that it works, at once and once, and say what the service answers.

The daemon sends it, with its credentials; where none answers, this command does, with the settings of --config.

Exit codes: 0 when the service took the message, 1 otherwise.`,
		Example: `  fairlead notify test ops
  fairlead notify test ops --config /etc/fairlead/fairlead.yaml`,
		Args:              args(1, 1, "exactly one channel"),
		ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), Look, func(b api.Backend) error {
				res, err := b.TestNotification(c.Context(), api.NotificationTest{Channel: args[0]})
				if err != nil {
					return err
				}
				if a.output == "json" || a.output == "yaml" {
					return a.printValue(res)
				}
				_, err = fmt.Fprintf(a.Stdout, "Channel %s (%s) took a test message.\n", planview.Clean(res.Channel), planview.Clean(res.Kind))
				return err
			})
		},
	}
	a.formats(test, "text", "json", "yaml")
	c.AddCommand(test)
	return c
}

// completeChannels completes the name of a channel.
func (a *app) completeChannels(c *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(got) > 0 {
		return nil, noFiles
	}
	return a.asking(c, func(ctx context.Context, b api.Backend) []string {
		st, err := b.Status(ctx)
		if err != nil {
			return nil
		}
		var out []string
		for _, n := range st.Notifications {
			out = append(out, n.Name)
		}
		return out
	})
}

// channelTable shows the channels for notifications.
func channelTable(channels []api.NotificationChannel, now time.Time) table {
	t := table{head: []string{"CHANNEL", "KIND", "SENT", "FAILED", "WAITING", "LAST", "STATE"}}
	for _, c := range channels {
		last, state := "never", "good"
		if !c.LastSent.IsZero() {
			last = age(now, c.LastSent) + " ago"
		}
		if c.Error != "" {
			state = "since " + age(now, c.Since) + ": " + c.Error
		}
		t.rows = append(t.rows, row{cells: []string{
			c.Name, c.Kind, strconv.FormatUint(c.Sent, 10), strconv.FormatUint(c.Failed, 10), strconv.Itoa(c.Waiting), last, state,
		}})
	}
	return t
}
