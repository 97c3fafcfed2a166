// Package socketmap is the front end for those who keep Postfix's own smtp(8):
// it tells Postfix, as a table for smtp_tls_policy_maps (socketmap_table(5)),
// how secure a connection for a domain must be.
//
// # What is asked and answered
//
// A request names a map and a key. The maps are "policy" and, for Postfix 3.10
// and later, "policy-tlsrpt", whose answers carry what TLS reports need as
// well; both speak for the transport default, and "policy@NAME" for another.
// The names that postfix-tlspol and postfix-mta-sts-resolver have in main.cf,
// "QUERY", "QUERYwithTLSRPT" and "postfix", mean the same two maps.
// The key is a domain, or domain:port for one whose hosts are dialled there;
// anything else that Postfix asks for ("[host]", "[host]:port", ".parent", an
// address) has no policy: NOTFOUND.
// For a domain the answer is
//
//	dane-only, dane       what TLSA records ask for
//	secure match=A:B …    what MTA-STS asks for: a certificate for A or B
//	encrypt               what local_policy asks for
//	fingerprint match=…   a key that an override pins
//	may                   what an override with an mx_auth of its own allows
//	NOTFOUND              nothing is asked for: Postfix's default level
//	TEMP and a reason     no host may have the mail now; Postfix keeps it,
//	                      and the reason is in its log
//
// # Why it is that answer
//
// The facts and the verdicts are those of a delivery ([plan.Plan]). But
// a verdict is about one host, and Postfix takes one answer for a domain, finds
// the hosts by itself, a little later, and decides for each what the answer
// means there. So an answer is given only if for every host that Postfix may
// then use it asks for no less than the verdict for that host. Hosts that
// Postfix may use are those of the MX set, those of which we know too little
// because their DNS fails, and, when the MX set is not signed, any that a
// forger brings in. Of the answers that are good in this sense the first is
// given:
//
//  1. dane-only, if the MX set is signed and all hosts have usable TLSA
//     records.
//  2. dane, if some hosts have TLSA records, or may have them, and at a host
//     without any the verdict would be opportunistic TLS. That is just what
//     "dane" does there; Postfix looks the records up afresh and skips a
//     host where that fails. So one host's bad DNS spoils only that host.
//  3. dane-only, if the MX set is signed and some hosts have usable TLSA
//     records but others must show more than nothing, as under an MTA-STS
//     policy. Postfix cannot say "DANE where there is DANE, else MTA-STS"; it
//     skips the hosts without TLSA records, and DANE outranks MTA-STS.
//  4. NOTFOUND or may, if nothing is asked of any host.
//  5. encrypt, if nothing more than TLS is asked of any host.
//  6. secure, with the names of those hosts that may have the mail upon a
//     WebPKI proof of their name. This is always good: Postfix goes by the
//     certificate and not by the address. Who proves to be A is A, wherever a
//     forger or the host's bad DNS made Postfix find it, and A may have the
//     mail. Hosts whose TLSA records could not be looked up, or that the
//     policy does not list, are not among the names. The names are those of
//     hosts, never patterns: "match=.example.org" would take the certificate
//     of any host below example.org. A host that is new in the MX set is not
//     among them until the set is looked up again; until then others take the
//     mail, or it waits.
//  7. TEMP, with the reason.
//
// In one case the answer differs from the verdict in kind: where the MX set is
// not signed, hosts have usable TLSA records, and more than opportunistic TLS
// is asked of a forger's host (MTA-STS enforce, local_policy). A verdict asks
// for the TLSA match. Here "dane" would send mail in the clear to a forger's
// host, and "dane-only" to none. An unsigned MX set gives TLSA records no say
// over the domain; it is our choice to use them (RFC 7672 §2.2.1). The answer
// is 6, which reaches the same levels: the host is one that the policy vouches
// for, and it is authenticated.
//
// All this holds for a Postfix that looks up DNSSEC (smtp_dns_support_level =
// dnssec), uses DANE also where the MX set is not signed, which before 3.10
// means smtp_tls_security_level = dane, takes no TLS below 1.2 where TLS is
// asked for (smtp_tls_mandatory_protocols), and knows the CAs
// (smtp_tls_CAfile). contrib/postfix has the lines.
//
// A pinned key is "fingerprint", where nothing beyond TLS is asked of any host
// besides. On top of DANE or MTA-STS Postfix cannot be told a pin: TEMP. It
// holds a fingerprint against the server's own key alone, so that a pinned CA
// lets no mail pass.
//
// Where the DNS does not say whether a domain has an MTA-STS policy (the TXT
// look-up fails), NOTFOUND would be a guess that anyone who makes look-ups fail
// can bring about. The answer is TEMP then, unless it is dane-only, than which
// no policy asks for more. A policy that is there and cannot be fetched is
// another matter: mail goes on without (RFC 8461 §3.3).
//
// An override's next hop is not Postfix's and is left out of account; its
// mx_auth holds. A domain that provably has no mail servers is NOTFOUND, as
// Postfix will see for itself.
//
// # Reports
//
// "policy-tlsrpt" adds the domain's policy to "secure". To what is not
// enforced, because the policy is in testing mode or could not be had
// (policy_failure), it adds it as well, after "may" where "policy" has
// NOTFOUND: that lets the mail pass and has the failure reported. A level in
// main.cf beyond that must be asked for by local_policy.
//
// # The protocol
//
// Requests and replies are netstrings. A connection may bring any number of
// requests, also before the replies to earlier ones; they are answered in their
// order, one after the other, and those of a client that has gone are not.
// Bounds: 2,000 bytes a request, a minute for it to
// come, a minute for its answer, nine seconds for Postfix to read that. What is
// no netstring, or too long, is told so and the connection closed.
package socketmap

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
	"github.com/mxpipe/mxpipe/transport/plan"
)

// lookupTime bounds one look-up; Postfix waits 100 s.
const lookupTime = time.Minute

// PlanSource is a transport.
type PlanSource interface {
	// Text gives what w makes of the plan for mail to a domain whose hosts are
	// dialled at a port; 0 is the transport's.
	Text(ctx context.Context, domain string, port uint16, w *plan.Writer) (string, error)
}

// Transport is a transport that is held for one look-up.
type Transport struct {
	PlanSource
	Release func() // called once, when the look-up is over
}

// Config is what a Server works with. All of it must be set, but for Counts.
type Config struct {
	// Transport finds a transport by its name; ok is false when there is none.
	Transport func(name string) (t Transport, ok bool)
	// Default names the transport of maps without "@NAME".
	Default string
	// Counts counts the look-ups; nil: they are not counted.
	Counts *Counts
	Logger *slog.Logger
}

// Server answers Postfix. It is safe for concurrent use.
type Server struct {
	Config
	*accept.Loops
}

// New makes a server with accept loops of its own.
func New(cfg Config, loops *accept.Loops) *Server { return &Server{cfg, loops} }

// Serve accepts connections until ctx ends, closes l and returns nil; an error
// means that l cannot be served any more. At the end of ctx a request that has
// come is still answered, and its connection then closed: see Wait. Look-ups
// under way are cancelled when deliveries, a context of its own, ends.
func (s *Server) Serve(ctx, deliveries context.Context, l net.Listener) error {
	return s.Loops.Serve(ctx, l, func(conn net.Conn) { s.serve(ctx, deliveries, conn) })
}

// serve answers the requests of one connection.
func (s *Server) serve(taking, lookups context.Context, conn net.Conn) {
	c := &client{Conn: conn}
	defer context.AfterFunc(taking, c.end)()
	in, out := netstring.NewReader(c, maxRequest), bufio.NewWriterSize(c, 4096)
	var buf []byte
	limited, flush := newTimeout(lookups, lookupTime), out.Flush
	for {
		if !in.Buffered() && out.Flush() != nil {
			return
		}
		c.await()
		text, err := in.Next()
		if err != nil {
			s.closeWith(out, c, err)
			return
		}
		// The replies that are there already do not wait for one that takes
		// time, and a client that has gone is noticed then.
		if !limited.again() {
			limited = newTimeout(lookups, lookupTime)
		}
		limited.waits = flush
		reply := s.answer(limited, string(text))
		limited.stop()
		if s.Counts != nil {
			s.Counts.add(reply)
		}
		buf = netstring.Append(buf[:0], reply)
		if _, err := out.Write(buf); err != nil {
			return
		}
	}
}

// closeWith says goodbye, with a reason to who broke the protocol.
func (s *Server) closeWith(out *bufio.Writer, c *client, err error) {
	var reason string
	switch {
	case errors.Is(err, netstring.ErrMalformed):
		reason = "this is a socketmap server: requests are netstrings (socketmap_table(5))"
	case errors.Is(err, netstring.ErrTooLong):
		reason = "the request is too long for a map and a domain"
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
	default:
		s.Logger.Debug("socketmap: connection lost", "error", err)
	}
	if reason != "" {
		s.Logger.Info("socketmap: request refused", "reason", reason, "client", c.RemoteAddr().String())
		out.Write(netstring.Append(nil, temporary(reason)))
	}
	out.Flush()
}

// answer gives the reply to a request.
func (s *Server) answer(ctx context.Context, text string) string {
	r, ok := parse(text, s.Default)
	if !ok {
		return temporary(noSuchMap)
	}
	if r.domain == "" {
		return notFound
	}
	t, ok := s.Transport(r.transport)
	if !ok {
		return temporary("there is no transport " + r.transport)
	}
	defer t.Release()
	reply, err := t.Text(ctx, r.domain, r.port, writerOf(r.reports))
	if err != nil {
		return temporary("4.4.3 " + r.domain + ": " + err.Error())
	}
	if s.Logger.Enabled(ctx, slog.LevelDebug) {
		s.Logger.Debug("socketmap", "domain", r.domain, "transport", r.transport, "reply", reply)
	}
	return reply
}

// writerOf gives what makes the replies of a map.
func writerOf(reports bool) *plan.Writer {
	if reports {
		return reportWriter
	}
	return policyWriter
}

var (
	policyWriter = &plan.Writer{Write: func(p *plan.Plan) string { return Reply(p, false) }}
	reportWriter = &plan.Writer{Write: func(p *plan.Plan) string { return Reply(p, true) }}
)
