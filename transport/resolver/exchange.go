package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the largest answer we take by UDP: it fits unfragmented through
// every path.
const udpSize = 1232

// maxStrays is how many datagrams that answer another question are ignored
// before the server is given up.
const maxStrays = 100

// Why an exchange brings no answer.
var (
	errTruncated = errors.New("the answer is truncated")
	errStray     = errors.New("the answer is to another question")
	errMalformed = errors.New("the answer is malformed")
)

type network string

const (
	udp network = "udp"
	tcp network = "tcp"
)

// received is a message, and where it came from.
type received struct {
	msg  *dns.Msg
	from netip.Addr
}

// newQuery makes the message for a question. AD asks for the AD flag in the
// answer (RFC 6840 §5.7), as DO does.
func newQuery(q question) *dns.Msg {
	query := plainQuery(q)
	query.AuthenticatedData = true
	query.SetEdns0(udpSize, true)
	return query
}

// plainQuery makes the message without EDNS, for servers of before 1999.
func plainQuery(q question) *dns.Msg { return new(dns.Msg).SetQuestion(q.name, uint16(q.qtype)) }

// exchange sends a query over a fresh socket, whose port the kernel picks at
// random, and waits for the answer to it.
func exchange(ctx context.Context, via network, server string, query *dns.Msg, timeout time.Duration) (received, error) {
	out, err := query.Pack()
	if err != nil {
		return received{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, string(via), server)
	if err != nil {
		return received{}, err
	}
	defer conn.Close()
	// The deadline of ctx, and its end before that.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	got := received{from: remote(conn)}
	if via == tcp {
		got.msg, err = exchangeTCP(conn, out, query)
	} else {
		got.msg, err = exchangeUDP(conn, out, query)
	}
	return got, err
}

func remote(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// exchangeUDP ignores what does not answer the question, as anyone can send a
// datagram: the server's own answer may still come (RFC 5452 §9.1).
func exchangeUDP(conn net.Conn, out []byte, query *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	in := make([]byte, 4096)
	for strays := 0; ; {
		n, err := conn.Read(in)
		if err != nil {
			if strays > 0 {
				return nil, fmt.Errorf("%w (%d datagrams)", errStray, strays)
			}
			return nil, err
		}
		msg, err := decode(in[:n], query)
		if !errors.Is(err, errStray) {
			return msg, err
		}
		if strays++; strays >= maxStrays {
			return nil, fmt.Errorf("%w (%d datagrams)", errStray, strays)
		}
	}
}

func exchangeTCP(conn net.Conn, out []byte, query *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	in := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, in); err != nil {
		return nil, err
	}
	msg, err := decode(in, query)
	if errors.Is(err, errTruncated) {
		return nil, errMalformed // there is no larger transport to go to
	}
	return msg, err
}

// decode reads a message as the answer to a query. errStray means that it
// answers something else, errTruncated that the whole must be asked for by TCP.
func decode(in []byte, query *dns.Msg) (*dns.Msg, error) {
	const header = 12
	if len(in) < header {
		return nil, errStray
	}
	msg := new(dns.Msg)
	err := msg.Unpack(in)
	if msg.Id != query.Id || !msg.Response || msg.Opcode != dns.OpcodeQuery {
		return nil, errStray
	}
	// Servers may leave the question out of a failure, but not out of an
	// answer.
	failure := msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError
	if len(msg.Question) == 0 && binary.BigEndian.Uint16(in[4:]) == 0 {
		if !failure && !msg.Truncated {
			return nil, errStray
		}
	} else if !sameQuestion(msg.Question, query.Question[0]) {
		return nil, errStray
	}
	if msg.Truncated {
		return nil, errTruncated // wherever it was cut
	}
	if err != nil {
		return nil, errMalformed
	}
	// The library takes a message that ends early for one with fewer
	// records; it would pass for "no such record".
	for i, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		if int(binary.BigEndian.Uint16(in[6+2*i:])) != len(section) {
			return nil, errMalformed
		}
	}
	return msg, nil
}

func sameQuestion(got []dns.Question, want dns.Question) bool {
	return len(got) == 1 && got[0].Qtype == want.Qtype && got[0].Qclass == want.Qclass &&
		dns.CanonicalName(got[0].Name) == want.Name
}
