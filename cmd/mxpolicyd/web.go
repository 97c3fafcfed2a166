package main

import (
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/web"
)

func webCommand(load loader) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Serve a page to look at, while the command runs; the address that it prints works once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := load.client()
			if err != nil {
				return err
			}
			if _, err := client.Status(cmd.Context()); err != nil {
				return err
			}
			s, err := web.Listen(listen, client, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			fmt.Fprintln(cmd.OutOrStdout(), s.Address())
			return s.Serve(ctx)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "the `ADDRESS` on loopback; port 0 takes a free one")
	return cmd
}
