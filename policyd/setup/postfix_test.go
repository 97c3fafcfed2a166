package setup

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/verdict"
)

// plan makes a plan for a Postfix.
func (f *fake) plan(way Way, t Target) (Plan, error) {
	f.t.Helper()
	p, err := f.machine().Postfix(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Plan(way, t)
}

const dropInRun = "run systemctl daemon-reload\nrun systemctl stop mxpolicyd.service\nrun systemctl restart mxpolicyd-socketmap.socket\n"

// What is shown for each way, and so what is done.
func TestPostfixPlans(t *testing.T) {
	tcp, err := os.ReadFile("../../contrib/postfix/socketmap-tcp.conf")
	if err != nil {
		t.Fatal(err)
	}
	dropped := "--- /etc/systemd/system/mxpolicyd-socketmap.socket.d/tcp.conf\n+" +
		strings.ReplaceAll(strings.TrimSuffix(string(tcp), "\n"), "\n", "\n+") + "\n" + dropInRun
	// Debian has a directory of them, of which a chroot sees a copy.
	const authorities = "+smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n"
	const asks = "--- main.cf\n+smtp_dns_support_level = dnssec\n-smtp_tls_security_level = may\n+smtp_tls_security_level = dane\n+smtp_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1\n" + authorities + "+smtp_tls_loglevel = 1\n"
	const reload = "run postfix reload\n"
	address := func(t *Target) { t.Daemon.Socketmap = []string{"127.0.0.1:8463"} }
	for _, tt := range []struct {
		name   string
		way    Way
		target func(t *Target)
		change func(f *fake)
		want   string
	}{
		{"pipe", Pipe, nil, nil, `--- master.cf
+mxpipe unix - n n - - pipe flags=q user=mxpipe null_sender= argv=/usr/bin/mxpipe --queue-id ${queue_id} --size ${size} --nexthop ${nexthop} -f ${sender} -- ${recipient}
--- main.cf
+export_environment = TZ MAIL_CONFIG LANG GOTRACEBACK=crash
+mxpipe_destination_recipient_limit = 1
+mxpipe_time_limit = 1000s
+enable_long_queue_ids = yes
+default_transport = mxpipe
run postfix reload
`},
		{"pipe, elsewhere", Pipe, func(t *Target) { t.Mxpipe, t.Daemon.Pipe = "/opt/bin/mxpipe", "/srv/pipe" }, func(f *fake) {
			f.main["export_environment"] = "TZ, GOTRACEBACK=crash"
			f.main["enable_long_queue_ids"] = "yes"
			f.master["mxpipe/unix"] = "mxpipe unix - n n - - pipe user=x argv=/bin/false"
			f.running = false
		}, `--- master.cf
-mxpipe unix - n n - - pipe user=x argv=/bin/false
+mxpipe unix - n n - - pipe flags=q user=mxpipe null_sender= argv=/opt/bin/mxpipe --socket /srv/pipe --queue-id ${queue_id} --size ${size} --nexthop ${nexthop} -f ${sender} -- ${recipient}
--- main.cf
+mxpipe_destination_recipient_limit = 1
+mxpipe_time_limit = 1000s
+default_transport = mxpipe
`},
		{"LMTP", LMTP, nil, nil, `--- members of the group mxpipe
+postfix
--- master.cf
+mxlmtp unix - - n - - lmtp -o lmtp_data_done_timeout=1200s
--- main.cf
+mxlmtp_destination_concurrency_limit = 100
+enable_long_queue_ids = yes
+default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock
run postfix reload
`},
		{"LMTP, in the group already", LMTP, func(t *Target) { t.Groups = func(string, string) (string, bool) { return "mxpipe", true } }, func(f *fake) {
			f.main["enable_long_queue_ids"] = "yes"
			f.main["mxlmtp_destination_concurrency_limit"] = "100"
			f.master["mxlmtp/unix"] = "mxlmtp unix - - n - - lmtp -o lmtp_data_done_timeout=1200s"
		}, `--- main.cf
+default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock
run postfix reload
`},
		{"socketmap, as packaged", Socketmap, nil, nil, dropped + asks + "+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy\n" + reload},
		{"socketmap at an address", Socketmap, address, nil, asks + "+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy\n" + reload},
		{"from postfix-tlspol", Socketmap, address, func(f *fake) {
			f.main["smtp_tls_policy_maps"] = "hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8642:QUERY"
			f.main["smtp_tls_security_level"] = "dane"
			f.main["smtp_dns_support_level"] = "dnssec"
			f.main["smtp_tls_loglevel"] = "1"
			f.main["smtp_tls_mandatory_protocols"] = ">=TLSv1.2"
			f.main["smtp_tls_CAfile"] = "/etc/ssl/own.pem"
		}, `--- main.cf
-smtp_tls_policy_maps = hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8642:QUERY
+smtp_tls_policy_maps = hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8463:policy
run postfix reload
`},
		{"from postfix-mta-sts-resolver, with a zone", Socketmap, address, func(f *fake) {
			f.main["smtp_tls_policy_maps"] = "socketmap:inet:127.0.0.1:8461:zone"
		}, asks + "-smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:zone\n+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy\n" + reload},
		{"from tables of one's own", Socketmap, address, func(f *fake) { f.main["smtp_tls_policy_maps"] = "hash:/x" },
			asks + "-smtp_tls_policy_maps = hash:/x\n+smtp_tls_policy_maps = hash:/x, socketmap:inet:127.0.0.1:8463:policy\n" + reload},
		{"another transport stays", Socketmap, func(t *Target) { address(t); t.Daemon.Transports = append(t.Daemon.Transports, "strict") }, func(f *fake) {
			f.main["smtp_tls_policy_maps"] = "socketmap:unix:/run/mxpolicyd/socketmap.sock:policy@strict"
		}, asks + "-smtp_tls_policy_maps = socketmap:unix:/run/mxpolicyd/socketmap.sock:policy@strict\n+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy@strict\n" + reload},
		{"a newer Postfix", Socketmap, address, func(f *fake) { f.defaults["mail_version"] = "3.10.2" },
			asks + "+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy-tlsrpt\n" + reload},
		{"a stronger level that mxpolicyd has too, and no CAs", Socketmap, func(t *Target) { address(t); t.Daemon.MinTLS["default"] = verdict.TLSEncrypted }, func(f *fake) {
			f.main["smtp_tls_security_level"] = "encrypt"
			delete(f.main, "smtp_tls_CApath")
		}, `--- main.cf
+smtp_dns_support_level = dnssec
+smtp_tls_dane_insecure_mx_policy = dane
+smtp_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1
+smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt
+smtp_tls_loglevel = 1
+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy
run postfix reload
`},
		{"one of old", Socketmap, func(t *Target) { address(t); t.Daemon.MinTLS["default"] = verdict.TLSAuthenticated }, func(f *fake) {
			f.main["smtp_tls_security_level"], f.main["smtp_enforce_tls"] = "", "yes"
		}, strings.Replace(asks, "-smtp_tls_security_level = may\n+smtp_tls_security_level = dane\n", "+smtp_tls_dane_insecure_mx_policy = dane\n", 1) + "+smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy\n" + reload},
		{"one, and pipe", Pipe, func(t *Target) { t.Daemon.MinTLS["default"] = verdict.TLSEncrypted }, func(f *fake) {
			f.main["smtp_tls_security_level"], f.main["enable_long_queue_ids"] = "encrypt", "yes"
			f.main["export_environment"] = "TZ, GOTRACEBACK=crash"
			f.master["mxpipe/unix"] = "mxpipe unix - n n - - pipe flags=q user=mxpipe null_sender= argv=/usr/bin/mxpipe --queue-id ${queue_id} --size ${size} --nexthop ${nexthop} -f ${sender} -- ${recipient}"
			f.main["mxpipe_destination_recipient_limit"], f.main["mxpipe_time_limit"] = "1", "1000s"
		}, "--- main.cf\n+default_transport = mxpipe\n" + reload},
		{"in the queue directory", Socketmap, func(t *Target) {
			t.Daemon.Socketmap = []string{"/var/spool/postfix/mxpolicyd/socketmap.sock"}
			t.Groups = func(string, string) (string, bool) { return "postfix", true }
		}, nil, asks + "+smtp_tls_policy_maps = socketmap:unix:mxpolicyd/socketmap.sock:policy\n" + reload},
		{"without systemd and without a chroot", Socketmap, func(t *Target) { t.Systemd = false }, func(f *fake) {
			f.master["smtp/unix"], f.master["relay/unix"] = "smtp unix - - n - - smtp", "relay unix - - - - - smtp"
		}, "--- members of the group mxpipe\n+postfix\n" + strings.Replace(asks, authorities, "", 1) + "+smtp_tls_policy_maps = socketmap:unix:/run/mxpolicyd/socketmap.sock:policy\n" + reload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, target := stock(t), packaged()
			if tt.target != nil {
				tt.target(&target)
			}
			if tt.change != nil {
				tt.change(f)
			}
			p, err := f.plan(tt.way, target)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Diff(); got != tt.want {
				t.Errorf("it shows\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What loses effect is said beside the plan.
func TestPostfixNotes(t *testing.T) {
	f := stock(t)
	f.main["smtp_generic_maps"] = "hash:/etc/postfix/generic"
	p, err := f.plan(Pipe, packaged())
	if err != nil || len(p.Notes) != 1 || !strings.Contains(p.Notes[0].What, "smtp_generic_maps has no effect") {
		t.Errorf("%+v, %v", p.Notes, err)
	}
}

// What would hold up mail, or send it astray, is not set up.
func TestPostfixRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		way    Way
		target func(t *Target)
		change func(f *fake)
		what   string
		mend   string
	}{
		{"a relay with a password", Pipe, nil, func(f *fake) {
			f.main["relayhost"], f.main["smtp_sasl_auth_enable"] = "[smtp.example]:587", "yes"
		}, "requires a password", "smtp(8)"},
		{"a relay and LMTP", LMTP, nil, func(f *fake) { f.main["relayhost"] = "[smtp.example]" }, "no effect on mail sent by LMTP", "smtp(8)"},
		{"a level that answers undercut", Socketmap, nil, func(f *fake) { f.main["smtp_tls_security_level"] = "encrypt" },
			"smtp_tls_security_level = encrypt counts only where mxpolicyd has no answer", "local_policy: {min_tls_level: encrypted}"},
		{"one of old", Socketmap, func(t *Target) { t.Daemon.MinTLS["default"] = verdict.TLSEncrypted }, func(f *fake) {
			f.main["smtp_tls_security_level"], f.main["smtp_enforce_tls"] = "", "yes"
		}, "smtp_enforce_tls = yes counts only", "min_tls_level: authenticated"},
		{"a level that mxpipe does not know", Pipe, nil, func(f *fake) { f.main["smtp_tls_security_level"] = "secure" }, "smtp_tls_security_level = secure has no effect on mail sent by pipe, so", "min_tls_level: authenticated"},
		{"one for an entry, and LMTP", LMTP, nil, func(f *fake) { f.master["smtp/unix"] += " -o smtp_tls_security_level=encrypt" }, "= encrypt has no effect on mail sent by LMTP, so", "transport default"},
		{"levels by site", Socketmap, nil, func(f *fake) { f.main["smtp_tls_per_site"] = "hash:/etc/postfix/sites" }, "smtp_tls_per_site has no effect beside", "smtp_tls_policy_maps"},
		{"no pipe socket", Pipe, func(t *Target) { t.Daemon.Pipe = "" }, nil, "no socket for mxpipe", "listen:"},
		{"no mxpipe", Pipe, func(t *Target) { t.Mxpipe = "" }, nil, "there is no mxpipe", "install"},
		{"no user", Pipe, func(t *Target) { t.UserExists = func(string) bool { return false } }, nil, "no user mxpipe", "useradd"},
		{"no LMTP socket", LMTP, func(t *Target) { t.Daemon.LMTP = nil }, nil, "no socket for LMTP", "mxpolicyd-lmtp.socket"},
		{"no socketmap", Socketmap, func(t *Target) { t.Daemon.Socketmap = nil }, nil, "no socket for policies", "mxpolicyd-socketmap.socket"},
		{"a chroot without systemd", Socketmap, func(t *Target) { t.Systemd = false }, nil, "runs in the chroot /var/spool/postfix", `listen: {socketmap: {address: "127.0.0.1:8463"}}`},
		{"another way", "http", nil, nil, `way "http"`, "--way"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, target := stock(t), packaged()
			if tt.target != nil {
				tt.target(&target)
			}
			if tt.change != nil {
				tt.change(f)
			}
			p, err := f.plan(tt.way, target)
			var refused *Refusal
			if !errors.As(err, &refused) || !strings.Contains(refused.What, tt.what) || !strings.Contains(refused.Mend, tt.mend) {
				t.Errorf("%v, want %s (%s)", err, tt.what, tt.mend)
			}
			if len(p.Steps) > 0 {
				t.Errorf("there is a plan: %s", p.Diff())
			}
		})
	}
}
