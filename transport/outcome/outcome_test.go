package outcome

import (
	"bufio"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// parse makes a Reply as a connection would.
func parse(t *testing.T, text string) reply.Reply {
	t.Helper()
	r, err := reply.Read(bufio.NewReader(strings.NewReader(text + "\r\n")))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return r
}

// show gives a decision as the table writes it: the code, then what is set.
func show(d Decision) string {
	s := d.Code.String() + " " + d.Conn.String()
	for _, f := range []struct {
		set  bool
		name string
	}{
		{d.Accepted, "accepted"}, {d.NextHost, "next"}, {d.TryHELO, "helo"},
		{d.TLSFailed, "tls"}, {d.MoreLater, "more"},
	} {
		if f.set {
			s += " " + f.name
		}
	}
	return s
}

func TestForReply(t *testing.T) {
	for _, test := range []struct {
		stage    Stage
		reply    string
		accepted int
		want     string
		ref      string
	}{
		// Success.
		{Greeting, "220 mx.example ESMTP", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2 S: 220"},
		{EHLO, "250 mx.example", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2 S: 250"},
		{HELO, "250 mx.example", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2 S: 250"},
		{EHLOAfterTLS, "250 mx.example", 0, "2.0.0 keep accepted", "RFC 3207 §4.2"},
		{STARTTLS, "220 2.0.0 Ready", 0, "2.0.0 keep accepted", "RFC 3207 §4: 220"},
		{MAIL, "250 2.1.0 Ok", 0, "2.1.0 keep accepted", "RFC 5321 §4.3.2 S: 250"},
		{MAIL, "250", 0, "2.0.0 keep accepted", "RFC 5321 §4.2: a bare code"},
		{RCPT, "250 2.1.5 Ok", 0, "2.1.5 keep accepted", "RFC 5321 §4.3.2 S: 250"},
		{RCPT, "251 will forward", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2 S: 251"},
		{RCPT, "252 cannot verify", 3, "2.0.0 keep accepted", "RFC 5321 §4.3.2: first digit"},
		{RCPT, "299 fine", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2: first digit"},
		{RCPT, "250 5.1.1 fine", 0, "2.1.1 keep accepted", "RFC 2034 §4: the reply's class rules"},
		{DATA, "354 go ahead", 1, "2.0.0 keep accepted", "RFC 5321 §4.3.2 I: 354"},
		{BDAT, "250 2.0.0 86 octets", 1, "2.0.0 keep accepted", "RFC 3030 §2"},
		{Final, "250 2.0.0 Ok: queued as 4XyZ", 1, "2.0.0 keep accepted", "RFC 5321 §4.2.5"},
		{Final, "250 2.6.0 queued", 2, "2.6.0 keep accepted", "RFC 3463 §2: own detail kept"},
		{RSET, "250 2.0.0 Ok", 0, "2.0.0 keep accepted", "RFC 5321 §4.3.2 S: 250"},

		// 421 at every stage: RFC 5321 §3.8, §4.3.2.
		{Greeting, "421 4.7.0 too many connections", 0, "4.7.0 close next", "RFC 5321 §4.3.2: 421 any time"},
		{Greeting, "421 busy", 0, "4.3.2 close next", "RFC 3463 §3.4 X.3.2"},
		{EHLO, "421 bye", 0, "4.3.2 close next", "Postfix smtp_helo: 421 is the site's failure, no HELO"},
		{HELO, "421 bye", 0, "4.3.2 close next", "RFC 5321 §3.8"},
		{STARTTLS, "421 4.3.0 shutting down", 0, "4.3.0 close next", "RFC 5321 §3.8: no failure of TLS"},
		{EHLOAfterTLS, "421 bye", 0, "4.3.2 close next", "RFC 5321 §3.8"},
		{MAIL, "421 4.4.2 idle", 0, "4.4.2 close next", "RFC 5321 §3.8"},
		{RCPT, "421 4.7.28 rate", 0, "4.7.28 close next", "RFC 5321 §3.8"},
		{RCPT, "421 4.7.28 rate", 5, "4.7.28 close next", "RFC 5321 §3.8"},
		{DATA, "421 bye", 1, "4.3.2 close next", "RFC 5321 §3.8"},
		{BDAT, "421 bye", 1, "4.3.2 close next", "RFC 3030 §2, RFC 5321 §3.8"},
		{Body, "421 bye", 1, "4.3.2 close next", "RFC 5321 §3.8: asynchronously"},
		{Final, "421 4.3.2 bye", 1, "4.3.2 close next", "RFC 5321 §4.2.5: the client keeps responsibility"},
		{Final, "421 5.3.2 bye", 1, "4.3.2 close next", "RFC 5321 §4.2: the code decides"},

		// The host refuses: next host.
		{Greeting, "554 No SMTP service here", 0, "5.0.0 close next", "RFC 5321 §3.1; code as Postfix"},
		{Greeting, "554 5.7.1 listed", 0, "5.7.1 close next", "RFC 5321 §3.1"},
		{Greeting, "521 mx does not accept mail", 0, "5.3.2 close next", "RFC 7504 §3; registry X.3.2"},
		{Greeting, "450 later", 0, "4.0.0 close next", "RFC 5321 §4.2.1; code as Postfix"},
		{Greeting, "550-5.7.1 go\r\n550 5.7.1 away", 0, "5.7.1 close next", "RFC 2034 §4: on each line"},
		{EHLO, "500 what", 0, "5.5.2 keep next helo", "RFC 5321 §3.2; RFC 3463 §3.6 X.5.2"},
		{EHLO, "502 no", 0, "5.5.1 keep next helo", "RFC 5321 §4.3.2; RFC 3463 §3.6 X.5.1"},
		{EHLO, "504 no", 0, "5.5.4 keep next helo", "RFC 5321 §4.3.2; registry X.5.4"},
		{EHLO, "550 no", 0, "5.0.0 keep next helo", "RFC 5321 §4.3.2; Postfix: any but 421"},
		{EHLO, "554 5.7.1 no", 0, "5.7.1 keep next helo", "Postfix smtp_helo: any but 421"},
		{EHLO, "450 4.7.1 helo refused", 0, "4.7.1 close next", "RFC 5321 §4.2.1"},
		{EHLO, "451 later", 0, "4.0.0 close next", "RFC 5321 §4.2.1; code as Postfix"},
		{HELO, "550 5.7.1 your name", 0, "5.7.1 close next", "Postfix smtp_site_fail"},
		{HELO, "502 no", 0, "5.5.1 close next", "RFC 5321 §4.2.4"},
		{HELO, "450 later", 0, "4.0.0 close next", "Postfix smtp_site_fail"},
		{EHLOAfterTLS, "500 what", 0, "5.5.2 close next", "RFC 3207 §4.2: EHLO, not HELO"},
		{EHLOAfterTLS, "454 4.7.0 no", 0, "4.7.0 close next", "RFC 3207 §4.2"},

		// STARTTLS refused.
		{STARTTLS, "454 TLS not available", 0, "4.7.0 keep next tls", "RFC 3207 §4; registry X.7.0"},
		{STARTTLS, "454 4.7.0 TLS not available", 0, "4.7.0 keep next tls", "RFC 3207 §4"},
		{STARTTLS, "454 4.3.0 no entropy", 0, "4.7.0 keep next tls", "RFC 3207 §4"},
		{STARTTLS, "502 5.5.1 no", 0, "4.7.4 keep next tls", "RFC 3463 §3.8 X.7.4; RFC 3207 §4.1"},
		{STARTTLS, "501 no parameters", 0, "4.7.4 keep next tls", "RFC 3207 §4: 501"},
		{STARTTLS, "554 5.7.3 no", 0, "4.7.3 keep next tls", "RFC 3463 §3.8"},
		{STARTTLS, "250 ok", 0, "4.5.0 close next tls", "RFC 3207 §4: only 220"},

		// MAIL refused.
		{MAIL, "451 4.3.0 later", 0, "4.3.0 reset next", "Postfix smtp_mesg_fail: backup host"},
		{MAIL, "452 no space", 0, "4.3.1 reset next", "registry X.3.1; RFC 1870 §6.1 (1)"},
		{MAIL, "452 4.3.1 no space", 0, "4.3.1 reset next", "RFC 1870 §6.2 (1)"},
		{MAIL, "455 parameters", 0, "4.5.4 reset next", "RFC 5321 §4.2.2; RFC 3463 §3.6 X.5.4"},
		{MAIL, "550 5.7.1 denied", 0, "5.7.1 reset", "RFC 5321 §4.3.2"},
		{MAIL, "550 denied", 0, "5.0.0 reset", "code as Postfix"},
		{MAIL, "552 too big", 0, "5.3.4 reset", "RFC 1870 §6.2 (2)"},
		{MAIL, "552 5.2.2 full", 0, "5.2.2 reset", "RFC 5321 §4.3.2"},
		{MAIL, "553 bad sender", 0, "5.1.7 reset", "RFC 5321 §4.2.2; RFC 3463 §3.2 X.1.7"},
		{MAIL, "503 sequence", 0, "5.5.1 reset", "RFC 5321 §4.2.2; registry X.5.1"},
		{MAIL, "501 5.1.8 sender domain", 0, "5.1.8 reset", "RFC 3463 §3.2 X.1.8"},
		{MAIL, "555 SIZE unknown", 0, "5.5.4 reset", "RFC 5321 §4.2.2; registry X.5.4"},
		{MAIL, "530 first STARTTLS", 0, "4.7.8 reset next", "a login is our own trouble (DESIGN §7, Relay)"},

		// RCPT refused.
		{RCPT, "450 4.2.0 greylisted", 0, "4.2.0 reset next", "Postfix smtp_rcpt_fail: backup host"},
		{RCPT, "450 greylisted", 0, "4.0.0 reset next", "code as Postfix: 450 is mailbox or policy"},
		{RCPT, "450 4.2.0 greylisted", 1, "4.2.0 keep", "DESIGN §7: before a recipient was accepted"},
		{RCPT, "451 4.7.1 later", 2, "4.7.1 keep", "DESIGN §7"},
		{RCPT, "450 5.1.1 no such user", 1, "4.1.1 keep", "RFC 5321 §4.2: the code decides"},
		{RCPT, "550 5.1.1 no such user", 0, "5.1.1 reset", "RFC 3463 §3.2 X.1.1"},
		{RCPT, "550 5.1.1 no such user", 1, "5.1.1 keep", "RFC 3463 §3.2 X.1.1"},
		{RCPT, "550 4.7.1 no", 1, "5.7.1 keep", "RFC 5321 §4.2: the code decides"},
		{RCPT, "550 no such user", 1, "5.0.0 keep", "code as Postfix: user or policy"},
		{RCPT, "551 try <b@example.org>", 0, "5.1.6 reset", "RFC 5321 §3.4; RFC 3463 §3.2 X.1.6"},
		{RCPT, "552 full", 0, "5.2.2 reset", "registry X.2.2"},
		{RCPT, "553 name", 0, "5.1.3 reset", "RFC 5321 §4.2.2; RFC 3463 §3.2 X.1.3"},
		{RCPT, "554 no", 1, "5.0.0 keep", "code as Postfix"},
		{RCPT, "556 no mail", 0, "5.1.10 reset", "RFC 7504 §4, §6"},
		{RCPT, "555 NOTIFY unknown", 1, "5.5.4 keep", "RFC 5321 §4.2.2; registry X.5.4"},
		{RCPT, "501 syntax", 1, "5.5.4 keep", "RFC 5321 §4.2.2; RFC 3463 §3.6 X.5.4"},
		{RCPT, "535 no", 1, "4.7.8 keep", "RFC 4954 §6"},
		{MAIL, "534 SIZE=Message too big.", 0, "5.3.4 reset", "Courier 1.0.16; RFC 1870 §6.1"},
		{MAIL, "534 no", 0, "4.7.8 reset next", "RFC 4954 §6"},
		{RCPT, "534 SIZE=Message too big.", 1, "4.7.8 keep", "RFC 4954 §6"},
		{RCPT, "534 no", 1, "4.7.8 keep", "RFC 4954 §6"},
		{RCPT, "538 no", 1, "4.7.8 keep", "RFC 4954 §6"},
		{RCPT, "533 no", 1, "5.7.1 keep", "registry X.7.1"},
		{RCPT, "523 no", 1, "5.7.10 keep", "RFC 5248 §2.4 X.7.10"},
		{RCPT, "524 no", 1, "5.7.11 keep", "registry X.7.11"},
		{RCPT, "525 no", 1, "5.7.13 keep", "RFC 5248 §2.4 X.7.13"},
		{RCPT, "432 no", 1, "4.7.12 keep", "RFC 4954 §6"},
		{RCPT, "453 no", 1, "4.3.2 keep", "registry X.3.2"},
		{RCPT, "499 no", 1, "4.0.0 keep", "RFC 5321 §4.3.2: first digit"},
		{RCPT, "599 no", 1, "5.0.0 keep", "RFC 5321 §4.3.2: first digit"},

		// Too many recipients.
		{RCPT, "452 too many", 100, "4.5.3 keep more", "RFC 5321 §4.5.3.1.10"},
		{RCPT, "452 4.5.3 too many", 100, "4.5.3 keep more", "RFC 5321 §4.5.3.1.10"},
		{RCPT, "552 too many", 100, "4.5.3 keep more", "RFC 5321 §4.5.3.1.10: RFC 821's code"},
		{RCPT, "552 5.5.3 too many", 1, "4.5.3 keep more", "RFC 5321 §4.5.3.1.10"},
		{RCPT, "552 5.0.0 too many", 1, "4.5.3 keep more", "RFC 3463 §3.1: X.0.0 says nothing"},
		{RCPT, "451 4.5.3 too many", 1, "4.5.3 keep more", "registry: 451 with X.5.3"},
		{RCPT, "550 5.5.3 too many", 1, "4.5.3 keep more", "RFC 3463 §3.6 X.5.3: segment the message"},
		{RCPT, "550 5.5.3 too many", 0, "5.5.3 reset", "RFC 5321 §4.5.3.1.10: site policy"},
		{RCPT, "552 5.2.2 full", 1, "5.2.2 keep", "RFC 3463 §3.3 X.2.2: mailbox full"},
		{RCPT, "552 5.2.3 too long", 1, "5.2.3 keep", "RFC 1870 §6.4 (2)"},
		{RCPT, "452 4.2.2 full", 1, "4.2.2 keep", "RFC 3463 §3.3 X.2.2: mailbox full"},
		{RCPT, "452 4.3.1 disk", 1, "4.3.1 keep", "RFC 3463 §3.4 X.3.1"},
		{RCPT, "452 too many", 0, "4.3.1 reset next", "RFC 5321 §4.2.2: insufficient storage"},

		{RCPT, "552 too many recipients", 0, "4.5.3 reset next", "RFC 5321 §4.5.3.1.10: counted over transactions"},
		{RCPT, "552 5.5.3 too many", 0, "4.5.3 reset next", "RFC 5321 §4.5.3.1.10"},
		{RCPT, "552 5.0.0 Number of recipients exceeded", 0, "4.5.3 reset next", "RFC 5321 §4.5.3.1.10"},
		{RCPT, "552 5.2.2 too many messages", 0, "5.2.2 reset", "RFC 3463 §3.3 X.2.2; Postfix bounces"},
		{RCPT, "552 mailbox over quota", 0, "5.2.2 reset", "registry X.2.2; Postfix bounces"},
		{RCPT, "552", 0, "5.2.2 reset", "registry X.2.2; Postfix bounces"},
		{RCPT, "550 too many recipients", 0, "5.0.0 reset", "site policy"},
		{MAIL, "552 too many recipients", 0, "5.3.4 reset", "RFC 1870 §6.2 (2)"},

		// DATA refused.
		{DATA, "451 4.3.0 later", 1, "4.3.0 close", "RFC 5321 §4.3.2; DESIGN §7"},
		{DATA, "450 4.7.1 policy", 1, "4.7.1 close", "RFC 5321 §4.3.2"},
		{DATA, "550 5.7.1 policy", 1, "5.7.1 close", "RFC 5321 §4.3.2"},
		{DATA, "552 too big", 1, "5.3.4 close", "RFC 1870 §6.2: also after DATA"},
		{DATA, "554 no", 2, "5.0.0 close", "RFC 5321 §4.3.2; code as Postfix"},
		{DATA, "503 no", 1, "5.5.1 close", "RFC 5321 §4.5.3.1.10: 503 to DATA"},
		{DATA, "554 5.5.1 no valid recipients", 0, "5.5.1 reset", "RFC 2920 §3.1"},
		{DATA, "503 no valid recipients", 0, "5.5.1 reset", "RFC 2920 §3.1"},
		{DATA, "451 no", 0, "4.0.0 reset", "RFC 2920 §3.1"},
		{DATA, "421 bye", 0, "4.3.2 close", "RFC 5321 §3.8"},
		{DATA, "354 go ahead", 0, "4.5.0 close", "RFC 2920 §3.1: a message for no one"},

		// Body, BDAT and the end refused.
		{Body, "552 5.3.4 too big", 1, "5.3.4 close", "RFC 1870 §6.3; early"},
		{Body, "451 disk", 1, "4.0.0 close", "RFC 5321 §4.2.5; early"},
		{Body, "250 ok", 1, "4.5.0 close", "RFC 5321 §4.2: one reply a command, after it"},
		{BDAT, "552 too big", 1, "5.3.4 close", "RFC 3030 §2"},
		{BDAT, "452 4.3.1 disk", 1, "4.3.1 close", "RFC 3030 §2: indeterminate"},
		{BDAT, "503 5.5.1 no recipients", 0, "5.5.1 close", "RFC 3030 §2: indeterminate"},
		{Final, "552 too big", 1, "5.3.4 close", "RFC 1870 §6.3"},
		{Final, "552 5.3.4 too big", 1, "5.3.4 close", "RFC 1870 §6.3"},
		{Final, "554 5.6.0 content", 1, "5.6.0 close", "RFC 5321 §4.2.5"},
		{Final, "550 spam", 1, "5.0.0 close", "RFC 5321 §4.3.2; code as Postfix"},
		{Final, "554 no", 1, "5.0.0 close", "RFC 5321 §4.3.2; code as Postfix"},
		{Final, "451 4.7.1 later", 1, "4.7.1 close", "RFC 5321 §4.2.5"},
		{Final, "452 disk", 1, "4.3.1 close", "RFC 5321 §4.2.5; registry X.3.1"},
		{Final, "250 ok", 0, "4.5.0 close", "RFC 5321 §3.3: a message for no one"},
		{Final, "554 no recipients", 0, "5.0.0 close", "RFC 3030 §2"},

		// Out of step. Postfix calls these 5.5.0 and bounces; ours stay.
		{Greeting, "354 go", 0, "4.5.0 close next", "RFC 5321 §4.3.2"},
		{Greeting, "221 bye", 0, "4.5.0 close next", "RFC 5321 §3.8: 221 answers QUIT"},
		{EHLO, "334 go", 0, "4.5.0 close next", "RFC 4954 §4: 334 answers AUTH"},
		{HELO, "354 go", 0, "4.5.0 close next", "RFC 5321 §4.3.2"},
		{STARTTLS, "354 go", 0, "4.5.0 close next tls", "RFC 3207 §4"},
		{EHLOAfterTLS, "354 go", 0, "4.5.0 close next", "RFC 5321 §4.3.2"},
		{MAIL, "354 go", 0, "4.5.0 close next", "RFC 5321 §4.3.2"},
		{MAIL, "221 bye", 0, "4.5.0 close next", "RFC 5321 §3.8"},
		{RCPT, "354 go", 0, "4.5.0 close next", "RFC 5321 §4.3.2"},
		{RCPT, "354 go", 1, "4.5.0 close", "RFC 5321 §4.3.2"},
		{DATA, "250 ok", 1, "4.5.0 close", "RFC 5321 §4.3.2"},
		{DATA, "334 go", 1, "4.5.0 close", "RFC 4954 §4"},
		{BDAT, "354 go", 1, "4.5.0 close", "RFC 3030 §2"},
		{Final, "354 go", 1, "4.5.0 close", "RFC 5321 §4.3.2"},
		{Final, "221 bye", 1, "4.5.0 close", "RFC 5321 §4.2.5: no acceptance"},
		{Connect, "220 hello", 0, "4.5.0 close next", "RFC 5321 §4.3.1: the greeting is a stage of its own"},
		{Handshake, "454 no", 0, "4.5.0 close next tls", "RFC 3207 §4.1: no replies inside"},

		// RSET refuses no one's message.
		{RSET, "500 what", 0, "4.5.2 close", "RFC 5321 §4.1.1.5"},
		{RSET, "354 go", 0, "4.5.0 close", "RFC 5321 §4.3.2"},
		{RSET, "421 bye", 0, "4.3.2 close next", "RFC 5321 §3.8"},
	} {
		if got := show(ForReply(test.stage, parse(t, test.reply), test.accepted)); got != test.want {
			t.Errorf("%v, %q, %d accepted: got %q, want %q (%s)", test.stage, test.reply, test.accepted, got, test.want, test.ref)
		}
	}
}

// Codes that the reader never lets through must not turn into a bounce or a
// delivery either.
func TestForReplyOutOfRange(t *testing.T) {
	for stage := Connect; stage <= RSET+1; stage++ {
		for _, code := range []int{0, 150, 199, 600, 650, 999, -550} {
			d := ForReply(stage, reply.Reply{Code: code}, 1)
			if d.Code != status.New(status.Temporary, 5, 0) || d.Accepted || d.Conn != Close {
				t.Errorf("%v, %d: %s", stage, code, show(d))
			}
		}
	}
}

// TestInvariants goes through every stage, code and enhanced code for what
// must hold whatever the table says.
func TestInvariants(t *testing.T) {
	for stage := Connect; stage <= RSET; stage++ {
		for code := 200; code <= 599; code++ {
			for _, lines := range [][]string{nil, {""}, {"text"}, {"2.1.5 x"}, {"4.2.2 x"}, {"5.5.3 x"}, {"5.7.1 x"}} {
				for _, accepted := range []int{0, 1, 7} {
					d := ForReply(stage, reply.Reply{Code: code, Lines: lines}, accepted)
					fail := func(why string) {
						t.Errorf("%v, %d %q, %d accepted: %s: %s", stage, code, lines, accepted, show(d), why)
					}
					if d.Accepted != (d.Code.Class == status.Success) {
						fail("acceptance and class disagree")
					}
					if d.Code.Class == status.Permanent && code/100 != 5 {
						fail("permanent without 5yz")
					}
					if d.Accepted && (code/100 != 2 && code != 354 || d.NextHost || d.Conn != Keep) {
						fail("accepted wrongly")
					}
					if d.Code.Class == status.Permanent && d.NextHost && stage > EHLOAfterTLS {
						fail("a refused message goes to another host")
					}
					if code == 421 && (d.Conn != Close || d.Code.Class != status.Temporary) {
						fail("421")
					}
					if stage == Final && d.NextHost && code != 421 {
						fail("a second copy may arrive")
					}
					if d.MoreLater && (accepted == 0 || stage != RCPT || d.Code.Class != status.Temporary) {
						fail("more later")
					}
					if d.TryHELO && (stage != EHLO || code/100 != 5) {
						fail("HELO")
					}
					if d.TLSFailed && stage != STARTTLS && stage != Handshake {
						fail("TLS")
					}
				}
			}
		}
	}
}

func TestStrings(t *testing.T) {
	seen := map[string]bool{}
	for s := Connect; s <= RSET+1; s++ {
		if s.String() == "" || seen[s.String()] {
			t.Errorf("stage %d is called %q", s, s)
		}
		seen[s.String()] = true
	}
	if Keep.String() != "keep" || Reset.String() != "reset" || Close.String() != "close" {
		t.Error("connection states")
	}
}

// A relay's refusal that has to do with the login is no reason to return mail,
// whatever its basic code is. What it says of a message or a recipient stands.
func TestAtRelay(t *testing.T) {
	for line, want := range map[string]string{
		"550 5.7.8 credentials": "4.7.8", "554 5.7.9 too weak": "4.7.8", "550 5.7.11 in the clear": "4.7.8", "503 AUTH first": "4.7.8",
		"503 5.5.1 need AUTH": "4.7.8", "550 4.7.8 who": "4.7.8", "454 4.7.0 later": "4.7.0", "550 5.1.1 unknown": "5.1.1",
		"554 5.7.1 relay access denied": "5.7.1", "550 5.5.4 syntax": "5.5.4", "250 2.1.0 ok": "2.1.0",
	} {
		for _, stage := range []Stage{MAIL, RCPT, Final} {
			d := ForReply(stage, parse(t, line), 1).AtRelay()
			if got := d.Code.String(); got != want {
				t.Errorf("%s to %s: %s, want %s", line, stage, got, want)
			}
		}
	}
}
