package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mxpipe/mxpipe/policyd/admin"
)

// usual are the exit statuses of a command that asks the daemon.
const usual = "  0  it is answered\n  1  a mistake in the configuration or on the command line, or the daemon cannot be asked"

// help is what --help says of a command beside its flags.
type help struct {
	examples string
	statuses string // empty: the usual ones
}

// helps has each command that does something, by what follows "mxpolicyd".
var helps = map[string]help{
	"serve": {"mxpolicyd serve -c /etc/mxpolicyd/mxpolicyd.yaml",
		"  0  it has ended after TERM or INT\n  1  it cannot start, or a socket fails while it runs"},
	"check-config": {"mxpolicyd check-config && systemctl reload mxpolicyd",
		"  0  no mistake, though there can be warnings\n  1  a mistake"},
	"doctor": {"mxpolicyd doctor\nmxpolicyd doctor --connect mx.example.org",
		"  0  no check fails\n  1  one does"},
	"setup": {"mxpolicyd setup postfix --dry-run\nmxpolicyd setup postfix --way lmtp\nmxpolicyd setup exim --undo",
		"  0  it is done, or there is nothing to do\n  1  it cannot be done, or would hold up mail or send it astray"},
	"explain": {"mxpolicyd explain example.org\nmxpolicyd explain example.org --to postmaster@example.org --size 20MiB",
		"  0  a message would be delivered now, as far as was found out\n  1  it would be deferred or refused\n" +
			"  2  this cannot be found out: the DNS, or a mistake in the configuration or on the command line"},
	"status":          {examples: "mxpolicyd status --watch\nmxpolicyd status --json | jq .dead"},
	"cache list":      {examples: "mxpolicyd cache list"},
	"cache show":      {examples: "mxpolicyd cache show example.org"},
	"cache flush":     {examples: "mxpolicyd cache flush example.org\nmxpolicyd cache flush --all"},
	"trace":           {examples: "mxpolicyd trace example.org --for 30m\nmxpolicyd trace example.org --stop"},
	"history":         {examples: "mxpolicyd history example.org --failed --since 2h\nmxpolicyd history --summary --since 1h"},
	"suspend":         {examples: "mxpolicyd suspend example.org --for 2h --reason \"their maintenance\"\nmxpolicyd suspend provider:google"},
	"resume":          {examples: "mxpolicyd resume example.org"},
	"providers":       {examples: "mxpolicyd providers example-org.mail.protection.outlook.com"},
	"report list":     {examples: "mxpolicyd report list"},
	"report show":     {examples: "mxpolicyd report show example.org --day 2026-11-29"},
	"report send":     {examples: "mxpolicyd report send --now example.org"},
	"report validate": {"mxpolicyd report validate report.json.gz", "  0  it is a report by RFC 8460\n  1  it is not, or cannot be read"},
	"web": {"mxpolicyd web\nssh -L 8025:127.0.0.1:8025 mx.example.org mxpolicyd web --listen 127.0.0.1:8025",
		"  0  it was ended\n  1  it cannot listen, or the daemon cannot be asked"},
	"version": {"mxpolicyd version", "  0  always"},
}

// explainThemselves gives each command below root what helps has of it, the
// domains that the daemon knows for a shell to complete, and a word of advice
// to mistakes on the command line.
func explainThemselves(root *cobra.Command, load loader) {
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (%s --help tells what there is)", err, cmd.CommandPath())
	})
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			each(sub)
		}
		if h, ok := helps[strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")]; ok {
			statuses := h.statuses
			if statuses == "" {
				statuses = usual
			}
			if _, arguments, _ := strings.Cut(cmd.Use, " "); strings.Contains(arguments, "DOMAIN") || strings.Contains(arguments, "TARGET") {
				cmd.ValidArgsFunction = offerDomains(load)
			}
			cmd.Args = inPlainWords(cmd.Args)
			cmd.Example = "  " + strings.ReplaceAll(h.examples, "\n", "\n  ") + "\n\nExit status:\n" + statuses
		}
	}
	each(root)
}

// inPlainWords has a mistake in a command's arguments say what is wanted.
func inPlainWords(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check == nil || check(cmd, args) == nil {
			return nil
		}
		_, wanted, _ := strings.Cut(cmd.Use, " ")
		what := "wants " + wanted
		if wanted == "" {
			what = "takes no arguments"
		}
		if len(args) > 0 {
			what += fmt.Sprintf(", not %q", strings.Join(args, " "))
		}
		return fmt.Errorf("%s %s (%[1]s --help tells what there is)", cmd.CommandPath(), what)
	}
}

// completionTime bounds how long a shell waits for the daemon.
const completionTime = time.Second

// maxCompletions is how many domains a shell is offered.
const maxCompletions = 1000

// offerDomains completes a DOMAIN with what the daemon knows: what mail went to
// lately, and what it has policies of.
func offerDomains(load loader) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := load.client()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTime)
		defer cancel()
		var names []string
		if past, err := client.History(ctx, admin.HistoryQuery{Limit: maxCompletions}); err == nil {
			for _, e := range past.Entries {
				names = append(names, e.Destination)
			}
		}
		if cached, err := client.CacheList(ctx); err == nil {
			for _, p := range cached.Policies {
				names = append(names, p.Domain)
			}
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == "" || !strings.HasPrefix(n, strings.ToLower(begun)) })
		slices.Sort(names)
		names = slices.Compact(names)
		return names[:min(len(names), maxCompletions)], cobra.ShellCompDirectiveNoFileComp
	}
}
