// Mail servers with such certificates exist, OpenSSL takes them, and the number
// is nothing that DANE or a name depends on.
//
//go:debug x509negativeserial=1

// Mxpolicyd delivers the mail that mxpipe hands over to it.
//
//	mxpolicyd serve                  the daemon, in the foreground
//	mxpolicyd check-config           one line for each mistake; exit status 1
//	mxpolicyd doctor                 check this host, and say how to fix it
//	mxpolicyd setup postfix|exim     have the mail server use mxpolicyd
//	mxpolicyd explain DOMAIN         what would happen to a message to DOMAIN
//	mxpolicyd status                 what the daemon is doing
//	mxpolicyd cache list             what is cached, by domain
//	mxpolicyd cache show DOMAIN      what is cached for DOMAIN and below
//	mxpolicyd cache flush DOMAIN     remove it
//	mxpolicyd trace [DOMAIN]         log the dialogue with its hosts for a while
//	mxpolicyd history [TARGET]       the last deliveries
//	mxpolicyd suspend [TARGET]       stop mail for a domain, or more
//	mxpolicyd resume TARGET          let it go again
//	mxpolicyd providers [HOST]       which mail hosts belong together
//	mxpolicyd report list            what is counted for TLS reports
//	mxpolicyd report show DOMAIN     a report as it would be sent
//	mxpolicyd report send [DOMAIN]   send the last day's reports
//	mxpolicyd report validate FILE   check a report against RFC 8460
//	mxpolicyd web                    a page to look at, on loopback
//	mxpolicyd version                one line, "mxpolicyd VERSION"
//	mxpolicyd completion SHELL       completions for a shell
//	mxpolicyd help                   the commands and flags
//
// # Flags
//
//	-c, --config FILE   the configuration, /etc/mxpolicyd/mxpolicyd.yaml by
//	                    default; that one may be missing, which means the
//	                    built-in defaults
//	-h, --help          help for a command
//	--json              of the commands that ask: JSON, in the form that package
//	                    policyd/admin describes
//	--transport NAME    of explain: deliver by this transport
//	--connect           of explain: connect to each host, up to MAIL
//	--connect HOST      of doctor: try a connection to that mail server too
//	--to ADDRESS        of explain: ask each host for this recipient
//	--from ADDRESS      of explain: with this sender
//	--size SIZE         of explain: for a message of this size
//	--requiretls        of explain: for one that demands TLS (RFC 8689)
//	--way WAY           of setup: pipe, lmtp or, with Postfix, socketmap
//	--relay-password    of setup: hand over the password of its relay
//	--dry-run           of setup: show what would change, and change nothing
//	--undo              of setup: take back what it has changed
//	--watch             of status: refresh every two seconds
//	--all               of cache flush: everything, without a domain
//	--for DURATION      of trace: how long, 10m by default, at most 24h
//	--for DURATION      of suspend: how long; for ever without it
//	--stop              of trace: stop it now
//	--reason TEXT       of suspend: what deliveries and the status say
//	--failed            of history: only what was not delivered
//	--since DURATION    of history: only what ended within it
//	--limit NUMBER      of history: at most so many, 50 by default; 0: all
//	--summary           of history: also a line for each destination
//	--day DAY           of report show: of this day, such as 2026-11-29
//	--now               of report send: at once
//	--listen ADDRESS    of web: where, on loopback
//
// # Asking
//
// explain, status, cache and trace ask the running daemon over the socket that
// listen.admin names. That one is for root alone unless the file says
// otherwise. Without a daemon, or without the right to ask it, explain relies
// on the configuration only, says so on standard error, and knows nothing of
// dead hosts, limits and idle connections; nothing is written to the state
// directory.
//
// explain shows the mail servers of a domain in the order they are tried, with
// what the DNS, TLSA records and the MTA-STS policy say of each, and the
// verdict that follows. With --connect it connects to each host as a delivery
// would, by the same code, shows what the server proved, and leaves before
// MAIL.
//
// doctor looks at the resolver (does it validate, is it near, does it take EDNS
// and TCP), the clock, the certificates, the hostname and its addresses' names,
// the state directory, the sockets and who may use them, the TLSRPT collector,
// and the configuration of a Postfix or an Exim on this host. Each line begins
// with ok, warn or fail, and a warning or failure has its fix on the next line.
// Run it as root, which may look everywhere.
//
// trace has messages to a domain log their route, the verdict for each host and
// the SMTP dialogue (lines "route", "verdict" and "smtp"), never a body.
// Without a DOMAIN it lists what is being traced.
//
// # For mail servers that speak LMTP
//
// On each socket that listen.lmtp names, or that systemd hands over as lmtp or
// lmtp-T, a mail server hands messages over by LMTP (RFC 2033), for the
// transport default or T. Each recipient has a reply of its own, whose text is
// what mxpipe(1) would print; recipients of one domain share one transaction.
// PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, SIZE, DSN and ENHANCEDSTATUSCODES
// are offered; REQUIRETLS is taken, though not offered, as a parameter of MAIL.
// A message may have 1000 recipients; further ones are answered with 452 4.5.3.
// A delivery is given up after 15 minutes, so that a mail server's time-out for
// the replies must be longer. A mail server that hangs up has its delivery
// cancelled; what was delivered all the same is not delivered again when it
// tries again, which is told by the queue id in the topmost Received field.
// Package policyd/lmtp says more, contrib what Postfix and Exim need.
//
// # For Postfix's own smtp(8)
//
// On the socket that listen.socketmap names, Postfix asks for a domain's TLS
// policy (smtp_tls_policy_maps, socketmap_table(5)). The map "policy" has the
// policies of the transport default, "policy@NAME" those of another one;
// "policy-tlsrpt", with @NAME or without, adds the attributes for TLS reports
// that Postfix knows since 3.10. The answers are dane-only, dane, secure,
// encrypt and may, each with what belongs to it; none for a domain of which
// nothing is asked, and for what is no domain; and a temporary error, whose
// reason is in Postfix's log, when no mail server may have the mail. Package
// policyd/socketmap says which it is and why, contrib/postfix what main.cf
// needs.
//
// # Signals to serve
//
// TERM and INT: no more work is taken; deliveries may go on for
// shutdown_timeout; the rest is cancelled, and its mail server keeps it.
//
// HUP: the configuration is read again. With a mistake in it, each of which is
// logged, everything stays as it was. Otherwise all of it is in force for
// messages that come from then on, but for state_dir, max_deliveries,
// log.format and listen, which need a restart; the log names those that were
// changed. Deliveries under way, and messages that are just being read, keep
// what they started with. A transport that is not changed keeps its idle
// connections; so do the MTA-STS policies and DNS answers in memory.
// Certificate files are read again.
//
// # Exit status
//
// 0 after TERM or INT, for check-config without a mistake, version and help,
// and for what was asked and answered. 1 for a mistake in the configuration or
// on the command line, when the daemon cannot start, when a socket fails while
// it runs, and when the daemon cannot be asked. What is wrong is said on
// standard error.
//
// doctor: 1 when a check fails.
//
// explain has its own: 0 when a message would be delivered now, as far as was
// tried; 1 when it would be deferred or refused; 2 when that cannot be
// determined, because of the DNS, or a mistake in the configuration or on the
// command line.
//
// # Environment
//
// LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID hand over sockets by name
// (sd_listen_fds(3)): "pipe", "lmtp", "socketmap", "admin" and "metrics" are
// served. A file without a listen block has the daemon open its built-in
// sockets only when none at all is handed over; with one, those it names and
// systemd did not hand over. NOTIFY_SOCKET is told
// READY=1, STATUS=, STOPPING=1 and EXTEND_TIMEOUT_USEC= (sd_notify(3)), and
// WATCHDOG=1 twice in WATCHDOG_USEC as long as connections are accepted and
// deliveries end. STATE_DIRECTORY is the default of state_dir.
//
// # Files in the state directory
//
//	served/*      a record for each message of which some recipients were served
//	              and others must be tried again, seven days
//	mtasts_cache  MTA-STS policies (fs_dir)
//	message-*     a message of more than 1 MiB while it is delivered; it has
//	              lost its name before the first byte is written
//
// One daemon uses it at a time; a second one says so, and ends before it
// touches anything. What a daemon makes that root started by hand belongs to
// the owner of the directory that it is made in.
//
// The directory must be there, or be made, at start. When it cannot be
// written, messages of more than 1 MiB wait (4.3.1), and an error is logged for
// each mixed outcome that cannot be remembered.
//
// # Log
//
// It goes to standard error as key=value text or JSON, or to the systemd
// journal (log.format), where each key is also a field, MXPIPE_QUEUE_ID and so
// on; lines that the journal does not take go to standard error. The keys are
// stable; logging.Keys lists them, with what the levels mean and how
// repetitions are told.
//
// "delivered", "deferred" and "refused" are the lines about each group of
// recipients with one result. "message not taken" is a message that we refused
// ourselves, "dropped a truncated message" one that was never committed, "not
// delivered again" a recipient that has it from an earlier attempt, "deferred:
// …" one to whom an earlier attempt is still in progress, and "the mail server
// did not wait for the answer" a message that was dealt with although mxpipe
// was gone.
//
// # Metrics
//
// Where listen.metrics is set, or systemd hands over a socket named "metrics",
// Prometheus finds them at /metrics. metrics.All lists them, with what it means
// when they move.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor"
	"github.com/mxpipe/mxpipe/policyd/listen"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

// version is set by the build.
var version = "dev"

func main() {
	cmd, err := command().ExecuteC()
	os.Exit(statusOf(cmd, err))
}

// statusOf gives the exit status for what became of a command, and says what
// went wrong if the command has not.
func statusOf(cmd *cobra.Command, err error) int {
	var said exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return int(said)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), err)
	if cmd.Name() == "explain" {
		return 2 // where 1 would mean that mail cannot be delivered
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "mxpolicyd",
		Short:         "Deliver mail for Postfix and Exim, as securely as each domain asks",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	file := root.PersistentFlags().StringP("config", "c", config.DefaultPath, "configuration `FILE`")
	load := loader(func() (*config.Config, error) { return config.Load(*file, config.System()) })
	root.AddCommand(
		&cobra.Command{
			Use:   "serve",
			Short: "Run the daemon in the foreground",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return serve(cmd.Context(), *file, load)
			},
		},
		doctorCommand(func() (*config.Config, error) { return config.Load(*file, config.AsService()) }),
		setupCommand(load, file),
		explainCommand(load),
		statusCommand(load),
		cacheCommand(load),
		traceCommand(load),
		historyCommand(load),
		suspendCommand(load),
		resumeCommand(load),
		providersCommand(load),
		reportCommand(load),
		webCommand(load),
		&cobra.Command{
			Use:   "check-config",
			Short: "Check the configuration: one line for each mistake",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return checkConfig(cmd, *file)
			},
		},
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  cobra.NoArgs,
			Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "mxpolicyd", version) },
		},
	)
	explainThemselves(root, load)
	return root
}

// checkConfig looks at a configuration as serve would, with the rights that the
// service has, and writes what is hardly meant; the error is what is wrong.
func checkConfig(cmd *cobra.Command, file string) error {
	cfg, err := config.Load(file, config.AsService())
	if err != nil {
		return err
	}
	for _, w := range warnings(cmd.Context(), cfg) {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	return policyd.Check(cfg)
}

// warnings gives what is hardly meant in a configuration, on this machine.
func warnings(ctx context.Context, cfg *config.Config) (lines []string) {
	for _, w := range cfg.Warnings {
		lines = append(lines, w.String())
	}
	held := map[string]string{}
	for _, u := range doctor.Units(ctx) {
		for _, at := range u.Listen {
			held[u.Name] = at
		}
	}
	for _, void := range listen.FindVoid(&cfg.Listen, held) {
		lines = append(lines, void.Text)
	}
	return lines
}

// serve runs the daemon until a signal ends it.
func serve(ctx context.Context, file string, load loader) error {
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	cfg, err := load() // which TERM ends, should the disk not answer
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	defer steerHeap()()
	withoutCore()
	log := logging.New(cfg.Log, logging.Stderr())
	log.Info("starting", "version", version, "config", file)
	again := func() (*config.Config, error) { return config.Reload(file, config.System()) }
	d, err := policyd.New(ctx, policyd.Options{
		Config: cfg, Sockets: activation.Files(true), HangUp: hangUp, Load: again, Version: version, Log: log,
		CheckDNS: doctor.System(nil).DNS,
	})
	if err != nil {
		return err
	}
	return d.Serve(ctx)
}
