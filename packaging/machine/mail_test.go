//go:build machine

package machine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/world"
)

// The domains that mail goes to: one with TLSA records, one with an MTA-STS
// policy.
const (
	daneDomain = "dane-ee.example"
	stsDomain  = "sts.example"
)

// internet starts the lab and has the machine's mxpolicyd deliver there. All
// else in the configuration is as installed.
func internet(t *testing.T, m *machine) *world.World {
	t.Helper()
	var domains []world.Domain
	for _, d := range world.Domains() {
		if d.Name == daneDomain || d.Name == stsDomain {
			domains = append(domains, d)
		}
	}
	w, err := world.Start(domains...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if err := w.Authority.WriteRoots(filepath.Join(m.root, "etc/mxpolicyd/lab.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(m.root, "etc/mxpolicyd/lab.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", fmt.Sprintf(`hostname: mail.machine.example
dns: {servers: ["%s"]}
listen: {metrics: {}}
mx_auth:
  outbound: {dnssec: {}, dane: {}, mtasts: {https_port: %d}}
transports:
  default: {mx_auth: outbound, port: %d, tls_client: {root_ca: [/etc/mxpolicyd/lab.pem]}}
`, w.Resolver(), w.HTTPSPort(), w.Port()))
	m.run(t, "mxpolicyd", "check-config")
	return w
}

// server is the mail server of a domain.
func server(w *world.World, domain string) *mx.Server { return w.Server("mx." + domain) }

// arrived waits until so many messages have come to a domain.
func arrived(t *testing.T, w *world.World, domain string, n int) []mx.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := server(w, domain).Wait(ctx, n)
	if err != nil {
		t.Fatalf("%d messages came to %s, waited for %d: %v", len(got), domain, n, err)
	}
	return got
}

// readme gives the commands that the README has below a heading, the first that
// it shows there.
func readme(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the README has no %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for line := range strings.Lines(section) {
		command, ok := strings.CutPrefix(line, "    ")
		if ok {
			commands = append(commands, command)
		} else if len(commands) > 0 {
			break
		}
	}
	if len(commands) == 0 {
		t.Fatalf("the README has no commands below %q", heading)
	}
	return strings.Join(commands, "")
}

// startPostfix installs Postfix and starts it.
func (m *machine) startPostfix(t *testing.T) {
	t.Helper()
	m.sh(t, `debconf-set-selections <<END
postfix postfix/main_mailer_type select Internet Site
postfix postfix/mailname string mail.machine.example
postfix postfix/protocols select ipv4
END
apt-get install -y --no-install-recommends postfix
postconf -e inet_interfaces=loopback-only enable_long_queue_ids=yes smtpd_tls_security_level=none
systemctl restart postfix`)
}

// The way of the README, with Postfix: the first message is delivered by DANE,
// the next one by MTA-STS.
func TestPostfix(t *testing.T) {
	m := boot(t)
	m.startPostfix(t)
	m.install(t, newer)
	w := internet(t, m)
	m.sh(t, readme(t, "## Use it with Postfix"))
	if state := m.active("mxpolicyd.service"); state != "inactive" {
		t.Errorf("the service is %s before there is a message", state)
	}
	for domain, proof := range map[string]string{daneDomain: "dane", stsDomain: "mtasts"} {
		m.sh(t, "printf 'Subject: hello\\n\\nHello\\n' | sendmail -f me@mail.machine.example you@"+domain)
		got := arrived(t, w, domain, 1)
		if got[0].TLS == nil || !strings.Contains(string(got[0].Body), "Subject: hello\r\n") {
			t.Errorf("%s got over TLS %v: %q", domain, got[0].TLS != nil, got[0].Body)
		}
		sent := regexp.MustCompile(`to=<you@` + domain + `>, relay=mxpipe, .* status=sent \(delivered via mxpipe service \(2\..*, ` + proof + `,`)
		await(t, "a line of Postfix's log like "+sent.String(), func() (string, bool) {
			log := m.journal(t, "postfix@-.service")
			return log, sent.MatchString(log)
		})
	}
	// What it learnt is on disk, where it may write.
	if out := m.sh(t, "ls -A /var/lib/mxpolicyd/mtasts_cache"); strings.TrimSpace(out) == "" {
		t.Error("the MTA-STS policy is not in the cache on disk")
	}
	// A connection that was used, and a reload meanwhile.
	m.run(t, "systemctl", "reload", "mxpolicyd")
	m.sh(t, "printf 'Subject: again\\n\\nHello\\n' | sendmail -f me@mail.machine.example you@"+daneDomain)
	arrived(t, w, daneDomain, 2)
	await(t, "three deliveries and a reload in mxpolicyd's log", func() (string, bool) {
		log := m.journal(t, "mxpolicyd.service")
		return log, strings.Contains(log, "configuration reloaded") && strings.Count(log, "msg=delivered") == 3
	})
	// It counts, also what the kernel shows of it.
	answer, err := http.Get("http://127.0.0.1:9461/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`mxpolicyd_deliveries_total{result="delivered",transport="default"} 3`, "process_open_fds ", "process_resident_memory_bytes "} {
		if !strings.Contains(string(text), "\n"+want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
	if out := m.run(t, "mxpolicyd", "status"); !strings.Contains(out, "transport default") {
		t.Errorf("mxpolicyd status says %q", out)
	}
}
