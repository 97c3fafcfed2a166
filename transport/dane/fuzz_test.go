package dane_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// FuzzRecord judges any record.
func FuzzRecord(f *testing.F) {
	a := newCA(f)
	p := a.leaf(party{}, a.ec())
	for _, s := range []dane.Selector{dane.Cert, dane.SPKI} {
		for _, m := range []dane.Matching{dane.Full, dane.SHA256, dane.SHA512} {
			f.Add(uint8(dane.DANEEE), uint8(s), uint8(m), rec(dane.DANEEE, s, m, p).Data)
		}
	}
	f.Add(uint8(1), uint8(1), uint8(1), []byte{})
	f.Fuzz(func(t *testing.T, u, s, m uint8, data []byte) {
		r := dane.Record{Usage: dane.Usage(u), Selector: dane.Selector(s), Matching: dane.Matching(m), Data: data}
		set := dane.NewSet([]dane.Record{r})
		ok := set.Usable()
		if ok && (u != 2 && u != 3 || s > 1 || m > 2 || m == 1 && len(data) != 32 || m == 2 && len(data) != 64 || len(data) == 0) {
			t.Fatalf("usable: %v", r)
		}
		if text := r.String(); len(text) > 38 {
			t.Fatalf("text has %d bytes: %q", len(text), text)
		}
		if (set.Fingerprint() != "") != ok || len(set.Records())+len(set.Unusable()) != 1 || !ok && set.Unusable()[0].Reason == dane.ReasonNone {
			t.Fatalf("set of %v: usable %v, put aside %v", r, ok, set.Unusable())
		}
	})
}

// encode writes records in the form that FuzzVerify reads.
func encode(records ...dane.Record) []byte {
	var b []byte
	for _, r := range records {
		b = append(b, byte(r.Usage), byte(r.Selector), byte(r.Matching))
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Data)))
		b = append(b, r.Data...)
	}
	return b
}

func decode(b []byte) []dane.Record {
	var records []dane.Record
	for len(b) >= 5 {
		r := dane.Record{Usage: dane.Usage(b[0]), Selector: dane.Selector(b[1]), Matching: dane.Matching(b[2])}
		n := min(int(binary.BigEndian.Uint16(b[3:])), len(b)-5)
		r.Data, b = b[5:5+n], b[5+n:]
		records = append(records, r)
	}
	return records
}

// FuzzVerify verifies any chain by any records. As no one guesses a digest,
// the last certificate of the chain can be made an anchor, so that the paths
// are walked as well.
func FuzzVerify(f *testing.F) {
	a := newCA(f)
	root := a.root(a.ec(), "root", never("other.test"))
	inter := a.issued(root, a.ec(), "inter", pathLen(0))
	leaf, byCN := a.leaf(inter, a.ec()), a.leaf(inter, a.ec(), cn(host), dnsID())
	for _, server := range []servers{{leaf, inter, root}, {byCN, root, inter}, {leaf}} {
		var der []byte
		for _, p := range server {
			der = append(der, p.cert.Raw...)
		}
		f.Add(der, encode(rec(dane.DANEEE, dane.SPKI, dane.SHA256, leaf)), host, false)
		f.Add(der, encode(rec(dane.DANETA, dane.SPKI, dane.Full, inter)), host, false)
		f.Add(der, []byte{}, "*.example.test", true)
	}
	f.Fuzz(func(t *testing.T, der, encoded []byte, name string, anchored bool) {
		certs, err := x509.ParseCertificates(der)
		if err != nil {
			return
		}
		given := decode(encoded)
		if anchored && len(certs) > 0 {
			given = append(given, rec(dane.DANETA, dane.Cert, dane.SHA256, party{cert: certs[len(certs)-1]}))
		}
		set := dane.NewSet(given)
		m, err := set.Verify(certs, []string{name}, a.now)
		if err != nil {
			var structured *dane.Error
			if !errors.As(err, &structured) {
				t.Fatalf("not an *Error: %v", err)
			}
			checkText(t, err)
			return
		}
		own := rec(m.Record.Usage, m.Record.Selector, m.Record.Matching, party{cert: certs[0]})
		switch m.Record.Usage {
		case dane.DANEEE:
			if !bytes.Equal(own.Data, m.Record.Data) || m.Depth != 0 || m.Name != "" {
				t.Fatalf("DANE-EE by %v at depth %d, the server has %v", m.Record, m.Depth, own)
			}
		case dane.DANETA:
			if m.Name == "" || a.now.After(certs[0].NotAfter) || a.now.Before(certs[0].NotBefore) {
				t.Fatalf("DANE-TA for name %q, certificate valid to %v", m.Name, certs[0].NotAfter)
			}
		default:
			t.Fatalf("authenticated by %v", m.Record)
		}
	})
}
