package session

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// maxTracedChain is how many certificates of a chain are logged.
const maxTracedChain = 5

// tlsConfig makes the configuration of the connection's handshake, which the
// probe sees, and the log where the message is traced.
func (o *opening) tlsConfig(c *Conn, hello handshake.Hello) (*tls.Config, *verifier) {
	config, judge := o.cfg.TLS.config(&c.Host.Verdict, c.persistConn, o.cfg.Name, hello)
	config = o.probe.over(config)
	if !o.cfg.Debug && !o.Traced {
		return config, judge
	}
	log := o.Log.With("host", c.Host.Host.Name, "address", c.addr.String())
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state)
		refused := ""
		if err != nil {
			refused = reply.Line(err.Error())
		}
		log.Info("TLS handshake", "tls", tlsVersion(state.Version), "cipher", tls.CipherSuiteName(state.CipherSuite), "group", groupName(&state),
			"hello", hello.Step.String(), "resumed", state.DidResume, "chain", chainText(state.PeerCertificates), "proof", proofText(&c.proof), "refused", refused)
		return err
	}
	return config, judge
}

// groupName names the group of a key exchange; empty: there was none.
func groupName(state *tls.ConnectionState) string {
	if state.CurveID == 0 {
		return ""
	}
	return state.CurveID.String()
}

// chainText describes the certificates that a server sent.
func chainText(chain []*x509.Certificate) string {
	var all []string
	for i, cert := range chain {
		if i == maxTracedChain {
			all = append(all, fmt.Sprintf("and %d more", len(chain)-i))
			break
		}
		sum := sha256.Sum256(cert.Raw)
		all = append(all, fmt.Sprintf("%s by %s, %s to %s, sha256 %s", cert.Subject, cert.Issuer,
			cert.NotBefore.UTC().Format(time.DateOnly), cert.NotAfter.UTC().Format(time.DateOnly), hex.EncodeToString(sum[:8])))
	}
	return reply.Line(strings.Join(all, "; "))
}

// proofText says what a certificate was judged to prove, and what not.
func proofText(p *verdict.Proof) string {
	var all []string
	add := func(what string, err error) {
		if err != nil {
			what += ": " + err.Error()
		}
		all = append(all, what)
	}
	switch {
	case p.DANE != nil:
		add("DANE: matches "+p.DANE.Record.String(), nil)
	case p.DANEErr != nil:
		add("no DANE", p.DANEErr)
	}
	if p.WebPKI != "" {
		add("WebPKI: valid for "+p.WebPKI, nil)
	} else {
		add("no WebPKI", p.PKIErr)
	}
	switch {
	case p.Pin != pin.Pin{}:
		add("pin: "+p.Pin.String(), nil)
	case p.PinErr != nil:
		add("no pin", p.PinErr)
	}
	return reply.Line(strings.Join(all, "; "))
}
