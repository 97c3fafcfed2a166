package labdns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Fault is a way to meet a query.
type Fault uint8

// The faults.
const (
	Normal   Fault = iota // as a good resolver does
	ServFail              // SERVFAIL
	// SERVFAIL with the extended error "DNSSEC Bogus" (RFC 8914 §4.7)
	Bogus
	Refused     // REFUSED
	NotImp      // NOTIMP
	FormErr     // FORMERR
	BareRefused // REFUSED in a message that is only a header
	Silent      // no answer; over TCP the connection is closed
	// over UDP an empty answer with TC; over TCP the whole
	Truncate
	// over UDP an empty answer with TC; over TCP the connection is closed
	TruncateMute
	// over UDP an answer with TC that ends within a record; over TCP the whole
	CutRecord
	WrongID       // another query's id
	WrongQuestion // another name in the question
	NoQuestion    // a good answer with the question left out
	NotResponse   // the QR flag is not set
	// the right header and question, then bytes that are no records
	Garbage
	// the header promises records, the message ends before them
	LyingCount
	NoFollow // the first CNAME record alone
	// no records and the name servers of the root, as a server says that does
	// not recurse
	Referral
	// negative answers without an SOA record (RFC 2308 §2.1 type 4, §2.2 type
	// 3)
	NoSOA
	NoEDNS // FORMERR to a query with EDNS
	// NOTIMP to a query with EDNS, and AD in every answer to one without
	NoEDNSLying
)

// respond makes the bytes of an answer, nil for none.
func (s *Server) respond(query *dns.Msg, fault Fault, overTCP bool) []byte {
	found := s.zones.ask(query.Question[0], fault != NoFollow)
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	reply.Compress = true
	reply.Rcode, reply.Answer, reply.Ns = found.rcode, found.answer, found.authority
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		reply.SetEdns0(1232, opt.Do())
		reply.AuthenticatedData = found.secure && (query.AuthenticatedData || opt.Do())
	} else {
		reply.AuthenticatedData = found.secure && query.AuthenticatedData
	}

	switch fault {
	case ServFail:
		fail(reply, dns.RcodeServerFailure)
	case Bogus:
		fail(reply, dns.RcodeServerFailure)
		if opt := reply.IsEdns0(); opt != nil {
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus})
		}
	case Refused, BareRefused:
		fail(reply, dns.RcodeRefused)
	case NotImp:
		fail(reply, dns.RcodeNotImplemented)
	case FormErr:
		fail(reply, dns.RcodeFormatError)
	case NoEDNS:
		if query.IsEdns0() != nil {
			fail(reply, dns.RcodeFormatError)
		}
	case NoEDNSLying:
		reply.AuthenticatedData = true
		if query.IsEdns0() != nil {
			fail(reply, dns.RcodeNotImplemented)
		}
	case Silent:
		return nil
	case Truncate, TruncateMute:
		if overTCP && fault == TruncateMute {
			return nil
		}
		if !overTCP {
			reply.Truncated, reply.Answer, reply.Ns = true, nil, nil
		}
	case WrongID:
		reply.Id ^= 0x5555
	case WrongQuestion:
		reply.Question[0].Name = "wrong." + reply.Question[0].Name
	case NoQuestion:
		reply.Question = nil
	case NotResponse:
		reply.Response = false
	case Referral:
		reply.Rcode, reply.Answer = dns.RcodeSuccess, nil
		reply.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 300}, Ns: "ns.lab."}}
	case NoSOA:
		reply.Ns = nil
	}
	if !overTCP {
		reply.Truncate(size)
	}
	out, err := reply.Pack()
	if err != nil {
		return nil
	}
	return spoil(out, reply, fault, overTCP)
}

func fail(reply *dns.Msg, rcode int) {
	reply.Rcode, reply.Answer, reply.Ns, reply.AuthenticatedData = rcode, nil, nil, false
}

// spoil does what no library would.
func spoil(out []byte, reply *dns.Msg, fault Fault, overTCP bool) []byte {
	const header = 12
	switch fault {
	case BareRefused:
		out = out[:header]
		clear(out[4:header])
	case CutRecord:
		if !overTCP {
			out = out[:len(out)-len(out)/4]
			out[2] |= 0x02 // TC
		}
	case Garbage, LyingCount:
		bare := dns.Msg{MsgHdr: reply.MsgHdr, Question: reply.Question}
		var err error
		if out, err = bare.Pack(); err != nil {
			return nil
		}
		binary.BigEndian.PutUint16(out[6:], 3) // three answers
		if fault == Garbage {
			out = append(out, 0xc0, 0xff, 0xc0, 0xff, 0xff, 0xff, 0xff)
		}
	}
	return out
}
