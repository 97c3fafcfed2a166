// Mxpolicyd delivers the mail that mxpipe hands over to it.
//
//	mxpolicyd serve         the daemon, in the foreground
//	mxpolicyd check-config  one line for each mistake; exit status 1
//	mxpolicyd version
//
// The flag -c names the configuration file, /etc/mxpolicyd/mxpolicyd.yaml by
// default; that one may be missing, which means the built-in defaults.
//
// Signals to serve: TERM and INT take no more work, let deliveries end for
// shutdown_timeout, and cancel the rest, which their mail server keeps. HUP
// reads the configuration again; with a mistake in it, which is logged,
// everything stays as it was.
//
// Logs go to standard error. Exit status 0 after TERM, 1 for a mistake in the
// configuration or on the command line, and when the daemon can not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
)

// version is set by the build.
var version = "dev"

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "mxpolicyd",
		Short:         "Deliver the mail that mxpipe hands over",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	file := root.PersistentFlags().StringP("config", "c", config.DefaultPath, "configuration `FILE`")
	root.AddCommand(
		&cobra.Command{
			Use:   "serve",
			Short: "Run the daemon in the foreground",
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return serve(*file) },
		},
		&cobra.Command{
			Use:   "check-config",
			Short: "Print one line for each mistake in the configuration",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := config.Load(*file, config.System())
				return err
			},
		},
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  cobra.NoArgs,
			Run:   func(cmd *cobra.Command, _ []string) { fmt.Println("mxpolicyd", version) },
		},
	)
	return root
}

// serve runs the daemon until a signal ends it.
func serve(file string) error {
	cfg, err := config.Load(file, config.System())
	if err != nil {
		return err
	}
	log := policyd.NewLogger(cfg.Log, os.Stderr)
	log.Info("starting", "version", version, "config", file)
	d, err := policyd.New(cfg, log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	go func() {
		for range hangUp {
			cfg, err := config.Load(file, config.System())
			if err == nil {
				err = d.Reload(cfg)
			}
			var mistakes config.Mistakes
			switch {
			case errors.As(err, &mistakes):
				for _, m := range mistakes {
					log.Error("configuration not reloaded", "mistake", m.String())
				}
			case err != nil:
				log.Error("configuration not reloaded", "error", err)
			}
		}
	}()
	return d.Serve(ctx)
}
