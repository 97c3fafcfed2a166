package main

import (
	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/policyd/doctor"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

func doctorCommand(load loader) *cobra.Command {
	var o doctor.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host, and say how to fix what is wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found []finding.Finding
			cfg, err := load()
			if err != nil {
				found = doctor.Mistakes(err)
			} else {
				found = doctor.System(admin.NewClient(adminPath(cfg))).Examine(cmd.Context(), cfg, o)
			}
			if err := show(cmd, asJSON, &found, console.Findings); err != nil {
				return err
			}
			if finding.Worst(found) == finding.Fail {
				return exit(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Connect, "connect", "", "also try a connection to the mail server `HOST` or HOST:PORT")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
