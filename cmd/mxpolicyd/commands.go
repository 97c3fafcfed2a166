package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/transport"
)

// exit is an exit status for which everything has been printed.
type exit int

// Error implements error; it is never printed.
func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// loader reads the configuration that -c names.
type loader func() (*config.Config, error)

// screen is what a command writes on: the terminal that it was started at, or
// something else, without colour.
func screen(cmd *cobra.Command) console.Screen {
	if f, ok := cmd.OutOrStdout().(*os.File); ok {
		return console.On(f)
	}
	return console.Screen{Width: 80, Now: time.Now()}
}

// client makes a client for the daemon that runs with a configuration.
func (load loader) client() (*admin.Client, error) {
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	return admin.NewClient(adminPath(cfg)), nil
}

// adminPath is where the daemon is asked: a file whose listen block leaves the
// socket out may get it from systemd, at its usual place.
func adminPath(cfg *config.Config) string {
	if cfg.Listen.Admin != nil {
		return cfg.Listen.Admin.Path
	}
	return config.DefaultSocketDir + "/admin.sock"
}

// show writes an answer, as JSON or as text.
func show[T any](cmd *cobra.Command, asJSON bool, answer *T, text func(console.Screen, *T) string) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return admin.Encode(out, answer)
	}
	_, err := io.WriteString(out, text(screen(cmd), answer))
	return err
}

func explainCommand(load loader) *cobra.Command {
	var name, size string
	var q transport.Question
	var connect, asJSON bool
	cmd := &cobra.Command{
		Use:   "explain DOMAIN",
		Short: "Show what would happen to a message to a domain, and why",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Domain = args[0]
			if at := strings.LastIndexByte(q.Domain, '@'); at >= 0 {
				q.Domain = q.Domain[at+1:] // an address is good enough
			}
			if connect || q.To != "" {
				q.Depth = transport.Connect
			}
			if size != "" {
				var err error
				if q.Size, err = config.ParseSize(size); err != nil {
					return fmt.Errorf("--size: %w", err)
				}
			}
			if err := q.Check(); err != nil {
				return err
			}
			e, err := explain(cmd, load, name, &q)
			if err != nil {
				return err
			}
			if err := show(cmd, asJSON, e, console.Explanation); err != nil {
				return err
			}
			switch e.Forecast() {
			case transport.Undeliverable:
				return exit(1)
			case transport.Unknown:
				return exit(2)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "transport", config.DefaultTransport, "deliver by this `TRANSPORT`")
	cmd.Flags().BoolVar(&connect, "connect", false, "connect to each host too, and leave before MAIL")
	cmd.Flags().StringVar(&q.To, "to", "", "connect, and ask for the recipient `ADDRESS` by MAIL and RCPT; no message is sent")
	cmd.Flags().StringVar(&q.From, "from", "", "with the sender `ADDRESS`; <> if it is not said")
	cmd.Flags().StringVar(&size, "size", "", "for a message of `SIZE`, as 10MiB")
	cmd.Flags().BoolVar(&q.RequireTLS, "requiretls", false, "for a message that demands TLS on its whole way (RFC 8689)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// explain asks the running daemon, or without one relies on the configuration.
func explain(cmd *cobra.Command, load loader, name string, q *transport.Question) (*admin.Explanation, error) {
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	e, err := admin.NewClient(adminPath(cfg)).Explain(cmd.Context(), name, q)
	switch {
	case err == nil:
		return e, nil
	case errors.Is(err, admin.ErrNotRunning):
		fmt.Fprintf(cmd.ErrOrStderr(), "daemon not running: based on the configuration only (%s)\n", adminPath(cfg))
		return policyd.Explain(cmd.Context(), cfg, name, q)
	case errors.Is(err, admin.ErrForbidden):
		fmt.Fprintf(cmd.ErrOrStderr(), "%v: based on the configuration only\n", err)
		return policyd.Explain(cmd.Context(), cfg, name, q)
	}
	return nil, err
}

func statusCommand(load loader) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon is doing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := load.client()
			if err != nil {
				return err
			}
			if watch {
				return watchStatus(cmd, client, asJSON)
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, asJSON, &s, console.Status)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "refresh every two seconds until interrupted")
	return cmd
}

// watchEvery is how often status --watch asks.
const watchEvery = 2 * time.Second

// watchStatus shows the status again and again. A daemon that is restarted
// meanwhile is waited for.
func watchStatus(cmd *cobra.Command, client *admin.Client, asJSON bool) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		s, err := client.Status(ctx)
		scr := screen(cmd)
		text := ""
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && asJSON:
			var b strings.Builder
			err = admin.Encode(&b, &s)
			text = b.String()
		case err == nil:
			text = console.Status(scr, &s)
		case errors.Is(err, admin.ErrNotRunning):
			text, err = err.Error()+"\n", nil
		}
		if err != nil {
			return err
		}
		if _, err := io.WriteString(cmd.OutOrStdout(), console.InPlace(scr, text)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func cacheCommand(load loader) *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "List, show or flush what is cached, by domain"}
	var asJSON, all bool
	list := &cobra.Command{
		Use: "list", Short: "List the MTA-STS policies and the names with DNS answers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(cmd, load, asJSON, console.CacheList, func(ctx context.Context, c *admin.Client) (admin.CacheList, error) { return c.CacheList(ctx) })
		},
	}
	one := &cobra.Command{
		Use: "show DOMAIN", Short: "Show what is cached for a domain and the names below it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, load, asJSON, console.Cached, func(ctx context.Context, c *admin.Client) (admin.Cached, error) { return c.Cached(ctx, args[0]) })
		},
	}
	flush := &cobra.Command{
		Use: "flush DOMAIN | --all", Short: "Remove a domain and the names below it from the caches", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) != all {
				return errors.New("give either a domain or --all")
			}
			domain := strings.Join(args, "")
			return ask(cmd, load, asJSON, console.Flushed, func(ctx context.Context, c *admin.Client) (admin.Flushed, error) { return c.Flush(ctx, domain) })
		},
	}
	flush.Flags().BoolVar(&all, "all", false, "remove everything")
	for _, c := range []*cobra.Command{list, one, flush} {
		c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
		cmd.AddCommand(c)
	}
	return cmd
}

// ask asks the daemon one thing and shows the answer.
func ask[T any](cmd *cobra.Command, load loader, asJSON bool, text func(console.Screen, *T) string, question func(context.Context, *admin.Client) (T, error)) error {
	client, err := load.client()
	if err != nil {
		return err
	}
	answer, err := question(cmd.Context(), client)
	if err != nil {
		return err
	}
	return show(cmd, asJSON, &answer, text)
}

func traceCommand(load loader) *cobra.Command {
	var asJSON, stop bool
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "trace [DOMAIN]",
		Short: "Log the SMTP dialogue with a domain's hosts for a while, without message bodies; without a domain, list the traces",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain := strings.Join(args, "")
			return ask(cmd, load, asJSON, console.Traces, func(ctx context.Context, c *admin.Client) (admin.TraceList, error) {
				switch {
				case domain == "" && (stop || lasts != 0):
					return admin.TraceList{}, errors.New("give a domain")
				case domain == "":
					return c.Traces(ctx)
				case stop:
					return c.Untrace(ctx, domain)
				}
				return c.Trace(ctx, domain, cmp.Or(lasts, admin.UsualTrace))
			})
		},
	}
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long, at most 24h (default 10m)")
	cmd.Flags().BoolVar(&stop, "stop", false, "stop the trace now")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
