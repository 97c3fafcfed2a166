package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

func reportCommand(load loader) *cobra.Command {
	cmd := &cobra.Command{Use: "report", Short: "Look at the TLS reports for other domains, and send them"}
	var asJSON, now bool
	var day string
	list := &cobra.Command{
		Use: "list", Short: "List what is counted for each domain and day, and what became of the reports", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(cmd, load, asJSON, console.Reports, func(ctx context.Context, c *admin.Client) (admin.ReportList, error) { return c.Reports(ctx) })
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	show := &cobra.Command{
		Use: "show DOMAIN", Short: "Print a domain's report as it is, or would be, sent", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, load, asJSON, console.Report, func(ctx context.Context, c *admin.Client) (tlsreport.Report, error) {
				return c.Report(ctx, args[0], day)
			})
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "write JSON: the report itself")
	show.Flags().StringVar(&day, "day", "", "of this `DAY`, such as 2026-11-29; today if it is not said")
	send := &cobra.Command{
		Use: "send [DOMAIN]", Short: "Send the last whole day's reports, or that of a domain, as far as they are unsent", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !now {
				return errors.New("reports are sent by themselves; --now sends them at once")
			}
			return ask(cmd, load, false, console.Reports, func(ctx context.Context, c *admin.Client) (admin.ReportList, error) {
				return c.SendReport(ctx, strings.Join(args, ""))
			})
		},
	}
	send.Flags().BoolVar(&now, "now", false, "at once")
	validate := &cobra.Command{
		Use: "validate FILE", Short: "Check a report, compressed or not, against RFC 8460", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			r, err := tlsreport.Validate(f)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "a report of %s with %d policies\n", r.Organization, len(r.Policies))
			return err
		},
	}
	cmd.AddCommand(list, show, send, validate)
	return cmd
}
