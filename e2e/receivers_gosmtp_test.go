package e2e

import (
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// countingServer is a go-smtp server that counts what it took, by recipient.
type countingServer struct {
	server *smtp.Server

	mu    sync.Mutex
	taken map[string]int
}

func (c *countingServer) start(address string) error {
	listener, err := forks.Listen("tcp", address)
	if err != nil {
		return err
	}
	c.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &countingSession{c, nil}, nil }))
	c.server.Domain = "receiver"
	go c.server.Serve(listener) // ends with Close
	return nil
}

func (c *countingServer) count(recipient string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken[recipient]
}

// countingSession implements smtp.Session.
type countingSession struct {
	*countingServer
	to []string
}

func (s *countingSession) Mail(string, *smtp.MailOptions) error { s.to = nil; return nil }

func (s *countingSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nosuch") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *countingSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.to {
		s.taken[to]++
	}
	return nil
}

func (s *countingSession) Reset()        { s.to = nil }
func (s *countingSession) Logout() error { return nil }

// goSMTPReceiver is a go-smtp server, which takes mail for everyone.
func goSMTPReceiver(t *testing.T, address string) receiver {
	c := &countingServer{taken: map[string]int{}}
	if err := c.start(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.server.Close() })
	return receiver{
		count: func(_ *testing.T, to string) int { return c.count(to) },
		restart: func() error {
			c.server.Close() // and so its connections go
			return c.start(address)
		},
	}
}

// The first message to a go-smtp host that knows no one is refused, and at
// once: it swallows the chunk of a message whose recipients it has refused.
func TestGoSMTPKnowsNobody(t *testing.T) {
	t.Parallel()
	w := lab(t)
	d := startDaemon(t, settings{})
	domain := w.newDomain("receivers")
	address, err := w.host(domain)
	if err != nil {
		t.Fatal(err)
	}
	goSMTPReceiver(t, address)
	r := mxpipe(t, d, strings.NewReader("Subject: a note\n\nThis is all.\n"), "-f", "a@"+keepDomain, "nosuch@"+domain).result(t)
	if !strings.HasPrefix(r.line, "5.1.1 ") {
		t.Errorf("nobody: %s", r)
	}
}
