package listen

import (
	"errors"
	"net"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// EndpointKind is what a socket serves.
type EndpointKind uint8

// The kinds of sockets. The name of a kind is that of its key under listen and
// of FileDescriptorName=; an LMTP socket for transport T is named lmtp-T there.
const (
	KindPipe EndpointKind = iota
	KindLMTP
	KindSocketmap
	KindAdmin
	KindMetrics
	kinds // how many there are
)

// String gives the name.
func (k EndpointKind) String() string {
	return [...]string{"pipe", "lmtp", "socketmap", "admin", "metrics"}[k]
}

// allowedAt says why a kind cannot be served at an address.
func (k EndpointKind) allowedAt(at net.Addr) error {
	tcp, isTCP := at.(*net.TCPAddr)
	switch k {
	case KindMetrics:
	case KindAdmin:
		if at.Network() != "unix" {
			return errors.New("not a unix socket: anyone who reaches it could control the daemon")
		}
	case KindSocketmap:
		if isTCP && !tcp.IP.IsLoopback() {
			return errors.New("neither a unix socket nor a loopback address: answers could be forged on the network")
		}
	default: // KindPipe, KindLMTP, and what is new
		if at.Network() != "unix" {
			return errors.New("not a unix socket: anyone who reaches it could send mail")
		}
	}
	return nil
}

// Endpoint is what a socket is for: the same for one that systemd hands over
// and one that listen names.
type Endpoint struct {
	Kind      EndpointKind
	Transport string // the one that messages of an LMTP socket take
}

// String gives the socket's name.
func (e Endpoint) String() string {
	if e.Kind == KindLMTP && e.Transport != config.DefaultTransport {
		return e.Kind.String() + "-" + e.Transport
	}
	return e.Kind.String()
}

// parseEndpoint reads a socket's name; ok is false when there is no such
// endpoint.
func parseEndpoint(name string) (e Endpoint, ok bool) {
	for k := range kinds {
		if name == k.String() {
			e = Endpoint{Kind: k}
			if k == KindLMTP {
				e.Transport = config.DefaultTransport
			}
			return e, true
		}
	}
	if t, ok := strings.CutPrefix(name, KindLMTP.String()+"-"); ok && t != "" {
		return Endpoint{KindLMTP, t}, true
	}
	return Endpoint{}, false
}
