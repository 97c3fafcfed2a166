package resolver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// overWire has records go through a message, as they do when a server sends
// them, and reads them.
func overWire(t testing.TB, qtype Type, rrs ...dns.RR) response {
	t.Helper()
	q := question{name: "x.example.", qtype: qtype}
	query := newQuery(q)
	msg := new(dns.Msg).SetReply(query)
	msg.Answer = rrs
	wire, err := msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if msg, err = decode(wire, query); err != nil {
		t.Fatal(err)
	}
	p, err := parseResponse(msg, q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each kind of record becomes a value, and text for people.
func TestRecords(t *testing.T) {
	for _, tc := range []struct {
		qtype Type
		lines []string
		want  Records
		text  []string
	}{
		{TypeA, []string{"A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.1"}, addrs("192.0.2.1", "192.0.2.2"), []string{"192.0.2.1", "192.0.2.2"}},
		{TypeAAAA, []string{"AAAA 2001:db8::1", "AAAA ::ffff:192.0.2.1"}, addrs("2001:db8::1", "192.0.2.1"), []string{"2001:db8::1", "192.0.2.1"}},
		{TypeMX, []string{"MX 20 b.example.", "MX 10 A.example.", "MX 10 ."}, MXs{{10, "A.example."}, {10, "."}, {20, "b.example."}}, []string{"10 A.example.", "10 .", "20 b.example."}},
		{TypeTLSA, []string{"TLSA 1 1 1 00FF", "TLSA 3 1 1 AB"}, TLSAs{{3, 1, 1, []byte{0xab}}, {1, 1, 1, []byte{0, 0xff}}}, []string{"3 1 1 ab", "1 1 1 00ff"}},
		{TypeTXT, []string{`TXT "v=STSv1; " "id=1;"`, `TXT "a\009\"\\\200\\009"`}, Texts{"v=STSv1; id=1;", "a\t\"\\\xc8\\009"}, []string{`"v=STSv1; id=1;"`, `"a\009\"\\\200\\009"`}},
		{TypeCNAME, []string{"CNAME Y.Example."}, Names{"y.example."}, []string{"y.example."}},
		{TypePTR, []string{"PTR Mx.Example."}, Names{"mx.example."}, []string{"mx.example."}},
	} {
		var rrs []dns.RR
		for _, line := range tc.lines {
			rrs = append(rrs, records(t, "x.example. 60 IN "+line)...)
		}
		p := overWire(t, tc.qtype, rrs...)
		if !reflect.DeepEqual(p.records, tc.want) || p.omitted != 0 {
			t.Errorf("%v: %#v, %d omitted; want %#v", tc.qtype, p.records, p.omitted, tc.want)
		} else if got := p.records.Strings(); !reflect.DeepEqual(got, tc.text) {
			t.Errorf("%v: text %q, want %q", tc.qtype, got, tc.text)
		}
		a := Answer{Records: p.records}
		if n := len(a.Addrs()) + len(a.MXs()) + len(a.TLSAs()) + len(a.Texts()) + len(a.Names()); n != p.records.Len() {
			t.Errorf("%v: %d records in all lists together", tc.qtype, n)
		}
	}
}

// No more of an answer is kept than a delivery can use, and the best of it,
// whatever the order in which it came.
func TestRecordsAreBounded(t *testing.T) {
	hdr := func(qtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: "x.example.", Rrtype: qtype, Class: dns.ClassINET, Ttl: 60}
	}
	make1000 := func(one func(i int) dns.RR) (rrs []dns.RR) {
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(1000) {
			rrs = append(rrs, one(i))
		}
		return rrs
	}
	for _, tc := range []struct {
		qtype      Type
		rrs        []dns.RR
		kept, left int
	}{
		{TypeA, make1000(func(i int) dns.RR { return &dns.A{Hdr: hdr(dns.TypeA), A: []byte{10, 0, byte(i >> 8), byte(i)}} }), 50, 950},
		{TypeMX, make1000(func(i int) dns.RR {
			return &dns.MX{Hdr: hdr(dns.TypeMX), Preference: uint16(i), Mx: fmt.Sprintf("mx%d.example.", i)}
		}), 100, 900},
		{TypeTLSA, make1000(func(i int) dns.RR {
			return &dns.TLSA{Hdr: hdr(dns.TypeTLSA), Usage: uint8(i % 4), Selector: 1, MatchingType: 1, Certificate: fmt.Sprintf("%04x", i)}
		}), 64, 936},
		{TypeTXT, make1000(func(i int) dns.RR { return &dns.TXT{Hdr: hdr(dns.TypeTXT), Txt: []string{fmt.Sprint(i)}} }), 100, 900},
		{TypePTR, make1000(func(i int) dns.RR { return &dns.PTR{Hdr: hdr(dns.TypePTR), Ptr: fmt.Sprintf("mx%d.example.", i)} }), 100, 900},
	} {
		p := overWire(t, tc.qtype, tc.rrs...)
		if p.records.Len() != tc.kept || p.omitted != tc.left {
			t.Errorf("%v: %d kept, %d omitted", tc.qtype, p.records.Len(), p.omitted)
		}
		switch list := p.records.(type) {
		case MXs:
			for i, mx := range list {
				if mx.Preference != uint16(i) {
					t.Fatalf("record %d has preference %d", i, mx.Preference)
				}
			}
		case TLSAs:
			for _, r := range list {
				if r.Usage < 2 {
					t.Fatalf("usage %d is kept in place of one that can be used", r.Usage)
				}
			}
		}
	}
}

// FuzzRawText holds our reading of the library's presentation form against the
// bytes on the wire.
func FuzzRawText(f *testing.F) {
	for _, seed := range []string{"", "v=STSv1;\tid=1", `\009`, `"\`, "\x00\xff\\1", strings.Repeat("é", 400)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 2000 {
			return
		}
		// The record as RFC 1035 §3.3.14 has it: strings of up to 255 bytes.
		var rdata []byte
		for rest := raw; ; {
			n := min(len(rest), 255)
			rdata = append(append(rdata, byte(n)), rest[:n]...)
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		header := dns.RR_Header{Name: "x.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Rdlength: uint16(len(rdata))}
		rr, _, err := dns.UnpackRRWithHeader(header, rdata, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := rawText(rr.(*dns.TXT).Txt); !bytes.Equal([]byte(got), raw) {
			t.Errorf("%q is read as %q", raw, got)
		}
		if text := quoteText(string(raw)); !isPrintable(text) {
			t.Errorf("%q is not printable", text)
		}
	})
}

func TestReverseName(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "1.2.0.192.in-addr.arpa.", "::ffff:192.0.2.1": "1.2.0.192.in-addr.arpa.",
		"fe80::1%eth0": "1" + strings.Repeat(".0", 28) + ".8.e.f.ip6.arpa.",
	} {
		if got := ReverseName(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

// A record whose data cannot be read does not go missing: a set without records
// would allow plaintext (RFC 7672 §2.2).
func TestBrokenTLSAStays(t *testing.T) {
	list, _ := readRecords([]dns.RR{&dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Certificate: "zz"}})
	if want := (TLSAs{{3, 1, 1, nil}}); !reflect.DeepEqual(list, want) {
		t.Errorf("%#v", list)
	}
}
