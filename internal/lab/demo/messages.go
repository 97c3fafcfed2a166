package main

// message is one message, and what must come of it.
type message struct {
	domain string
	about  string   // in words for the table; "" means those of the domain
	to     []string // local parts; nil means one
	args   []string // further arguments of mxpipe
	header string   // a further header field
	again  bool     // it is the one before, tried again by the mail server
	want   want

	queueID string
	text    []byte // as a mail server hands it over, with LF
}

// group is some messages below one heading.
type group struct {
	title    string
	messages []message
}

// The ways in which a message can arrive.
const (
	plaintext = false
	overTLS   = true
)

// delivered, deferred and refused make what is wanted.
func delivered(at string, tls bool, says string) want {
	return want{exit: 0, code: "2.0.0", at: at, tls: tls, says: says}
}

func deferred(code, says string) want { return want{exit: 75, code: code, says: says} }

func refused(exit int, code, says string) want { return want{exit: exit, code: code, says: says} }

// messages lists what the demo sends.
func messages() []group {
	return []group{
		{"DANE: the DNS says which certificate the server must show", []message{
			{domain: "dane-ee.example", want: delivered("mx.dane-ee.example", overTLS, "dane, TLS1.3")},
			{domain: "dane-ee.example", about: "once more: over the connection that was kept",
				want: delivered("mx.dane-ee.example", overTLS, "dane, TLS1.3, reused").undialled()},
			{domain: "dane-ta.example", want: delivered("mx.dane-ta.example", overTLS, "dane, TLS1.3")},
			{domain: "dane-ta-name.example", want: deferred("4.7.5", "DANE")},
			{domain: "dane-wrong.example", want: deferred("4.7.5", "DANE")},
			{domain: "dane-wrong.example", about: "the same, but its sender says \"TLS-Required: No\"", header: "TLS-Required: No",
				want: delivered("mx.dane-wrong.example", overTLS, "webpki, TLS1.3")},
			{domain: "dane-no-tls.example", want: deferred("4.7.5", "does not offer STARTTLS")},
			{domain: "dane-unusable.example", want: delivered("mx.dane-unusable.example", overTLS, "encrypted, TLS1.3")},
			{domain: "dane-unusable-no-tls.example", want: deferred("4.7.4", "does not offer STARTTLS")},
			{domain: "dane-bogus.example", want: deferred("4.7.5", "TLSA records").undialled()},
			{domain: "dane-second.example", want: delivered("mx2.dane-second.example", overTLS, "dane, TLS1.3").logging("mx1.dane-second.example: DANE")},
			{domain: "dane-hosted.example", want: delivered("mx.dane-ta.example", overTLS, "dane for an unsigned MX, TLS1.3")},
		}},
		{"MTA-STS: a policy on the web says that certificates must be valid", []message{
			{domain: "sts.example", want: delivered("mx.sts.example", overTLS, "mtasts, TLS1.3")},
			{domain: "sts-wrong-name.example", want: deferred("4.7.5", "MTA-STS")},
			{domain: "sts-expired.example", want: deferred("4.7.5", "MTA-STS")},
			{domain: "sts-not-listed.example", want: deferred("4.7.5", "does not list this host").undialled()},
			{domain: "sts-testing.example", want: delivered("mx.sts-testing.example", overTLS, "encrypted, TLS1.3").logging("MTA-STS testing")},
			{domain: "sts-missing.example", want: delivered("mx.sts-missing.example", overTLS, "encrypted, TLS1.3")},
		}},
		{"Both: DANE decides where there is DANE", []message{
			{domain: "both.example", want: delivered("mx.both.example", overTLS, "dane, TLS1.3")},
			{domain: "both-dane-yes.example", want: delivered("mx.both-dane-yes.example", overTLS, "dane, TLS1.3")},
			{domain: "both-dane-no.example", want: deferred("4.7.5", "DANE")},
		}},
		{"No policy: TLS if there is any, unless our side asks for more", []message{
			{domain: "none.example", want: delivered("mx.none.example", overTLS, "encrypted, TLS1.3")},
			{domain: "plain.example", want: delivered("mx.plain.example", plaintext, "plaintext")},
			{domain: "plain.example", about: "the same by a transport with min_tls_level: encrypted", args: []string{"--transport", strict},
				want: deferred("4.7.4", "local_policy requires TLS")},
			{domain: "none.example", about: "self-signed is enough for min_tls_level: encrypted", args: []string{"--transport", strict},
				want: delivered("mx.none.example", overTLS, "encrypted, TLS1.3")},
			{domain: "broken-tls.example", want: delivered("mx.broken-tls.example", plaintext, "plaintext")},
		}},
		{"REQUIRETLS: the sender asks for proven TLS all the way", []message{
			{domain: "requiretls.example", args: []string{"--requiretls", "--transport", strict},
				want: delivered("mx.requiretls.example", overTLS, "dane, TLS1.3").requiringTLS()},
			{domain: "requiretls-no.example", args: []string{"--requiretls", "--transport", strict},
				want: refused(69, "5.7.30", "does not offer it")},
			{domain: "requiretls-no.example", about: "the same with relaxed_requiretls, the default", args: []string{"--requiretls"},
				want: delivered("mx.requiretls-no.example", overTLS, "dane, TLS1.3")},
			{domain: "requiretls-open.example", args: []string{"--requiretls"},
				want: refused(69, "5.7.30", "verifies").undialled()},
		}},
		{"The way there", []message{
			{domain: "down.example", want: delivered("mx2.down.example", overTLS, "TLS1.3").logging("mx1.down.example")},
			{domain: "all-down.example", want: deferred("4.4.1", "refused")},
			{domain: "all-down.example", about: "once more: known to be dead, so it fails at once", want: deferred("4.4.1", "not tried since")},
			{domain: "no-mx.example", want: delivered("no-mx.example", overTLS, "TLS1.3")},
			{domain: "null-mx.example", want: refused(68, "5.1.10", "")},
			{domain: "nowhere.example", about: "does not exist", want: refused(68, "5.4.4", "")},
			{domain: "bogus.example", want: deferred("4.4.3", "").undialled()},
		}},
		{"What the server says", []message{
			{domain: "users.example", about: "550 to an unknown user", to: []string{"nosuch"}, want: refused(67, "5.1.1", "550 5.1.1")},
			{domain: "users.example", about: "450 to a user with a passing trouble", to: []string{"later"}, want: deferred("4.2.0", "450 4.2.0")},
			{domain: "users.example", about: "three recipients: one taken, one 550, one 450", to: []string{"ann", "nosuch", "later"},
				want: deferred("4.2.0", "3 recipients, 1 deferred, 1 refused, 1 delivered").delivering("mx.users.example", "ann")},
			{domain: "users.example", about: "tried again: who has it gets it no second time", to: []string{"ann", "nosuch", "later"}, again: true,
				want: deferred("4.2.0", "3 recipients, 1 deferred, 1 refused, 1 delivered").logging("not delivered again")},
		}},
	}
}
