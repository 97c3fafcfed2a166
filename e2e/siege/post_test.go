package siege

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// perSecond is how many good messages go out each second.
const perSecond = 10

// text is a message.
var text = "Subject: good\r\n\r\n" + strings.Repeat("This is a line of a message of four kilobytes.\r\n", 85)

// post sends good messages as a mail server does: what is deferred is tried
// again, until it is taken.
type post struct {
	field    *field
	deferred atomic.Int64

	mu     sync.Mutex
	number int   // of messages that were made
	took   times // of those that were taken since the last look
	faults []string
}

func newPost(f *field) *post { return &post{field: f} }

// run sends good messages for a time, and waits until all of them are taken.
func (p *post) run(d time.Duration) {
	var all sync.WaitGroup
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		p.mu.Lock()
		p.number++
		n := p.number
		p.mu.Unlock()
		all.Go(func() { p.deliver(n) })
	}
	all.Wait()
}

// deliver tries one message until it is taken.
func (p *post) deliver(n int) {
	start := time.Now()
	to := fmt.Sprintf("m%d@%s", n, goodDomain(n/2))
	for {
		send := p.field.daemon.byLMTP
		if n%2 == 1 {
			send = p.field.daemon.byPipe
		}
		switch status, err := send("s@out.siege.example", to, text); {
		case err == nil && strings.HasPrefix(status, "2"):
			p.mu.Lock()
			defer p.mu.Unlock()
			p.took = append(p.took, time.Since(start))
			return
		case err == nil && !strings.HasPrefix(status, "4"):
			p.fault("message %d bounced: %s", n, status)
			return
		case time.Since(start) > patience:
			p.fault("message %d was not taken: %s %v", n, status, err)
			return
		}
		p.deferred.Add(1)
		time.Sleep(time.Second)
	}
}

func (p *post) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// take gives how long those took that were taken since the last time.
func (p *post) take() (took times) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took, p.took = p.took, nil
	return took
}

func (p *post) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.number
}

// finish compares what was sent with what arrived.
func (p *post) finish(t *testing.T) {
	t.Helper()
	arrived := map[string]int{}
	for _, server := range p.field.good {
		for _, m := range server.Messages() {
			for _, to := range m.Recipients {
				local, _, _ := strings.Cut(strings.Trim(to.Address, "<>"), "@")
				arrived[local]++
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fault := range p.faults {
		t.Error(fault)
	}
	for n := 1; n <= p.number; n++ {
		if copies := arrived[fmt.Sprintf("m%d", n)]; copies != 1 {
			t.Errorf("good message %d arrived %d times", n, copies)
		}
	}
}

// byPipe sends a message as a mail server does that runs mxpipe.
func (d *daemon) byPipe(from, to, text string) (status string, err error) {
	cmd := exec.Command(d.mxpipe, "--socket", d.pipe, "--timeout", "1m", "-f", from, to)
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout = &out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return out.String(), err
}

// byLMTP sends a message to one recipient.
func (d *daemon) byLMTP(from, to, text string) (status string, err error) {
	conn, err := d.letterbox()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.send(from, []string{to}, text)
}

// letterbox is a connection to the LMTP socket that was greeted.
type letterbox struct{ *textproto.Conn }

func (d *daemon) letterbox() (letterbox, error) {
	raw, err := net.Dial("unix", d.lmtp)
	if err != nil {
		return letterbox{}, err
	}
	raw.SetDeadline(time.Now().Add(20 * time.Minute))
	c := letterbox{textproto.NewConn(raw)}
	if _, _, err = c.ReadResponse(220); err == nil {
		if err = c.PrintfLine("LHLO client.siege.example"); err == nil {
			_, _, err = c.ReadResponse(250)
		}
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

// send sends a message, and gives the reply for its last recipient.
func (c letterbox) send(from string, to []string, text string) (status string, err error) {
	fmt.Fprintf(c.W, "MAIL FROM:<%s>\r\n", from)
	for _, one := range to {
		fmt.Fprintf(c.W, "RCPT TO:<%s>\r\n", one)
	}
	io.WriteString(c.W, "DATA\r\n")
	if err := c.W.Flush(); err != nil {
		return "", err
	}
	reply := func() (string, error) {
		code, text, err := c.ReadResponse(0)
		if code == 0 {
			return "", err
		}
		return fmt.Sprint(code, " ", text), nil
	}
	for range len(to) + 1 {
		if status, err := reply(); err != nil || status[0] != '2' {
			return status, err
		}
	}
	if status, err := reply(); err != nil || status[0] != '3' {
		return status, err
	}
	io.WriteString(c.W, text+".\r\n")
	if err := c.W.Flush(); err != nil {
		return "", err
	}
	for range to {
		if status, err = reply(); err != nil {
			return "", err
		}
	}
	return status, nil
}
