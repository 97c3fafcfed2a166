package setup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// fake is a host with a Postfix, as far as its commands are used.
type fake struct {
	t        *testing.T
	defaults map[string]string
	main     map[string]string
	master   map[string]string // entries, in one line each
	groups   []string          // of the user postfix
	ran      []string          // but for those that only ask
	running  bool
	fails    string // the command that does
}

// stock is Debian's Postfix.
func stock(t *testing.T) *fake {
	return &fake{t: t, running: true, groups: []string{"postfix"},
		defaults: map[string]string{
			"mail_version": "3.7.11", "compatibility_level": "0", "default_transport": "smtp", "enable_long_queue_ids": "no", "export_environment": "TZ MAIL_CONFIG LANG",
			"message_size_limit": "10240000", "relayhost": "", "smtp_tls_policy_maps": "", "smtp_dns_support_level": "", "smtp_tls_security_level": "",
			"smtp_tls_CAfile": "", "smtp_tls_mandatory_protocols": ">=TLSv1", "smtp_tls_CApath": "", "smtp_tls_loglevel": "0", "smtp_generic_maps": "", "smtp_sasl_auth_enable": "no", "tls_append_default_CA": "no",
			"smtp_helo_name": "$myhostname", "queue_directory": "/var/spool/postfix",
		},
		main: map[string]string{
			"compatibility_level": "3.6", "smtp_tls_CApath": "/etc/ssl/certs", "smtp_tls_security_level": "may",
			"smtp_tls_session_cache_database": "btree:${data_directory}/smtp_scache", "relayhost": "", "mynetworks": "127.0.0.0/8 [::1]/128",
		},
		master: map[string]string{
			"smtp/inet": "smtp inet n - y - - smtpd", "smtp/unix": "smtp unix - - y - - smtp",
			"relay/unix": "relay unix - - y - - smtp -o syslog_name=postfix/$service_name", "lmtp/unix": "lmtp unix - - y - - lmtp",
		},
	}
}

// state is all that a set-up may change.
func (f *fake) state() string {
	return fmt.Sprint(f.main, f.master, f.groups)
}

func (f *fake) run(_ context.Context, argv ...string) (string, error) {
	command := strings.Join(argv, " ")
	if f.fails != "" && strings.HasPrefix(command, f.fails) {
		return "", fmt.Errorf("%s: exit status 1", command)
	}
	var out strings.Builder
	lines := func(m map[string]string, format string) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&out, format, name, m[name])
		}
	}
	switch {
	case command == "postconf":
		all := maps.Clone(f.defaults)
		maps.Copy(all, f.main)
		lines(all, "%s = %s\n")
		return out.String(), nil
	case command == "postconf -n":
		lines(f.main, "%s = %s\n")
		return out.String(), nil
	case command == "postconf -M":
		for _, entry := range slices.Sorted(maps.Values(f.master)) {
			out.WriteString(entry + "\n")
		}
		return out.String(), nil
	case command == "postconf -hx queue_directory mail_owner":
		return "/var/spool/postfix\npostfix\n", nil
	case command == "postfix status" && !f.running:
		return "", fmt.Errorf("%s: exit status 1", command)
	case command == "postfix status":
		return "", nil
	case strings.HasPrefix(command, "postconf -n "):
		if value, ok := f.main[argv[2]]; ok {
			return argv[2] + " = " + value + "\n", nil
		}
		return "", nil
	case command == "id -nG postfix":
		return strings.Join(f.groups, " ") + "\n", nil
	case len(argv) == 3 && strings.HasPrefix(command, "postconf -M "):
		if entry, ok := f.master[argv[2]]; ok {
			return entry + "\n", nil
		}
		return "", nil
	}
	f.ran = append(f.ran, command)
	switch {
	case strings.HasPrefix(command, "postconf -M -e "):
		name, entry, _ := strings.Cut(argv[3], "=")
		f.master[name] = entry
	case strings.HasPrefix(command, "postconf -M -X "):
		delete(f.master, argv[3])
	case strings.HasPrefix(command, "postconf -e "):
		name, value, _ := strings.Cut(argv[2], " = ")
		f.main[name] = value
	case strings.HasPrefix(command, "postconf -X "):
		delete(f.main, argv[2])
	case strings.HasPrefix(command, "usermod -aG "):
		f.groups = append(f.groups, argv[2])
	case strings.HasPrefix(command, "gpasswd -d "):
		f.groups = slices.DeleteFunc(f.groups, func(g string) bool { return g == argv[3] })
	case strings.HasPrefix(command, "systemctl "), command == "postfix reload", command == "update-exim4.conf", command == "service exim4 reload":
	default:
		f.t.Errorf("it runs %s", command)
	}
	return "", nil
}

// machine is the host, with its records in a directory of the test's.
func (f *fake) machine() Machine { return Machine{Run: f.run, Records: f.t.TempDir()} }

// packaged is the daemon of a package: systemd holds its sockets.
func packaged() Target {
	return Target{
		Daemon: mailserver.Daemon{
			Transports: []string{"default"}, Pipe: "/run/mxpolicyd/pipe.sock", LMTP: []string{"/run/mxpolicyd/lmtp.sock"},
			Socketmap: []string{"/run/mxpolicyd/socketmap.sock"}, MaxMessageSize: 100 << 20, MaxDeliveries: 1000,
			MinTLS: map[string]verdict.TLSLevel{"default": verdict.TLSNone},
		},
		Mxpipe: "/usr/bin/mxpipe", Config: "/etc/mxpolicyd/mxpolicyd.yaml", Systemd: true,
		Groups:     func(string, string) (string, bool) { return "mxpipe", false },
		Exists:     func(string) bool { return true },
		UserExists: func(string) bool { return true },
	}
}

// loginAt is a relay of mxpolicyd.yaml that has a login.
func loginAt(host string, port int) mailserver.Relay {
	return mailserver.Relay{Host: host, Port: port, All: true, Login: true}
}
