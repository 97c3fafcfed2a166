package resolver

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func records(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

func TestParseResponse(t *testing.T) {
	long := []string{"x.example. 60 IN CNAME a0.example."}
	for i := range 20 {
		long = append(long, fmt.Sprintf("a%d.example. 60 IN CNAME a%d.example.", i, i+1))
	}
	for _, tc := range []struct {
		what       string
		rcode      int
		answer, ns []string
		want       response
		err        error
	}{
		{what: "records of the name, in any letter case and order", answer: []string{
			"y.example. 60 IN A 192.0.2.1", "X.Example. 90 IN A 192.0.2.2", "x.example. 80 IN A 192.0.2.3"},
			want: response{canonical: "x.example.", ttl: 80 * time.Second, records: addrs("192.0.2.2", "192.0.2.3")}},
		{what: "records beside the chain say nothing", answer: []string{"evil.example. 60 IN A 192.0.2.1", "z.example. IN CNAME x.example."}, err: errOtherName},
		{what: "not even that the name does not exist", rcode: dns.RcodeNameError, answer: []string{"evil.example. 60 IN A 192.0.2.1"}, err: errOtherName},
		{what: "an alias of another name", answer: []string{"evil.example. 60 IN CNAME y.example."}, ns: []string{"example. 60 IN SOA ns. h. 1 1 1 1 40"}, err: errOtherName},
		{what: "records beside the end of the chain", answer: []string{"x.example. 60 IN CNAME y.example.", "evil.example. 60 IN A 192.0.2.1"}, err: errOtherName},
		{what: "other types beside the chain", answer: []string{"evil.example. 60 IN MX 1 x."}, ns: []string{"example. 60 IN SOA ns. h. 1 1 1 1 40"},
			want: response{canonical: "x.example.", existence: NoData, ttl: 40 * time.Second}},
		{what: "a chain in disorder", answer: []string{
			"z.example. 60 IN A 192.0.2.1", "y.example. 50 IN CNAME z.example.", "x.example. 70 IN CNAME y.example."},
			want: response{canonical: "z.example.", ttl: 50 * time.Second, aliases: 2, records: addrs("192.0.2.1")}},
		{what: "a chain that leads out", answer: []string{"x.example. 70 IN CNAME y.test."}, ns: []string{"example. 60 IN SOA ns. h. 1 1 1 1 1"},
			want: response{canonical: "y.test.", existence: NoData, ttl: 70 * time.Second, aliases: 1, unfinished: true}},
		{what: "a chain whose end has no such record (RFC 2308 §2.2)", answer: []string{"x.example. 70 IN CNAME y.test."}, ns: []string{"test. 60 IN SOA ns. h. 1 1 1 1 40"},
			want: response{canonical: "y.test.", existence: NoData, ttl: 40 * time.Second, aliases: 1}},
		{what: "a chain whose end does not exist (RFC 6604 §3)", rcode: dns.RcodeNameError, answer: []string{"x.example. 70 IN CNAME y.test."}, ns: []string{"test. 30 IN SOA ns. h. 1 1 1 1 40"},
			want: response{canonical: "y.test.", existence: NXDomain, ttl: 30 * time.Second, aliases: 1}},
		{what: "a loop", answer: []string{"x.example. IN CNAME y.example.", "y.example. IN CNAME x.example."}, err: errAliases},
		{what: "an alias of itself", answer: []string{"x.example. IN CNAME x.example."}, err: errAliases},
		{what: "an endless chain", answer: long, err: errAliases},
		{what: "records at a name that does not exist", rcode: dns.RcodeNameError, answer: []string{"x.example. 60 IN A 192.0.2.1"}, err: errContradiction},
		{what: "a referral (RFC 2308 §2.2)", ns: []string{"example. 60 IN NS ns.example."}, err: errReferral},
		{what: "no data with name servers, RFC 2308 §2.2 type 1", ns: []string{"example. 60 IN NS ns.example.", "example. 60 IN SOA ns. h. 1 1 1 1 7200"},
			want: response{canonical: "x.example.", existence: NoData, ttl: 60 * time.Second}},
		{what: "a negative TTL beyond an hour", ns: []string{"example. 90000 IN SOA ns. h. 1 1 1 1 90000"},
			want: response{canonical: "x.example.", existence: NoData, ttl: time.Hour}},
		{what: "a TTL with its top bit set is zero (RFC 2181 §8)", answer: []string{"x.example. 2147483648 IN A 192.0.2.1"},
			want: response{canonical: "x.example.", ttl: minTTL, records: addrs("192.0.2.1")}},
		{what: "another class", answer: []string{"x.example. 60 CH A 192.0.2.1"}, want: response{canonical: "x.example.", existence: NoData, ttl: noSOATTL}},
	} {
		msg := &dns.Msg{Answer: nil}
		msg.Rcode = tc.rcode
		for _, line := range tc.answer {
			if strings.Contains(line, " CH ") {
				rr := records(t, strings.Replace(line, " CH ", " IN ", 1))[0]
				rr.Header().Class = dns.ClassCHAOS
				msg.Answer = append(msg.Answer, rr)
				continue
			}
			msg.Answer = append(msg.Answer, records(t, line)...)
		}
		msg.Ns = records(t, tc.ns...)
		got, err := parseResponse(msg, question{name: "x.example.", qtype: TypeA})
		if err != tc.err || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %v, %v\nwant %v, %v", tc.what, got, err, tc.want, tc.err)
		}
	}
}

func addrs(list ...string) Addrs {
	var all Addrs
	for _, text := range list {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestServers(t *testing.T) {
	for text, want := range map[string]*server{
		"127.0.0.1":        {addr: "127.0.0.1:53", local: true},
		"127.8.8.8:5353":   {addr: "127.8.8.8:5353", local: true},
		"::1":              {addr: "[::1]:53", local: true},
		"[::1]":            {addr: "[::1]:53", local: true},
		"[::1]:5353":       {addr: "[::1]:5353", local: true},
		"fe80::1%eth0":     {addr: "[fe80::1%eth0]:53"},
		"192.0.2.1":        {addr: "192.0.2.1:53"},
		"[2001:db8::1]:54": {addr: "[2001:db8::1]:54"},
		"localhost":        {addr: "localhost:53", local: true},
		"unbound:5353":     {addr: "unbound:5353"},
	} {
		s, err := parseServer(text)
		if err != nil || s.addr != want.addr || s.local != want.local {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}

func TestTrustTable(t *testing.T) {
	for _, tc := range []struct {
		addr string
		want [3]bool // loopback, all, none
	}{
		{"127.0.0.1", [3]bool{true, true, false}},
		{"127.0.0.53", [3]bool{true, true, false}},
		{"::1", [3]bool{true, true, false}},
		{"::ffff:127.0.0.1", [3]bool{true, true, false}},
		{"192.0.2.1", [3]bool{false, true, false}},
		{"10.0.0.1", [3]bool{false, true, false}},
		{"fe80::1", [3]bool{false, true, false}},
	} {
		for trust, want := range tc.want {
			if got := TrustAD(trust).trusts(netip.MustParseAddr(tc.addr)); got != want {
				t.Errorf("trust %d of %s: %v", trust, tc.addr, got)
			}
		}
	}
}

// An untrusted server behind a trusted one would have forged answers taken
// that the trusted one refused.
func TestTrustedServersAreNotBackedUpByOthers(t *testing.T) {
	for _, tc := range []struct {
		servers []string
		trust   TrustAD
		use     []string
	}{
		{[]string{"127.0.0.1", "192.0.2.1", "::1"}, TrustLoopback, []string{"127.0.0.1:53", "[::1]:53"}},
		{[]string{"192.0.2.1", "192.0.2.2"}, TrustLoopback, []string{"192.0.2.1:53", "192.0.2.2:53"}},
		{[]string{"127.0.0.1", "192.0.2.1"}, TrustAll, []string{"127.0.0.1:53", "192.0.2.1:53"}},
		{[]string{"127.0.0.1", "192.0.2.1"}, TrustNone, []string{"127.0.0.1:53", "192.0.2.1:53"}},
	} {
		all, err := parseServers(tc.servers)
		if err != nil {
			t.Fatal(err)
		}
		use, left := choose(all, tc.trust)
		var got []string
		for _, s := range use {
			got = append(got, s.addr)
		}
		if !slices.Equal(got, tc.use) || len(use)+len(left) != len(all) {
			t.Errorf("%v with trust %d: %v", tc.servers, tc.trust, got)
		}
	}
}

func TestFromResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string][]string{
		"search lab.example\nnameserver 192.0.2.1\noptions edns0\nnameserver ::1\n": {"192.0.2.1", "::1"},
		"# nobody\nsearch lab.example\n":                                            {"127.0.0.1"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := FromResolvConf(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := FromResolvConf(path + ".none"); err == nil {
		t.Error("a missing file is no error")
	}
}

// FuzzAnswer gives the bytes of a datagram to the reader of answers.
func FuzzAnswer(f *testing.F) {
	kept := map[Type]int{TypeMX: maxMXs, TypeA: maxAddrs, TypeAAAA: maxAddrs, TypeTLSA: maxTLSAs, TypeTXT: maxTexts, TypeCNAME: maxNames, TypePTR: maxNames}
	query := func(qtype Type) *dns.Msg {
		query := newQuery(question{name: "x.example.", qtype: qtype})
		query.Id = 0x1234
		return query
	}
	seed := func(qtype Type, change func(*dns.Msg)) {
		m := new(dns.Msg).SetReply(query(qtype))
		change(m)
		out, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out)
	}
	for qtype := range kept {
		seed(qtype, func(*dns.Msg) {})
	}
	seed(TypeMX, func(m *dns.Msg) {
		m.AuthenticatedData = true
		m.Answer = records(f, "x.example. 60 IN CNAME y.example.", "y.example. 60 IN MX 10 mx.example.", "y.example. 60 IN MX 0 .")
	})
	seed(TypeA, func(m *dns.Msg) { m.Answer = records(f, "x.example. 60 IN A 192.0.2.1") })
	seed(TypeAAAA, func(m *dns.Msg) { m.Answer = records(f, "x.example. 60 IN AAAA ::ffff:192.0.2.1") })
	seed(TypeTLSA, func(m *dns.Msg) { m.Answer = records(f, "x.example. 60 IN TLSA 3 1 1 00ff") })
	seed(TypeTXT, func(m *dns.Msg) { m.Answer = records(f, `x.example. 60 IN TXT "a\009\"" "\200"`) })
	seed(TypePTR, func(m *dns.Msg) { m.Answer = records(f, "x.example. 60 IN PTR mx.example.") })
	seed(TypeMX, func(m *dns.Msg) {
		m.Rcode = dns.RcodeNameError
		m.Ns = records(f, "example. 60 IN SOA ns. h. 1 1 1 1 1")
	})
	seed(TypeMX, func(m *dns.Msg) { m.Truncated = true })
	seed(TypeMX, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure; m.SetEdns0(1232, true) })
	seed(TypeMX, func(m *dns.Msg) { m.Answer = records(f, `x.example. 60 IN CNAME a\.\000\255.example.`) })
	f.Add([]byte{0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		for qtype, most := range kept {
			answerIsSound(t, in, query(qtype), question{name: "x.example.", qtype: qtype}, most)
		}
	})
}

// answerIsSound reads a datagram as the answer to a question.
func answerIsSound(t *testing.T, in []byte, query *dns.Msg, q question, most int) {
	msg, err := decode(in, query)
	if err != nil {
		if msg != nil {
			t.Error("a message with an error")
		}
		return
	}
	if msg.Id != query.Id || !msg.Response || msg.Truncated {
		t.Errorf("not an answer: %v", msg.MsgHdr.String())
	}
	if msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		if err := extendedError(msg); err != nil && !isPrintable(err.Error()) {
			t.Errorf("reason %q", err)
		}
		return
	}
	p, err := parseResponse(msg, q)
	if err != nil {
		return
	}
	if (p.existence == Exists) != (p.records != nil && p.records.Len() > 0) || p.omitted < 0 || p.aliases > maxAliases || p.ttl < 0 || p.ttl > maxTTL {
		t.Errorf("impossible: %+v", p)
	}
	if !isPrintable(p.canonical) || p.aliases == 0 && p.canonical != "x.example." {
		t.Errorf("canonical name %q", p.canonical)
	}
	if p.records == nil {
		return
	}
	a := Answer{Records: p.records}
	lists := map[Type]int{
		TypeMX: len(a.MXs()), TypeA: len(a.Addrs()), TypeAAAA: len(a.Addrs()), TypeTLSA: len(a.TLSAs()), TypeTXT: len(a.Texts()),
		TypeCNAME: len(a.Names()), TypePTR: len(a.Names()),
	}
	if n := p.records.Len(); n > most || lists[q.qtype] != n {
		t.Errorf("%d records of %v, or of another type: %v", n, q.qtype, p.records)
	}
	for _, text := range p.records.Strings() {
		if !isPrintable(text) {
			t.Errorf("not printable: %q", text)
		}
	}
}

func isPrintable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
