package mailserver

import (
	"slices"
	"strings"
)

// LostSetting is a setting of Postfix's smtp(8) that has no effect on mail
// which goes by pipe or by LMTP. mxpolicyd-postfix(7) lists them all; a test
// holds the page against the list.
type LostSetting struct {
	Name string
	// Usual are the values that need nothing in their place: Postfix's default,
	// and what mxpolicyd does anyway.
	Usual []string
	// Instead says what to do for mail by pipe and by LMTP.
	Instead string
	// LMTP is what lmtp(8) has for the same, for mail by LMTP; empty: nothing.
	LMTP string
}

// lost makes settings that have one remedy.
func lost(instead string, settings ...LostSetting) (list []LostSetting) {
	for _, s := range settings {
		s.Instead = instead
		list = append(list, s)
	}
	return list
}

// never is a setting that is empty by default.
func never(name string) LostSetting { return LostSetting{Name: name} }

// usually is a setting with other values that need nothing.
func usually(name string, values ...string) LostSetting {
	return LostSetting{Name: name, Usual: values}
}

// byLMTP is a setting, empty by default, that lmtp(8) has under its own name.
func byLMTP(name string) LostSetting {
	return LostSetting{Name: name, LMTP: "lmtp" + strings.TrimPrefix(name, "smtp")}
}

// LostSettings lists them.
func LostSettings() []LostSetting {
	return slices.Concat(
		lost("use LMTP with lmtp_generic_maps, or canonical_maps, which also change local mail",
			byLMTP("smtp_generic_maps")),
		lost("use LMTP with the lmtp_ form of it, or header_checks, mime_header_checks, nested_header_checks or body_checks, which also see local mail",
			byLMTP("smtp_header_checks"), byLMTP("smtp_mime_header_checks"), byLMTP("smtp_nested_header_checks"), byLMTP("smtp_body_checks")),
		lost("relay in mxpolicyd.yaml, with user, password_file, auth and tls; one transport for each sender's relay",
			usually("smtp_sasl_auth_enable", "no"), never("smtp_sasl_password_maps"), usually("smtp_sender_dependent_authentication", "no"),
			never("smtp_sasl_mechanism_filter"), usually("smtp_tls_wrappermode", "no")),
		lost("fallback_relay in mxpolicyd.yaml", usually("smtp_fallback_relay", "$fallback_relay"), never("fallback_relay")),
		lost("local_ip in mxpolicyd.yaml",
			never("smtp_bind_address"), never("smtp_bind_address6"), usually("smtp_bind_address_enforce", "no")),
		lost("hostname in mxpolicyd.yaml", usually("smtp_helo_name", "$myhostname")),
		lost("port in mxpolicyd.yaml", usually("smtp_tcp_port", "smtp", "25")),
		lost("prefer in mxpolicyd.yaml", usually("smtp_address_preference", "any")),
		lost("force_ipv4 in mxpolicyd.yaml", usually("inet_protocols", "all")),
		lost("overrides with a nexthop in brackets in mxpolicyd.yaml; names are looked up only in the DNS",
			usually("smtp_host_lookup", "dns"), usually("disable_dns_lookups", "no")),
		lost("dns in mxpolicyd.yaml", never("smtp_dns_resolver_options"), never("smtp_dns_reply_filter")),
		lost("local_policy.min_tls_level in mxpolicyd.yaml, encrypted for encrypt, authenticated for dane-only, fingerprint, verify and secure",
			usually("smtp_tls_security_level", "may", "dane"), usually("smtp_enforce_tls", "no")),
		lost("mx_auth and overrides in mxpolicyd.yaml", never("smtp_tls_policy_maps"), never("smtp_tls_per_site")),
		lost("pin in overrides of mxpolicyd.yaml", never("smtp_tls_fingerprint_cert_match")),
		lost("tls_client.root_ca in mxpolicyd.yaml",
			usually("smtp_tls_CAfile", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
			usually("smtp_tls_CApath", "/etc/ssl/certs", "/etc/pki/tls/certs"), never("smtp_tls_trust_anchor_file")),
		lost("tls_client.cert and tls_client.key in mxpolicyd.yaml",
			never("smtp_tls_cert_file"), never("smtp_tls_eccert_file"), never("smtp_tls_dcert_file"), never("smtp_tls_chain_files")),
		lost("tls_client.protocols and tls_client.legacy in mxpolicyd.yaml",
			usually("smtp_tls_protocols", ">=TLSv1", "!SSLv2, !SSLv3", "!SSLv2,!SSLv3"),
			usually("smtp_tls_mandatory_protocols", ">=TLSv1", "!SSLv2, !SSLv3", "!SSLv2,!SSLv3", ">=TLSv1.2", "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1")),
		lost("tls_client.ciphers in mxpolicyd.yaml",
			usually("smtp_tls_ciphers", "medium", "high"), usually("smtp_tls_mandatory_ciphers", "medium", "high"),
			never("smtp_tls_exclude_ciphers"), never("smtp_tls_mandatory_exclude_ciphers")),
		lost("nothing: mxpolicyd sends the host's own name in TLS", never("smtp_tls_servername")),
		lost("limits in mxpolicyd.yaml",
			usually("smtp_destination_concurrency_limit", "$default_destination_concurrency_limit"),
			usually("smtp_destination_rate_delay", "$default_destination_rate_delay"),
			usually("smtp_transport_rate_delay", "$default_transport_rate_delay"),
			usually("smtp_destination_recipient_limit", "$default_destination_recipient_limit")),
		lost("nothing: an extension that fails at a server is not used there again",
			never("smtp_discard_ehlo_keywords"), never("smtp_discard_ehlo_keyword_address_maps"), usually("smtp_never_send_ehlo", "no")),
		lost("nothing: mxpolicyd needs no workaround for the PIX firewall bug",
			never("smtp_pix_workaround_maps")),
		lost("nothing: replies are used as the remote server sent them", never("smtp_reply_filter")),
		lost("pipe_delivery_status_filter, or with LMTP lmtp_delivery_status_filter",
			LostSetting{Name: "smtp_delivery_status_filter", Usual: []string{"$default_delivery_status_filter"}, LMTP: "lmtp_delivery_status_filter"}),
		lost("connect_timeout, command_timeout and submission_timeout in mxpolicyd.yaml",
			usually("smtp_connect_timeout", "30s", "30"), usually("smtp_helo_timeout", "300s"), usually("smtp_mail_timeout", "300s"),
			usually("smtp_rcpt_timeout", "300s"), usually("smtp_data_done_timeout", "600s"), usually("smtp_data_xfer_timeout", "180s")),
		lost("conn_reuse_limit, conn_max_idle_count and conn_max_idle_time in mxpolicyd.yaml; TLS connections are reused by default",
			never("smtp_connection_cache_destinations"), usually("smtp_connection_reuse_count_limit", "0"), usually("smtp_connection_reuse_time_limit", "300s")),
		lost("nothing: mxpolicyd folds at 998 bytes", usually("smtp_line_length_limit", "998", "990")),
		lost("nothing: local parts are quoted as RFC 5321 requires", usually("smtp_quote_rfc821_envelope", "yes")),
		lost("nothing: mxpolicyd never sends XFORWARD", usually("smtp_send_xforward_command", "no")),
	)
}

// lostBy tells of each setting that is set and does nothing for mail that goes
// this way, "pipe" or "LMTP".
func (c postfixConfig) lostBy(way string) (list []LostSetting) {
	for _, s := range LostSettings() {
		if way == "LMTP" && s.LMTP != "" && c.value(s.LMTP) != "" {
			continue
		}
		if slices.ContainsFunc(c.written(s.Name), func(value string) bool { return !c.usual(s, value) }) {
			list = append(list, s)
		}
	}
	return list
}

// written are the values of a setting: in main.cf, and by -o at the entries of
// smtp(8) that mail would go by otherwise.
func (c postfixConfig) written(name string) []string {
	values := []string{c.settings[name]}
	for _, e := range c.entries {
		if e.command != "smtp" || e.kind != "unix" || e.name != "smtp" && e.name != "relay" {
			continue
		}
		for i, word := range e.args {
			if value, ok := strings.CutPrefix(word, name+"="); ok && i > 0 && e.args[i-1] == "-o" {
				values = append(values, value)
			}
		}
	}
	return values
}

// usual reports whether a value needs nothing in its place.
func (c postfixConfig) usual(s LostSetting, value string) bool {
	if value == "" || slices.Contains(s.Usual, value) {
		return true
	}
	if s.Name == "smtp_tls_policy_maps" && mapText.ReplaceAllString(value, "") == "" {
		// a socketmap alone: what answers there obeys what mxpolicyd obeys
		return true
	}
	return slices.ContainsFunc(s.Usual, func(usual string) bool {
		return strings.HasPrefix(usual, "$") && c.expand(usual, 0) == c.expand(value, 0)
	})
}
