package mailserver

import (
	"cmp"
	"slices"

	"github.com/mxpipe/mxpipe/transport/verdict"
)

// This file knows about a Postfix that requires TLS of every server, and that
// would require less of some once it asks mxpolicyd: what mxpolicyd answers
// comes before the level of main.cf, and mail by pipe and LMTP does not know
// that level at all. Then mxpolicyd has to require it instead
// (local_policy.min_tls_level), or mail that was held back goes in the clear.

// demand is what smtp(8) requires of every server, and the setting that says
// so.
type demand struct {
	least   verdict.TLSLevel
	setting string // "smtp_tls_security_level = encrypt"; empty: none does
}

// demanded is the highest level that main.cf and the entries of smtp(8) have.
func (c postfixConfig) demanded() demand {
	var highest demand
	for _, level := range c.written("smtp_tls_security_level") {
		d := demand{setting: "smtp_tls_security_level = " + level}
		switch c.expand(level, 0) {
		case "encrypt":
			d.least = verdict.TLSEncrypted
		case "dane-only", "fingerprint", "verify", "secure":
			d.least = verdict.TLSAuthenticated
		}
		if d.least > highest.least {
			highest = d
		}
	}
	// what was there before Postfix had levels, and counts where none is set
	if c.value("smtp_tls_security_level") == "" && slices.Contains(c.written("smtp_enforce_tls"), "yes") {
		d := demand{verdict.TLSAuthenticated, "smtp_enforce_tls = yes"}
		if c.raw("smtp_tls_enforce_peername") == "no" {
			d.least = verdict.TLSEncrypted
		}
		if d.least > highest.least {
			highest = d
		}
	}
	return highest
}

// lacking names the first of these transports that requires less than Postfix
// does; ok is false when none does, or when it is not known.
func (d Daemon) lacking(least verdict.TLSLevel, transports []string) (transport string, ok bool) {
	for _, t := range transports {
		t = cmp.Or(t, "default")
		if level, known := d.MinTLS[t]; known && level < least {
			return t, true
		}
	}
	return "", false
}

// requires says whether what each of these transports requires is known.
func (d Daemon) requires(transports []string) bool {
	return !slices.ContainsFunc(transports, func(t string) bool {
		_, known := d.MinTLS[cmp.Or(t, "default")]
		return !known
	})
}

// requireIt says what to write for a transport.
func requireIt(least verdict.TLSLevel, transport string) string {
	return "in mxpolicyd.yaml, in the mx_auth of transport " + transport + ", write local_policy: {min_tls_level: " + least.String() + "}, then systemctl reload mxpolicyd"
}

// answersDemand checks that no answer to smtp(8) is less than what it requires
// without one.
func (c postfixConfig) answersDemand(d Daemon, transport string, r *report) {
	want := c.demanded()
	if t, lacking := d.lacking(want.least, []string{transport}); lacking {
		r.fail(requireIt(want.least, t), "%s counts only where mxpolicyd has no answer, and an answer can be less, as dane is for hosts without TLSA records, so mail can leave in the clear", want.setting)
	}
	if c.value("smtp_tls_per_site") != "" {
		r.fail("move its lines to a table in smtp_tls_policy_maps, in front of the socketmap, then postconf -X smtp_tls_per_site",
			"smtp_tls_per_site has no effect beside smtp_tls_policy_maps, so what it requires of some domains is lost")
	}
	for _, e := range c.entries {
		if e.command != "smtp" || e.kind != "unix" || e.name != "smtp" && e.name != "relay" {
			continue
		}
		own := c.option(e, "smtp_tls_policy_maps")
		if own != c.value("smtp_tls_policy_maps") && !slices.ContainsFunc(PolicyMaps(own), func(m PolicyMap) bool { return c.ours(d, m) }) {
			r.warn("postconf -PX "+e.name+"/unix/smtp_tls_policy_maps", "%s has tables of its own in master.cf, so its mail obeys none of mxpolicyd's policies", e.name)
		}
	}
}

// levelLost tells of a level of smtp(8) that mail by pipe or LMTP does not
// know; done is false when the setting is to be told of as any other is.
func (c postfixConfig) levelLost(d Daemon, transports []string, by string, r *report) (done bool) {
	want := c.demanded()
	direct := slices.DeleteFunc(slices.Clone(transports), func(t string) bool { return slices.Contains(d.Relayed, cmp.Or(t, "default")) })
	t, lacking := d.lacking(want.least, direct)
	if lacking {
		r.fail(requireIt(want.least, t), "%s has no effect on mail sent by %s, so mail that it holds back leaves in the clear", want.setting, by)
	}
	return lacking || want.least > verdict.TLSNone && d.requires(direct)
}
