package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
)

// ask is a question that Postfix's own smtp(8) puts to mxpolicyd as a socketmap
// (socketmap_table(5)), and the answer.
type ask struct {
	table  string // policy, or policy-tlsrpt
	domain string
	about  string // "": as the lab says
	want   string // how the answer must begin; "": there must be no policy
}

// asks are those of the demo.
func asks() []ask {
	const tlsrpt = "policy-tlsrpt"
	return []ask{
		{domain: "dane-ee.example", want: "dane-only"},
		{domain: "dane-hosted.example", want: "dane"},
		{domain: "dane-bogus.example", want: "TEMP 4.7.5 mx.dane-bogus.example: the TLSA records cannot be looked up"},
		{domain: "sts.example", want: "secure match=mx.sts.example servername=hostname"},
		{domain: "sts-not-listed.example", want: "TEMP 4.7.5 mx.sts-not-listed.example: the domain's MTA-STS policy does not list this host"},
		{domain: "both.example", want: "dane-only"},
		{domain: "none.example"},
		{domain: "sts-testing.example"},
		{table: tlsrpt, domain: "sts-testing.example", about: "the same for TLS reports (Postfix 3.10)", want: "may policy_type=sts policy_domain=sts-testing.example"},
		{table: tlsrpt, domain: "sts-missing.example", want: "may policy_type=no-policy-found policy_domain=sts-missing.example policy_failure=sts-policy-fetch-error"},
		{table: "policy@" + strict, domain: "none.example", about: "the same by a transport with min_tls_level: encrypted", want: "encrypt"},
	}
}

// askAll asks what there is to ask, over one connection. It gives how many
// answers were not as they should be.
func (d *demo) askAll(ctx context.Context) (bad int, err error) {
	if len(d.asks) == 0 {
		return 0, nil
	}
	d.table.heading("What Postfix's own smtp(8) is told, if it delivers and asks mxpolicyd for the TLS policy (smtp_tls_policy_maps)")
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.daemon.socketmap)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := netstring.NewReader(conn, 100_000)
	for _, a := range d.asks {
		if a.table == "" {
			a.table = "policy"
		}
		if known, ok := d.world.Domain(a.domain); ok && a.about == "" {
			a.about = known.About
		}
		d.table.progress(a.domain)
		if _, err := conn.Write(netstring.Append(nil, a.table+" "+a.domain)); err != nil {
			return bad, fmt.Errorf("mxpolicyd as a socketmap: %w", err)
		}
		text, err := in.Next()
		if err != nil {
			return bad, fmt.Errorf("mxpolicyd as a socketmap: %w", err)
		}
		answer, ok := a.check(string(text))
		if !ok {
			bad++
		}
		d.table.answer(&a, answer, ok)
	}
	return bad, nil
}

// check gives an answer as postmap(1) would print it, and whether it is the
// one.
func (a *ask) check(reply string) (answer string, ok bool) {
	answer, found := strings.CutPrefix(reply, "OK ")
	if reply == "NOTFOUND " {
		return "no policy: smtp_tls_security_level holds", a.want == ""
	}
	if !found && !strings.HasPrefix(reply, "TEMP ") {
		return reply, false
	}
	return answer, a.want != "" && strings.HasPrefix(answer, a.want)
}

func (a *ask) expected() string {
	if a.want == "" {
		return "there should be no policy"
	}
	return fmt.Sprintf("the answer does not begin with %q", a.want)
}

// answer writes a row.
func (t *table) answer(a *ask, answer string, ok bool) {
	mark := t.paint(green, pad("ok", markWidth))
	if !ok {
		mark = t.paint(red, pad("!!", markWidth))
	}
	line := mark + pad(a.domain, domainWidth)
	if t.wide() {
		line += pad(a.about, aboutWidth) + a.table
	}
	t.println(line)
	indent := strings.Repeat(" ", markWidth)
	if !t.wide() {
		t.wrap(indent, "", a.about+", "+a.table)
	}
	t.wrap(indent, dim, answer)
	if !ok {
		t.wrap(indent, red, "NOT AS EXPECTED: "+a.expected())
	}
}
