package outcome

import (
	"errors"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Cause is what kept a message from being delivered, for logs and metrics to
// group by: few values, which do not change.
type Cause uint8

// The causes.
const (
	NoCause Cause = iota // it was delivered
	// a look-up failed, or says that there is no host
	CauseDNS
	CauseConn      // no connection, or one that was lost
	CauseTLS       // a handshake failed where TLS is required
	CausePolicy    // DANE, MTA-STS, REQUIRETLS, local policy
	CauseLimit     // our own limits, pauses and slow-downs
	CauseRemote4xx // the remote server's temporary reply
	CauseRemote5xx // its permanent reply
	CauseOwn       // everything else on our side
)

// Causes lists those that a failure can have.
var Causes = [...]Cause{CauseDNS, CauseConn, CauseTLS, CausePolicy, CauseLimit, CauseRemote4xx, CauseRemote5xx, CauseOwn}

var causeWords = [...]string{"", "dns", "connect", "tls", "policy", "limit", "remote-4xx", "remote-5xx", "own"}

// String is the word for logs and metrics; empty for NoCause.
func (c Cause) String() string { return causeWords[c] }

// CauseOf finds the cause in a recipient's result.
func CauseOf(s *status.Error) Cause {
	const network, security = 4, 7 // subjects of RFC 3463
	switch reply := replyClass(s.Text); {
	case s.Code.Class == status.Success:
		return NoCause
	case s.Code == codeLogin: // whatever the server says about it
		return CauseOwn
	case reply == '4':
		return CauseRemote4xx
	case reply == '5':
		return CauseRemote5xx
	case errors.Is(s.Err, limit.ErrBusy), s.Code.Subject == network && s.Code.Detail == 5:
		return CauseLimit
	case s.Code.Subject == network && (s.Code.Detail == 1 || s.Code.Detail == 2):
		return CauseConn
	case s.Code.Subject == network && (s.Code.Detail == 3 || s.Code.Detail == 4 || s.Code.Detail == 6),
		s.Code.Subject == 1 && (s.Code.Detail == 2 || s.Code.Detail == 10):
		return CauseDNS
	case s.Code.Subject == security && s.Err != nil:
		return CauseTLS
	case s.Code.Subject == security:
		return CausePolicy
	}
	return CauseOwn
}

// replyClass gives the first digit of the reply that a text begins with; 0: it
// begins with none.
func replyClass(text string) byte {
	if len(text) < 4 || text[0] < '2' || text[0] > '5' || text[3] != ' ' && text[3] != '-' {
		return 0
	}
	for _, c := range text[1:3] {
		if c < '0' || c > '9' {
			return 0
		}
	}
	return text[0]
}
