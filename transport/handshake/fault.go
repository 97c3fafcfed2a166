package handshake

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Kind sorts what can go wrong in a handshake.
type Kind uint8

// The kinds.
const (
	// our own end, the context's or a configuration that allows nothing; says
	// nothing about the server
	Ours    Kind = iota
	Ended        // the server ended the connection
	Silent       // no answer in time
	NotTLS       // what came is no TLS
	Alert        // the server refused, by an alert
	Version      // the server chose a version that was not offered
	// the server chose something else that was not offered
	Choice
	Certificate // the server's certificate cannot be read or used
	// a signature or a checksum of the server's is wrong
	Proof
	Protocol // the server broke the protocol in another way
)

// Fault is what went wrong in a handshake.
type Fault struct {
	Kind Kind
	// Alert is the alert's number (RFC 8446 §6); for Alert.
	Alert tls.AlertError
	// Version is the version that the server chose, 0 when it is not told; for
	// Version.
	Version uint16
	// Reset: the connection was reset, not closed; for Ended.
	Reset bool
	// Raw is the error as crypto/tls and the kernel put it, without addresses.
	Raw string
}

// PlainerHelps reports whether a plainer hello may fare better, as long as the
// server's certificate was not judged in this handshake.
func (f Fault) PlainerHelps() bool { return f.Kind != Ours }

// FaultOf sorts the error of a handshake.
func FaultOf(err error) Fault {
	f := Fault{Raw: raw(err)}
	var remote *net.OpError
	var header tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &remote) && remote.Op == "remote error":
		f.Kind, f.Alert = Alert, alertOf(remote.Err)
		if f.Alert == closeNotify {
			f.Kind = Ended
		}
	case errors.As(err, &header):
		f.Kind = NotTLS
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		f.Kind = Silent
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		f.Kind, f.Reset = Ended, true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		f.Kind = Ended
	default:
		f.Kind, f.Version = refusal(f.Raw)
	}
	return f
}

// closeNotify is what ends a connection in good order.
const closeNotify tls.AlertError = 0

// alertOf finds the number of an alert that crypto/tls shows as a text alone.
func alertOf(err error) tls.AlertError {
	for n := range 256 {
		if a := tls.AlertError(n); a.Error() == err.Error() {
			return a
		}
	}
	return 255
}

// raw is the text of an error without the addresses that package net puts in.
func raw(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "remote error" {
		return op.Err.Error()
	}
	return err.Error()
}

// refusals are the texts of crypto/tls when it is we who refuse. They are its
// own and no promise: a text that is not here is a breach of the protocol.
var refusals = []struct {
	text string // begins it, after "tls: "
	kind Kind
}{
	{"no supported versions satisfy", Ours},
	{"no supported elliptic curves", Ours},
	{"CurvePreferences includes unsupported", Ours},
	{"either ServerName or InsecureSkipVerify", Ours},
	{"internal error", Ours},
	{"short read from Rand", Ours},
	{"client certificate private key", Ours},
	{"failed to sign handshake", Ours},
	{"server selected unsupported protocol version", Version},
	{"downgrade attempt detected", Version},
	{"server selected TLS 1.3 using the legacy version field", Version},
	{"server selected an invalid version after a HelloRetryRequest", Version},
	{"server sent an incorrect legacy version", Version},
	{"server chose an unconfigured cipher suite", Choice},
	{"server changed cipher suite after a HelloRetryRequest", Choice},
	{"server selected unsupported", Choice}, // group, curve, compression format
	{"server selected unoffered curve", Choice},
	{"server offered only incompatible point formats", Choice},
	{"server selected an invalid PSK", Choice},
	{"server resumed a session with a different", Choice},
	{"server selected unadvertised ALPN protocol", Choice},
	{"server advertised unrequested ALPN extension", Choice},
	{"certificate used with invalid signature algorithm", Choice},
	{"unsupported public key", Certificate},
	{"Ed25519 public keys are not supported before TLS 1.2", Certificate},
	{"failed to parse certificate from server", Certificate},
	{"server sent certificate containing RSA key larger than", Certificate},
	{"server's certificate contains an unsupported type of public key", Certificate},
	{"server certificate contains incorrect key type for selected ciphersuite", Certificate},
	{"received empty certificates message", Certificate},
	{"server's identity changed during renegotiation", Certificate},
	{"invalid signature by the server certificate", Proof},
	{"server's Finished message was incorrect", Proof},
	{"invalid server finished hash", Proof},
}

// refusal sorts the texts in which crypto/tls says that it is we who refuse.
func refusal(text string) (Kind, uint16) {
	text = strings.TrimPrefix(text, "tls: ")
	for _, r := range refusals {
		if strings.HasPrefix(text, r.text) {
			hex, ok := strings.CutPrefix(text, "server selected unsupported protocol version ")
			if !ok {
				return r.kind, 0
			}
			version, _ := strconv.ParseUint(hex, 16, 16)
			return r.kind, uint16(version)
		}
	}
	return Protocol, 0
}

// Offer is what the words about a failed handshake need to know beside it.
type Offer struct {
	Hello
	Name       string // the host's, as in the SNI
	ClientCert bool   // a client certificate is configured
	CertWanted bool   // the server asked for one, and none is
	// who requires TLS, for people: "MTA-STS", "DANE"; empty: TLS is
	// opportunistic
	Rule string
}

// needs says what the destination asks for, when that is the trouble.
func (o Offer) needs() string {
	if o.Rule == "" {
		return "tls_client offers " + o.Versions()
	}
	if o.Min > tls.VersionTLS12 {
		return "this destination needs TLS (" + o.Rule + "), and tls_client offers " + o.Versions()
	}
	return "this destination needs TLS 1.2 (" + o.Rule + ")"
}

// Sentence says in one sentence what went wrong, without the words of
// libraries.
func (f Fault) Sentence(o Offer) string {
	switch f.Kind {
	case Ours:
		return "no TLS handshake could be made: " + f.Raw
	case Ended:
		if f.Reset {
			return "the server reset the connection in the TLS handshake"
		}
		return "the server ended the connection in the TLS handshake"
	case Silent:
		return "the server fell silent in the TLS handshake"
	case NotTLS:
		return "the server agreed to STARTTLS and then spoke no TLS"
	case Alert:
		return f.alert(o)
	case Version:
		return f.version(o)
	case Choice:
		return "the server chose a TLS parameter that was not offered"
	case Certificate:
		return "the server's certificate cannot be used"
	case Proof:
		return "the server could not prove that its certificate is its own"
	}
	return "the server broke the TLS protocol"
}

// version is for a server that chose a version that was not offered.
func (f Fault) version(o Offer) string {
	switch {
	case f.Version != 0 && f.Version < o.Min:
		return "the server speaks " + tls.VersionName(f.Version) + " only; " + o.needs()
	case f.Version != 0:
		return "the server chose " + tls.VersionName(f.Version) + ", which was not offered"
	}
	return "the server, or something on the way, chose an older TLS than both speak"
}

// alert is for a server that refused with an alert (RFC 8446 §6.2).
func (f Fault) alert(o Offer) string {
	switch f.Alert {
	case 40, 42, 43, 44, 45, 46, 48, 49:
		if o.CertWanted {
			// It has chosen version and cipher before, so that even 40 is
			// about this: what OpenSSL says in TLS 1.2 when none comes.
			return "the server asks for a client certificate"
		}
	}
	switch f.Alert {
	case 40:
		return "the server has no TLS cipher, group or signature in common with the hello"
	case 70:
		return "the server speaks none of " + o.Versions() + "; " + o.needs()
	case 71:
		return "the server asks for stronger TLS than was offered"
	case 80:
		return "the server's TLS had an internal error"
	case 86:
		return "the server takes the hello for a downgrade"
	case 90:
		return "the server cancelled the TLS handshake"
	case 112:
		if o.SNI && o.Name != "" {
			return "the server does not know the name " + o.Name + " that TLS asked for"
		}
		return "the server wants a name in the TLS hello"
	case 115:
		return "the server does not know the TLS session that was to be resumed"
	case 116:
		return "the server asks for a client certificate"
	case 42, 43, 44, 45, 46, 48:
		if o.ClientCert {
			return "the server refuses the client certificate of tls_client"
		}
		return "the server refuses the TLS handshake over certificates"
	case 49:
		return "the server denies access in the TLS handshake"
	case 109, 110, 120, 121:
		return "the server asks for a TLS extension that is not offered, or refuses one that is"
	case 10, 20, 21, 22, 30, 47, 50, 51:
		return "the server could not read the TLS handshake"
	case 60:
		return "the server refuses the TLS hello by rules of export"
	case 100:
		return "the server refuses to negotiate TLS anew"
	case 111, 113, 114:
		return "the server refuses the TLS handshake over the status of a certificate"
	}
	return "the server refuses the TLS handshake by alert " + strconv.Itoa(int(f.Alert))
}

// Try is one hello that failed.
type Try struct {
	Offer Offer
	Err   error
}

// text is the sentence for a try, followed by what libraries call it.
func (t Try) text() string {
	f := FaultOf(t.Err)
	if f.Kind == Ours {
		return f.Sentence(t.Offer)
	}
	return f.Sentence(t.Offer) + " (" + f.Raw + ")"
}

// sentence is text without the words of libraries.
func (t Try) sentence() string { return FaultOf(t.Err).Sentence(t.Offer) }

// Error is a host with which no hello came to anything: one try at least.
type Error []Try

// Unwrap gives what the last hello met.
func (e Error) Unwrap() error { return e[len(e)-1].Err }

// Error says what went wrong and in which tries, one sentence for those that
// went alike, and who requires TLS: "the server reset the connection in the TLS
// handshake (read: connection reset by peer); 3 hellos: full, classical,
// compatible; this destination needs TLS (DANE)".
func (e Error) Error() string {
	text := e.tell(Try.text)
	if rule := e[len(e)-1].Offer.Rule; rule != "" && !strings.Contains(text, "("+rule+")") {
		text += "; this destination needs TLS (" + rule + ")"
	}
	return text
}

// tell tells of the tries, those that went alike together.
func (e Error) tell(text func(Try) string) string {
	var texts []string
	var steps [][]string // for each of them
	for _, t := range e {
		text := text(t)
		if n := len(texts); n == 0 || texts[n-1] != text {
			texts, steps = append(texts, text), append(steps, nil)
		}
		last := len(steps) - 1
		steps[last] = append(steps[last], t.Offer.Step.String())
	}
	switch {
	case len(e) == 1:
		return texts[0]
	case len(texts) == 1:
		return fmt.Sprintf("%s; %d hellos: %s", texts[0], len(e), strings.Join(steps[0], ", "))
	}
	parts := make([]string, len(texts))
	for i := range texts {
		parts[i] = strings.Join(steps[i], ", ") + ": " + texts[i]
	}
	return fmt.Sprintf("%d hellos: %s", len(e), strings.Join(parts, "; "))
}

// Refused is a server that offers STARTTLS and refuses it by a reply.
type Refused struct {
	Code int    // of the reply
	Text string // the whole reply
}

// Error quotes the reply.
func (r *Refused) Error() string { return "STARTTLS refused: " + r.Text }

// Reason is what a failure of TLS is called in a report (RFC 8460): the same
// for all that went wrong alike, without addresses, ports, times and what a
// server numbers its sessions by.
func Reason(err error) string {
	var hellos Error
	var refused *Refused
	var op *net.OpError
	switch {
	case errors.As(err, &hellos):
		return hellos.tell(Try.sentence)
	case errors.As(err, &refused):
		return "STARTTLS refused: " + strconv.Itoa(refused.Code)
	case errors.As(err, &op):
		return "the connection was lost after STARTTLS: " + raw(err)
	}
	return err.Error()
}
