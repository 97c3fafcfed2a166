package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/miekg/dns"
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

var updatePflogsumm = flag.Bool("update-pflogsumm", false, "write docs/pflogsumm.md anew")

// summarised is a kind of domain whose mail is summarised: one of them has mail
// by pipe, one by LMTP.
type summarised struct {
	kind      string
	behaviour func(*mx.Behaviour) // nil: there is no mail server
	// further addresses: of the same server, or where nothing listens
	addresses int
	zone      string // instead of a host
	fault     labdns.Fault
	override  string // of the transport
	// lines of the report that it may have, for each domain: one for each cause
	deferred, bounced int
}

var summarisedKinds = []summarised{
	{kind: "taken", behaviour: func(*mx.Behaviour) {}},
	{kind: "greylisted", behaviour: says450, deferred: 1},
	{kind: "nosuchuser", bounced: 1, behaviour: func(h *mx.Behaviour) { h.Recipients = []mx.Rule{{Local: "*", Reply: "550 5.1.1 no such user"}} }},
	{kind: "spam", addresses: 1, bounced: 1, behaviour: func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Reply: "554 5.7.1 this looks like spam"}}
	}},
	// while the first try is under way, others may wait for it in vain
	{kind: "dead", addresses: 2, deferred: 2},
	{kind: "expired", deferred: 1, behaviour: func(*mx.Behaviour) {}, override: "mx_auth: {local_policy: {min_tls_level: authenticated}}"},
	{kind: "servfail", zone: "none. TXT x", fault: labdns.ServFail, deferred: 1},
	// the complaint, and the pause that it makes
	{kind: "paused", deferred: 2, behaviour: func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "450 4.7.0 sending too fast"}}
	}},
	{kind: "nullmx", zone: "DOMAIN. MX 0 .", bounced: 1},
	{kind: "limited", deferred: 1, behaviour: func(*mx.Behaviour) {}, override: "limits: {destination: {rate: 1/1h}}"},
}

func says450(h *mx.Behaviour) {
	h.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Reply: "450 4.2.0 greylisted, come back later"}}
}

// pflogsumm(1) over the log of two hundred deliveries, by pipe and by LMTP, has
// one line at most for each cause and domain: the texts hold no times, no ids
// and no ports of ours before the place where it cuts.
func TestPflogsumm(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("pflogsumm"); err != nil {
		t.Fatalf("%v: run \"make needs\"", err)
	}
	const each = 10
	w := lab(t)
	// Names and addresses of the same length each time, so that the report cuts
	// its lines at the same place.
	number := fmt.Sprintf("%05d", w.number.Add(1))
	names := map[string]*summarised{}
	var overrides strings.Builder
	for i := range summarisedKinds {
		k := &summarisedKinds[i]
		for _, front := range []string{"pipe", "lmtp"} {
			domain := fmt.Sprintf("%s.%s%s.example", k.kind, front, number)
			names[domain] = k
			w.summarise(t, k, domain)
			if k.override != "" {
				fmt.Fprintf(&overrides, "      - {match: %s, %s}\n", domain, k.override)
			}
		}
	}
	roots := filepath.Join(folder(t), "roots.pem")
	if err := w.ca.WriteRoots(roots); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, settings{
		top:       "replies: [{match: \"sending too fast\", do: {pause: 30m, scope: domain}}]\n",
		transport: "    tls_client: {root_ca: " + roots + "}\n    overrides:\n" + overrides.String(),
	})
	entry, err := w.masterEntry()
	if err != nil {
		t.Fatal(err)
	}
	lmtp, limits, err := lmtpEntry()
	if err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(folder(t), "transports")
	if err := write(table, "/\\.lmtp\\d+\\.example$/ "+d.lmtpNexthop()+"\n/@"+regexp.QuoteMeta(keepDomain)+"$/ keep:\n"); err != nil {
		t.Fatal(err)
	}
	p := anotherOutOf(t, strings.Replace(entry, w.daemon.socket, d.socket, 1)+lmtp,
		limits+"default_transport = mxpipe\ntransport_maps = regexp:"+table+"\n")

	var senders errgroup.Group
	senders.SetLimit(4)
	for domain := range names {
		senders.Go(func() error {
			out, err := exec.Command("smtp-source", "-m", fmt.Sprint(each), "-f", "a@"+keepDomain, "-t", "b@"+domain, p.address).CombinedOutput()
			if err != nil {
				return fmt.Errorf("smtp-source: %w\n%s", err, out)
			}
			return nil
		})
	}
	if err := senders.Wait(); err != nil {
		t.Fatal(err)
	}
	ended := regexp.MustCompile(`(?m) to=<b@[\w.]+>, .*, status=\w+ `)
	log := await(t, "200 deliveries to end", func() (string, bool) {
		text, _ := os.ReadFile(p.log)
		return string(text), len(ended.FindAll(text, -1)) == each*len(names)
	}, p.log, d.log)

	report := summary(t, log)
	deferrals, bounces := section(report, "message deferral detail"), section(report, "message bounce detail (by relay)")
	var wantDeferrals, wantBounces int
	for _, k := range names {
		wantDeferrals += k.deferred
		wantBounces += k.bounced
	}
	if len(deferrals) == 0 || len(deferrals) > wantDeferrals || len(bounces) == 0 || len(bounces) > wantBounces {
		t.Errorf("%d lines of deferrals, at most %d wanted; %d of bounces, at most %d wanted", len(deferrals), wantDeferrals, len(bounces), wantBounces)
	}
	for _, line := range append(deferrals, bounces...) {
		if strings.Contains(line, "id=") || strings.Contains(line, time.Now().UTC().Format("15:")) {
			t.Errorf("%q differs from message to message", line)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
	compareReport(t, deferrals, bounces)
}

// summarise makes a domain.
func (w *world) summarise(t *testing.T, k *summarised, domain string) {
	t.Helper()
	if k.zone != "" {
		if err := w.dns.Add(strings.ReplaceAll(k.zone, "DOMAIN", domain)); err != nil {
			t.Fatal(err)
		}
	}
	if k.fault != labdns.Normal {
		w.dns.SetFault(domain, dns.TypeMX, k.fault)
	}
	if k.zone != "" {
		return
	}
	host := "mx." + domain
	zone := "\n" + domain + ". MX 10 " + host + "."
	spec := ca.For(host)
	if k.kind == "expired" {
		spec = ca.ExpiredFor(host)
	}
	cert, err := w.ca.Issue(spec)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= k.addresses; n++ {
		number := w.number.Add(1)
		ip := fmt.Sprintf("127.25.1%02d.1%02d", number/100%100, number%100)
		zone += "\n" + host + ". A " + ip
		if k.behaviour == nil {
			continue
		}
		behaviour := mx.Modern(cert)
		behaviour.Hostname = host
		k.behaviour(&behaviour)
		server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", ip, w.port), Behaviour: behaviour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Stop() })
	}
	if err := w.dns.Add(zone); err != nil {
		t.Fatal(err)
	}
}

// summary is what pflogsumm makes of a log. It reads the stamps of syslog, and
// maillog_file has them.
func summary(t *testing.T, log string) string {
	t.Helper()
	cmd := exec.Command("pflogsumm", "--no_no_msg_size")
	cmd.Stdin = strings.NewReader(log)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("pflogsumm: %v\n%s", err, &errs)
	}
	return string(out)
}

// section gives the lines with reasons below a heading of the report, each with
// its count.
func section(report, heading string) (lines []string) {
	_, rest, _ := strings.Cut(report, "\n"+heading+"\n")
	counted := regexp.MustCompile(`^ +\d+ +\S`)
	for line := range strings.Lines(rest) {
		switch {
		case strings.TrimSpace(line) == "":
			return lines
		case counted.MatchString(line):
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

const reportPage = "../docs/pflogsumm.md"

// compareReport holds the report against the one in the docs: it has the same
// reasons. How many messages were on their way when a pause began differs.
func compareReport(t *testing.T, deferrals, bounces []string) {
	t.Helper()
	all := strings.Join(deferrals, "\n") + "\n\n" + strings.Join(bounces, "\n") + "\n"
	for _, c := range [][2]string{
		{`(pipe|lmtp)\d{5}\.`, "$1."}, {`127\.25\.1\d\d\.1\d\d`, "192.0.2.1"}, {`\b\d{5}: `, "25: "}, {`127\.0\.0\.1:\d+\b`, "127.0.0.1:53"},
		{`\b20\d\d-\d\d-\d\d\b`, "2026-11-30"},
	} {
		all = regexp.MustCompile(c[0]).ReplaceAllString(all, c[1])
	}
	page := read(t, reportPage)
	head, documented, found := strings.Cut(page, "\n```\n")
	if !found {
		t.Fatalf("%s has no report", reportPage)
	}
	if *updatePflogsumm {
		if err := write(reportPage, head+"\n```\n"+all+"```\n"); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, want := reasons(all), reasons(documented); got != want {
		t.Errorf("%s should have\n%s\nand has\n%s", reportPage, got, want)
	}
}

// reasons gives the lines of a report without their counts, sorted. While
// nothing is known of a host that is tried, others may wait for it in vain.
func reasons(report string) string {
	var all []string
	for line := range strings.Lines(report) {
		if line = strings.TrimLeft(line, " 0123456789"); line != "" && line != "```\n" && !strings.HasPrefix(line, "mx.dead.") {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
