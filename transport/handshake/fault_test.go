package handshake

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// remote is an alert as crypto/tls gives it: its type is its own.
func remote(n int) error {
	return &net.OpError{Op: "remote error", Err: errors.New(tls.AlertError(n).Error())}
}

// modern is a first hello for a destination with an MTA-STS policy.
var modern = Offer{
	Hello: Hello{Min: tls.VersionTLS12, Max: tls.VersionTLS13, SNI: true, Ticket: true},
	Name:  "mx.example.org", Rule: "MTA-STS",
}

// What every alert means (RFC 8446 §6, RFC 5246 §7.2 and the registry).
func TestAlerts(t *testing.T) {
	const (
		unread    = "the server could not read the TLS handshake"
		extension = "the server asks for a TLS extension that is not offered, or refuses one that is"
		client    = "the server refuses the TLS handshake over certificates"
		state     = "the server refuses the TLS handshake over the status of a certificate"
	)
	known := map[int]string{
		0:  "the server ended the connection in the TLS handshake",
		10: unread, 20: unread, 21: unread, 22: unread, 30: unread, 47: unread, 50: unread, 51: unread,
		40: "the server has no TLS cipher, group or signature in common with the hello",
		42: client, 43: client, 44: client, 45: client, 46: client, 48: client,
		49:  "the server denies access in the TLS handshake",
		60:  "the server refuses the TLS hello by rules of export",
		70:  "the server speaks none of TLS 1.2 and TLS 1.3; this destination needs TLS 1.2 (MTA-STS)",
		71:  "the server asks for stronger TLS than was offered",
		80:  "the server's TLS had an internal error",
		86:  "the server takes the hello for a downgrade",
		90:  "the server cancelled the TLS handshake",
		100: "the server refuses to negotiate TLS anew",
		109: extension, 110: extension, 120: extension, 121: extension,
		111: state, 113: state, 114: state,
		112: "the server does not know the name mx.example.org that TLS asked for",
		115: "the server does not know the TLS session that was to be resumed",
		116: "the server asks for a client certificate",
	}
	for n := range 256 {
		want, ok := known[n]
		if !ok {
			want = fmt.Sprintf("the server refuses the TLS handshake by alert %d", n)
			if !strings.HasPrefix(tls.AlertError(n).Error(), "tls: alert(") {
				t.Errorf("alert %d has the name %q and no sentence", n, tls.AlertError(n))
			}
		}
		f := FaultOf(remote(n))
		if got := f.Sentence(modern); got != want || !f.PlainerHelps() {
			t.Errorf("alert %d: %q, want %q; a plainer hello helps: %t", n, got, want, f.PlainerHelps())
		}
	}
	nameless, certified := modern, modern
	nameless.SNI, certified.ClientCert = false, true
	if got := FaultOf(remote(112)).Sentence(nameless); got != "the server wants a name in the TLS hello" {
		t.Errorf("without SNI: %q", got)
	}
	wanted := modern
	wanted.CertWanted = true
	for alert, want := range map[int]string{
		40: "the server asks for a client certificate", 42: "the server asks for a client certificate", 116: "the server asks for a client certificate",
		80: "the server's TLS had an internal error",
	} {
		if got := FaultOf(remote(alert)).Sentence(wanted); got != want {
			t.Errorf("alert %d to a client without the certificate that was asked for: %q, want %q", alert, got, want)
		}
	}
	if got := FaultOf(remote(48)).Sentence(certified); got != "the server refuses the client certificate of tls_client" {
		t.Errorf("with a client certificate: %q", got)
	}
}

// What else crypto/tls and the connection say, in Go 1.26.
func TestFaults(t *testing.T) {
	const (
		choice   = "the server chose a TLS parameter that was not offered"
		cert     = "the server's certificate cannot be used"
		proof    = "the server could not prove that its certificate is its own"
		protocol = "the server broke the TLS protocol"
		older    = "the server, or something on the way, chose an older TLS than both speak"
	)
	read := func(err error) error {
		return &net.OpError{Op: "read", Net: "tcp", Addr: &net.TCPAddr{Port: 25}, Err: err}
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{io.EOF, "the server ended the connection in the TLS handshake"},
		{io.ErrUnexpectedEOF, "the server ended the connection in the TLS handshake"},
		{read(os.NewSyscallError("read", syscall.ECONNRESET)), "the server reset the connection in the TLS handshake"},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, "the server reset the connection in the TLS handshake"},
		{read(os.ErrDeadlineExceeded), "the server fell silent in the TLS handshake"},
		{os.ErrDeadlineExceeded, "the server fell silent in the TLS handshake"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "the server agreed to STARTTLS and then spoke no TLS"},

		{errors.New("tls: server selected unsupported protocol version 301"), "the server speaks TLS 1.0 only; this destination needs TLS 1.2 (MTA-STS)"},
		{errors.New("tls: server selected unsupported protocol version 302"), "the server speaks TLS 1.1 only; this destination needs TLS 1.2 (MTA-STS)"},
		{errors.New("tls: server selected unsupported protocol version 300"), "the server speaks SSLv3 only; this destination needs TLS 1.2 (MTA-STS)"},
		{errors.New("tls: server selected unsupported protocol version 305"), "the server chose 0x0305, which was not offered"},
		{errors.New("tls: downgrade attempt detected, possibly due to a MitM attack or a broken middlebox"), older},
		{errors.New("tls: server selected TLS 1.3 using the legacy version field"), older},
		{errors.New("tls: server selected an invalid version after a HelloRetryRequest"), older},
		{errors.New("tls: server sent an incorrect legacy version"), older},

		{errors.New("tls: server chose an unconfigured cipher suite"), choice},
		{errors.New("tls: server changed cipher suite after a HelloRetryRequest"), choice},
		{errors.New("tls: server selected unsupported group"), choice},
		{errors.New("tls: server selected unsupported curve"), choice},
		{errors.New("tls: server selected unoffered curve"), choice},
		{errors.New("tls: server selected unsupported compression format"), choice},
		{errors.New("tls: server offered only incompatible point formats"), choice},
		{errors.New("tls: server selected an invalid PSK"), choice},
		{errors.New("tls: server selected an invalid PSK and cipher suite pair"), choice},
		{errors.New("tls: server resumed a session with a different version"), choice},
		{errors.New("tls: server resumed a session with a different cipher suite"), choice},
		{errors.New("tls: server resumed a session with a different EMS extension"), choice},
		{errors.New("tls: server selected unadvertised ALPN protocol"), choice},
		{errors.New("tls: server advertised unrequested ALPN extension"), choice},
		{errors.New("tls: certificate used with invalid signature algorithm"), choice},

		{errors.New("tls: failed to parse certificate from server: x509: negative serial number"), cert},
		{errors.New("tls: server sent certificate containing RSA key larger than 8192 bits"), cert},
		{errors.New("tls: server's certificate contains an unsupported type of public key: *dsa.PublicKey"), cert},
		{errors.New("tls: server certificate contains incorrect key type for selected ciphersuite"), cert},
		{errors.New("tls: received empty certificates message"), cert},
		{errors.New("tls: server's identity changed during renegotiation"), cert},
		{errors.New("tls: unsupported public key: *dsa.PublicKey"), cert},
		{errors.New("tls: Ed25519 public keys are not supported before TLS 1.2"), cert},

		{errors.New("tls: invalid signature by the server certificate: ECDSA verification failure"), proof},
		{errors.New("tls: server's Finished message was incorrect"), proof},
		{errors.New("tls: invalid server finished hash"), proof},

		{errors.New("tls: server echoed TLS 1.3 compatibility session ID in TLS 1.2"), protocol},
		{errors.New("tls: received unexpected CertificateStatus message"), protocol},
		{errors.New("tls: initial handshake had non-empty renegotiation extension"), protocol},
		{errors.New("tls: incorrect renegotiation extension contents"), protocol},
		{errors.New("tls: server did not select an ALPN protocol"), protocol},
		{errors.New("tls: server sent unrequested session ticket"), protocol},
		{errors.New("tls: unexpected server_name extension in server hello"), protocol},
		{errors.New("tls: server sent a ServerHello extension forbidden in TLS 1.3"), protocol},
		{errors.New("tls: server did not echo the legacy session ID"), protocol},
		{errors.New("tls: server sent non-zero legacy TLS compression method"), protocol},
		{errors.New("tls: server sent an unnecessary HelloRetryRequest message"), protocol},
		{errors.New("tls: received malformed key_share extension"), protocol},
		{errors.New("tls: server sent an unnecessary HelloRetryRequest key_share"), protocol},
		{errors.New("tls: server sent two HelloRetryRequest messages"), protocol},
		{errors.New("tls: server sent a cookie in a normal ServerHello"), protocol},
		{errors.New("tls: malformed key_share extension"), protocol},
		{errors.New("tls: server did not send a key share"), protocol},
		{errors.New("tls: invalid server key share"), protocol},
		{errors.New("tls: invalid server key share length for hybrid key exchange"), protocol},
		{errors.New("tls: server sent an unexpected early_data extension"), protocol},
		{errors.New("tls: invalid ServerKeyExchange message"), protocol},
		{errors.New("tls: unexpected ServerKeyExchange"), protocol},
		{errors.New("tls: missing ServerKeyExchange message"), protocol},
		{errors.New("tls: too many ignored records"), protocol},
		{errors.New("tls: too many non-advancing records"), protocol},
		{errors.New("tls: handshake message of length 262145 bytes exceeds maximum of 65536 bytes"), protocol},
		{errors.New("tls: received unexpected handshake message of type *tls.certificateMsg"), protocol},
		{errors.New("tls: received unexpected handshake message of type *tls.finishedMsg when waiting for *tls.serverHelloMsg"), protocol},
		{errors.New("tls: received a session ticket with invalid lifetime"), protocol},
	} {
		f := FaultOf(tt.err)
		if got := f.Sentence(modern); got != tt.want || !f.PlainerHelps() {
			t.Errorf("%v: %q, want %q; a plainer hello helps: %t", tt.err, got, tt.want, f.PlainerHelps())
		}
	}
	for _, err := range []error{
		context.Canceled, context.DeadlineExceeded, fmt.Errorf("given up: %w", context.Canceled),
		errors.New("tls: no supported versions satisfy MinVersion and MaxVersion"),
		errors.New("tls: no supported elliptic curves for ECDHE"),
		errors.New("tls: CurvePreferences includes unsupported curve"),
		errors.New("tls: either ServerName or InsecureSkipVerify must be specified in the tls.Config"),
		errors.New("tls: internal error: unsupported curve"),
		errors.New("tls: short read from Rand: out of luck"),
		errors.New("tls: client certificate private key of type int does not implement crypto.Signer"),
		errors.New("tls: failed to sign handshake: no key"),
	} {
		f := FaultOf(err)
		if want := "no TLS handshake could be made: " + err.Error(); f.Sentence(modern) != want || f.PlainerHelps() {
			t.Errorf("%v: %q; a plainer hello helps: %t", err, f.Sentence(modern), f.PlainerHelps())
		}
	}
}

// A destination without demands, and a tls_client that asks for more.
func TestVersionsInSentences(t *testing.T) {
	tls10 := errors.New("tls: server selected unsupported protocol version 301")
	for _, tt := range []struct {
		min, max uint16
		rule     string
		err      error
		want     string
	}{
		{tls.VersionTLS12, tls.VersionTLS13, "", tls10, "the server speaks TLS 1.0 only; tls_client offers TLS 1.2 and TLS 1.3"},
		{tls.VersionTLS13, tls.VersionTLS13, "", remote(70), "the server speaks none of TLS 1.3; tls_client offers TLS 1.3"},
		{tls.VersionTLS13, tls.VersionTLS13, "DANE", remote(70), "the server speaks none of TLS 1.3; this destination needs TLS (DANE), and tls_client offers TLS 1.3"},
		{tls.VersionTLS10, tls.VersionTLS13, "", remote(70), "the server speaks none of TLS 1.0, TLS 1.1, TLS 1.2 and TLS 1.3; tls_client offers TLS 1.0, TLS 1.1, TLS 1.2 and TLS 1.3"},
	} {
		o := Offer{Hello: Hello{Min: tt.min, Max: tt.max}, Rule: tt.rule}
		if got := FaultOf(tt.err).Sentence(o); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// One sentence for tries that went alike, and no address or port in it, so that
// equal failures are one entry of a report.
func TestErrorText(t *testing.T) {
	reset := &net.OpError{
		Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 33333}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 25},
		Err: os.NewSyscallError("read", syscall.ECONNRESET),
	}
	hellos := func(errs ...error) (e Error) {
		s := Settings{Legacy: true}
		for i, h := range s.Hellos(Opportunistic)[:len(errs)] {
			e = append(e, Try{Offer{Hello: h, Name: "mx.example.org"}, errs[i]})
		}
		return e
	}
	for _, tt := range []struct {
		err  Error
		want string
	}{
		{hellos(reset), "the server reset the connection in the TLS handshake (read: connection reset by peer)"},
		{hellos(reset, reset, reset, reset), "the server reset the connection in the TLS handshake (read: connection reset by peer); 4 hellos: full, classical, compatible, without-sni"},
		{hellos(reset, reset, remote(40)), "3 hellos: full, classical: the server reset the connection in the TLS handshake (read: connection reset by peer); " +
			"compatible: the server has no TLS cipher, group or signature in common with the hello (remote error: tls: handshake failure)"},
		{hellos(context.Canceled), "no TLS handshake could be made: context canceled"},
		{Error{{modern, reset}}, "the server reset the connection in the TLS handshake (read: connection reset by peer); this destination needs TLS (MTA-STS)"},
		{Error{{modern, remote(70)}}, "the server speaks none of TLS 1.2 and TLS 1.3; this destination needs TLS 1.2 (MTA-STS) (remote error: tls: protocol version not supported)"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		if !errors.Is(tt.err, tt.err[len(tt.err)-1].Err) {
			t.Error("the last error is not wrapped")
		}
	}
}

// The same from real handshakes: what crypto/tls says is promised by no one.
func TestRealHandshakes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	serve := func(cfg *tls.Config) func(net.Conn) {
		cfg.Certificates = []tls.Certificate{cert}
		return func(conn net.Conn) { _ = tls.Server(conn, cfg).Handshake() }
	}
	for _, tt := range []struct {
		name   string
		server func(net.Conn)
		want   string
		kind   Kind
	}{
		{"old", serve(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}),
			"the server speaks none of TLS 1.2 and TLS 1.3; this destination needs TLS 1.2 (MTA-STS)", Alert},
		{"nothing in common", serve(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}),
			"the server has no TLS cipher, group or signature in common with the hello", Alert},
		{"refuses the name", serve(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, tls.AlertError(112) }}),
			"the server's TLS had an internal error", Alert},
		{"ends", func(net.Conn) {}, "the server ended the connection in the TLS handshake", Ended},
		{"talks", func(conn net.Conn) { conn.Write([]byte("500 what is that supposed to mean?\r\n")) }, "the server agreed to STARTTLS and then spoke no TLS", NotTLS},
		{"TLS 1.0 by its own hello", func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, 5))
			// A ServerHello of version 1.0 with an RSA suite, without
			// extensions.
			hello := append([]byte{22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1}, make([]byte, 32)...)
			conn.Write(append(hello, 0, 0, 47, 0))
			io.Copy(io.Discard, conn)
		}, "the server speaks TLS 1.0 only; this destination needs TLS 1.2 (MTA-STS)", Version},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := listener.Accept()
				if err == nil {
					tt.server(conn)
					// What the client has sent is read, so that it is no reset.
					conn.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, conn)
					conn.Close()
				}
			}()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.org"}
			modern.Apply(cfg)
			err = tls.Client(conn, cfg).Handshake()
			conn.Close()
			<-done
			if err == nil {
				t.Fatal("the handshake came about")
			}
			if f := FaultOf(err); f.Kind != tt.kind || f.Sentence(modern) != tt.want {
				t.Errorf("%v: kind %d, %q; want %d, %q", err, f.Kind, f.Sentence(modern), tt.kind, tt.want)
			}
		})
	}
}

// Equal failures have equal reasons in a report, whatever differs from
// connection to connection.
func TestReason(t *testing.T) {
	lost := func(port int) error {
		return &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 25},
			Err: os.NewSyscallError("read", syscall.ECONNRESET),
		}
	}
	s := Settings{Legacy: true}
	hellos := func(port int) (e Error) {
		for _, h := range s.Hellos(Opportunistic) {
			e = append(e, Try{Offer{Hello: h}, lost(port)})
		}
		return e
	}
	for want, errs := range map[string][]error{
		"the server reset the connection in the TLS handshake; 4 hellos: full, classical, compatible, without-sni": {
			hellos(30001), hellos(30002), fmt.Errorf("TLS handshake: %w", hellos(30003)),
		},
		"the server speaks TLS 1.0 only; this destination needs TLS 1.2 (MTA-STS)": {
			Error{{modern, errors.New("tls: server selected unsupported protocol version 301")}},
		},
		"STARTTLS refused: 454": {
			&Refused{454, "454 4.7.0 TLS not available, id=4f2a"}, fmt.Errorf("it: %w", &Refused{454, "454 4.7.0 TLS not available, id=77c1"}),
		},
		"the connection was lost after STARTTLS: read: connection reset by peer": {lost(30001), fmt.Errorf("EHLO after STARTTLS: %w", lost(30002))},
		"something else": {errors.New("something else")},
	} {
		for _, err := range errs {
			if got := Reason(err); got != want {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
	}
	if got := (&Refused{454, "454 4.7.0 not now"}).Error(); got != "STARTTLS refused: 454 4.7.0 not now" {
		t.Errorf("%q", got)
	}
}
