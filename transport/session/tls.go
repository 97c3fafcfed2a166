package session

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/certerror"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// TLSConfig restricts and equips TLS: the tls_client block, as in
// transport.TLSClient.
type TLSConfig struct {
	MinVersion, MaxVersion uint16 // of crypto/tls
	FixedVersions          bool   // no hello offers others
	// where no TLS is required, take TLS 1.0, 1.1 and 3DES rather than
	// plaintext
	Legacy bool
	// TLS 1.2 cipher suites of crypto/tls; empty: Go's choice
	Ciphers []uint16
	Curves  []uint16 // of crypto/tls CurveID; empty: Go's choice
	// absolute paths of PEM files of roots trusted beside the system's
	RootCA []string
	// absolute paths of PEM files of a client certificate; both or neither
	Cert, Key string
}

// TLS is what a TLSConfig makes: the ground of every handshake.
type TLS struct {
	base   *tls.Config
	hellos [handshake.Floors][]handshake.Hello
	roots  *x509.CertPool // the system's and the configured ones
	chains verifiedChains
}

// NewTLS makes handshakes of a TLSConfig; read gives the contents of the files
// that it names.
func NewTLS(cfg TLSConfig, read func(name string) ([]byte, error)) (*TLS, error) {
	c := &TLS{base: &tls.Config{
		// Go's own check knows neither DANE nor a certificate that is noted
		// without being insisted on; VerifyConnection does all of it.
		InsecureSkipVerify: true,
		// Small first records help pages that are rendered as they arrive; a
		// message is of use only when it is whole.
		DynamicRecordSizingDisabled: true,
	}}
	settings := handshake.Settings{Min: cfg.MinVersion, Max: cfg.MaxVersion, Fixed: cfg.FixedVersions, Ciphers: cfg.Ciphers, Legacy: cfg.Legacy}
	for _, id := range cfg.Curves {
		settings.Curves = append(settings.Curves, tls.CurveID(id))
	}
	for floor := range handshake.Floors {
		c.hellos[floor] = settings.Hellos(floor)
	}
	if cfg.Cert != "" {
		certPEM, err := read(cfg.Cert)
		if err != nil {
			return nil, fmt.Errorf("tls_client: %w", err)
		}
		keyPEM, err := read(cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("tls_client: %w", err)
		}
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("tls_client: %w", err)
		}
		c.base.Certificates = []tls.Certificate{cert}
	}
	var err error
	if c.roots, err = x509.SystemCertPool(); err != nil {
		// Nothing can be proven by WebPKI then; what needs it waits.
		c.roots = x509.NewCertPool()
	}
	for _, file := range cfg.RootCA {
		pem, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("tls_client: %w", err)
		}
		if !c.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_client: %s holds no certificate", file)
		}
	}
	return c, nil
}

// Roots are the roots that vouch for certificates.
func (c *TLS) Roots() *x509.CertPool { return c.roots }

// config makes the configuration of one handshake. What the server proves is
// written to the connection, and the handshake fails with a *verdict.Failure
// when that is not enough: one handshake, judged once, also when a session is
// resumed. The connection keeps the configuration, but not what it is judged
// by. scope names the settings that sessions are shared under.
func (c *TLS) config(v *verdict.Verdict, p *persistConn, scope string, hello handshake.Hello) (*tls.Config, *verifier) {
	cfg := c.base.Clone()
	cfg.ServerName = certName(v.Names[0])
	cfg.ClientSessionCache = scopedSessions{&p.conns.sessions, scope + " " + v.Host + " " + v.Need.String() + " " + v.TLSA.Fingerprint() + " ", &p.handshake}
	hello.Apply(cfg)
	judge := &verifier{client: c, verdict: v, conn: p, hello: hello.Step}
	cfg.VerifyConnection = judge.verify
	if len(cfg.Certificates) == 0 {
		cfg.GetClientCertificate = judge.asked
	}
	return cfg, judge
}

// offer is what the words about a failed handshake need to know.
func (c *TLS) offer(v *verdict.Verdict, hello handshake.Hello, judge *verifier) handshake.Offer {
	return handshake.Offer{
		Hello: hello, Name: certName(v.Names[0]), Rule: v.Rule.Name(),
		ClientCert: len(c.base.Certificates) > 0, CertWanted: judge.wanted,
	}
}

// verifier is how one handshake is judged.
type verifier struct {
	client  *TLS
	verdict *verdict.Verdict // nil when it was judged
	conn    *persistConn
	hello   handshake.Step
	wanted  bool // the server asked for a client certificate, and there is none
}

// asked is for tls.Config.GetClientCertificate: a server may ask for a
// certificate, and do without.
func (j *verifier) asked(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	j.wanted = true
	return &tls.Certificate{}, nil
}

// judged reports whether the server's certificate was judged.
func (j *verifier) judged() bool { return j.verdict == nil }

// verify is for tls.Config.VerifyConnection.
func (j *verifier) verify(state tls.ConnectionState) error {
	v := j.verdict
	if v == nil {
		return errJudged
	}
	// An idle connection must not keep all that was found out about a host.
	j.verdict = nil
	j.conn.handshake = handshakeBytes(&state)
	j.conn.proof = j.client.proofOf(state, v, time.Now())
	j.conn.proof.Hello = j.hello
	if f := v.Judge(&j.conn.proof); f != nil {
		return f
	}
	return nil
}

// proofOf finds out what a server's certificate proves: by the verdict's TLSA
// records where there are some, and by WebPKI for the host's name in any case.
func (c *TLS) proofOf(state tls.ConnectionState, v *verdict.Verdict, now time.Time) verdict.Proof {
	p := verdict.Proof{TLS: state.Version, Cipher: state.CipherSuite, Group: state.CurveID}
	chain := state.PeerCertificates
	if len(chain) == 0 {
		p.PKIErr = errNoCertificate
		return p
	}
	if v.Need == verdict.NeedDANE {
		p.TLSA = v.TLSA.Fingerprint()
		if match, err := v.TLSA.Verify(chain, v.Names, now); err != nil {
			p.DANEErr = err
		} else {
			p.DANE = &match
		}
	}
	paths, err := c.webPKI(v, chain, now)
	if err != nil {
		p.PKIErr = err
	} else {
		p.WebPKI = v.Host
	}
	if !v.Pins.Empty() {
		p.Pin, p.PinErr = v.Pins.Match(chain, paths, []string{certName(v.Host)}, now)
	}
	return p
}

// webPKI has the roots vouch for a server's certificate and its name. The paths
// are given where a pin may be about them.
func (c *TLS) webPKI(v *verdict.Verdict, chain []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	key := chainKeyOf(v.Host, chain)
	if v.Pins.Empty() && c.chains.has(key, now) {
		return nil, nil
	}
	options := x509.VerifyOptions{DNSName: certName(v.Host), Roots: c.roots, CurrentTime: now, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	paths, err := chain[0].Verify(options)
	if err != nil {
		return nil, certerror.Words(err)
	}
	c.chains.add(key, paths[0])
	return paths, nil
}

// certName gives a host's name as certificates bear it: an address without the
// brackets and the tag of a literal. crypto/tls keeps addresses out of the SNI.
func certName(host string) string {
	if addr, ok := address.Literal(host); ok {
		return addr.String()
	}
	return host
}

var (
	errNoCertificate = errors.New("the server presents no certificate")
	// errJudged is a defect of ours, or of crypto/tls: there is one handshake
	// to a connection.
	errJudged = errors.New("a second handshake on one connection")
)
