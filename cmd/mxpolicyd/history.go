package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
)

func historyCommand(load loader) *cobra.Command {
	var asJSON, summary bool
	q := admin.HistoryQuery{}
	cmd := &cobra.Command{
		Use:   "history [TARGET]",
		Short: "Show the last deliveries, the newest first; of a domain, a host, a provider or a queue id",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.What, q.Summary = strings.Join(args, ""), summary
			return ask(cmd, load, asJSON, console.History, func(ctx context.Context, c *admin.Client) (admin.History, error) {
				return c.History(ctx, q)
			})
		},
	}
	cmd.Flags().BoolVar(&q.Failed, "failed", false, "only what was not delivered")
	cmd.Flags().DurationVar(&q.Since, "since", 0, "only what ended within this `DURATION`")
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "at most this many")
	cmd.Flags().BoolVar(&summary, "summary", false, "also a line for each destination and provider")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func suspendCommand(load loader) *cobra.Command {
	var asJSON bool
	var lasts time.Duration
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend [TARGET]",
		Short: "Stop mail for a domain, provider:NAME or transport:NAME; without one, tell what is suspended",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && lasts <= 0 {
				return errors.New("--for is how long mail is stopped, such as 30m: more than nothing")
			}
			return ask(cmd, load, asJSON, console.Suspended, func(ctx context.Context, c *admin.Client) (admin.SuspendedList, error) {
				if len(args) == 0 {
					return c.Suspended(ctx)
				}
				return c.Suspend(ctx, args[0], lasts, reason)
			})
		},
	}
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long; until it is resumed if it is not said")
	cmd.Flags().StringVar(&reason, "reason", "", "what deliveries and status say")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func providersCommand(load loader) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "providers [HOST]",
		Short: "List the known providers, or tell to which one an MX host belongs",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, load, asJSON, console.Providers, func(ctx context.Context, c *admin.Client) (admin.ProviderList, error) {
				return c.Providers(ctx, strings.Join(args, ""))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func resumeCommand(load loader) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "resume TARGET",
		Short: "Let mail go again that was suspended",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, load, asJSON, console.Suspended, func(ctx context.Context, c *admin.Client) (admin.SuspendedList, error) {
				return c.Resume(ctx, args[0])
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
