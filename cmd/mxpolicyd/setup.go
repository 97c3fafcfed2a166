package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/policyd/doctor"
	"github.com/mxpipe/mxpipe/policyd/setup"
)

func setupCommand(load loader, file *string) *cobra.Command {
	var way string
	var dryRun, undo, password bool
	cmd := &cobra.Command{
		Use:       "setup postfix|exim",
		Short:     "Tell the mail server to use mxpolicyd, after showing what changes",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"postfix", "exim"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, out, server := cmd.Context(), cmd.OutOrStdout(), args[0]
			m := setup.NewMachine(filepath.Dir(*file))
			var plan setup.Plan
			do := m.Do
			if password {
				server = setup.PasswordServer
			}
			switch {
			case undo:
				back, err := m.Undo(ctx, server)
				if err != nil {
					return err
				}
				plan, do = back, m.Finish
			case password:
				var err error
				if plan, err = m.Password(ctx, args[0]); err != nil {
					return err
				}
			default:
				cfg, err := load()
				if err != nil {
					return err
				}
				daemon, systemd := doctor.System(admin.NewClient(adminPath(cfg))).OurSide(ctx, cfg)
				if plan, err = m.Plan(ctx, server, setup.Way(way), setup.ThisHost(daemon, *file, systemd)); err != nil {
					return err
				}
			}
			fmt.Fprint(out, plan.Diff())
			if len(plan.Notes) > 0 {
				fmt.Fprint(out, console.Findings(screen(cmd), &plan.Notes))
			}
			switch {
			case plan.Empty() && !undo:
				fmt.Fprintf(out, "%s is set up like this already: nothing changes\n%s", server, plan.Next)
				return nil
			case dryRun:
				fmt.Fprintln(out, "nothing was changed (--dry-run)")
				return nil
			}
			if err := do(ctx, plan); err != nil {
				return err
			}
			switch {
			case undo && len(plan.Notes) > 0:
				fmt.Fprintf(out, "%s is as it was before, but for what is said above\n", server)
			case undo:
				fmt.Fprintf(out, "%s is as it was before\n", server)
			case password:
				fmt.Fprintf(out, "done; \"mxpolicyd setup %s --relay-password --undo\" takes it back\n%s", args[0], plan.Next)
			default:
				fmt.Fprintf(out, "done; \"mxpolicyd doctor\" looks at it, and \"mxpolicyd setup %s --undo\" takes it back\n", server)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&way, "way", string(setup.Pipe), "`WAY`: pipe, lmtp or, with Postfix, socketmap")
	cmd.Flags().BoolVar(&password, "relay-password", false, "write the password of the mail server's relay to a file for mxpolicyd, and say how to name it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	cmd.Flags().BoolVar(&undo, "undo", false, "take back what setup has changed")
	return cmd
}
