//go:build machine

package machine

import (
	"bytes"
	"fmt"
	"net/smtp"
	"strings"
	"sync"
	"testing"
	"time"
)

// 500 messages go out while the package is upgraded and the service restarted
// twice: each arrives, once, and none is bounced. That nothing is even deferred
// is what the sockets are for.
func TestUpgradeUnderLoad(t *testing.T) {
	const messages = 500
	m := boot(t)
	m.startPostfix(t)
	m.install(t, older)
	w := internet(t, m)
	m.sh(t, readme(t, "## Use it with Postfix"))
	s := server(w, daneDomain)
	behaviour := s.Behaviour()
	// so that there is always something under way
	behaviour.Delay = 300 * time.Millisecond
	s.SetBehaviour(behaviour)

	var sending sync.WaitGroup
	send := func(from, to int) {
		const senders = 5
		for i := range senders {
			sending.Go(func() {
				for n := from + i; n < to; n += senders {
					text := fmt.Appendf(nil, "Subject: message %d\r\n\r\nHello\r\n", n)
					if err := smtp.SendMail("127.0.0.1:25", nil, "me@mail.machine.example", []string{"you@" + daneDomain}, text); err != nil {
						t.Errorf("message %d: %v", n, err)
						return
					}
				}
			})
		}
	}
	daemon := 0
	disturb := func(what string, from, to int, action func()) {
		before := len(s.Messages())
		send(from, to)
		arrived(t, w, daneDomain, before+20)
		action()
		if n := len(s.Messages()); n >= to {
			t.Errorf("%s: %d messages were delivered when it was over, so that nothing was disturbed", what, n)
		}
		now := m.daemon(t)
		if now == daemon || now == 0 {
			t.Errorf("%s: the daemon was process %d and is %d", what, daemon, now)
		}
		daemon = now
	}
	disturb("upgrade", 0, 300, func() { m.install(t, newer) })
	disturb("first restart", 300, 400, func() { m.run(t, "systemctl", "restart", "mxpolicyd.service") })
	disturb("second restart", 400, messages, func() { m.run(t, "systemctl", "restart", "mxpolicyd.service") })
	sending.Wait()
	arrived(t, w, daneDomain, messages)
	await(t, "an empty queue", func() (string, bool) {
		out, _ := m.try("postqueue", "-p")
		return out, strings.Contains(out, "Mail queue is empty")
	})

	times := map[string]int{}
	for _, got := range s.Messages() {
		_, subject, _ := bytes.Cut(got.Body, []byte("Subject: message "))
		number, _, _ := bytes.Cut(subject, []byte("\r\n"))
		times[string(number)]++
	}
	for n := range messages {
		if k := times[fmt.Sprint(n)]; k != 1 {
			t.Errorf("message %d arrived %d times", n, k)
		}
	}
	log := m.journal(t, "postfix@-.service")
	for _, bad := range []string{"status=bounced", "status=deferred"} {
		if n := strings.Count(log, bad); n > 0 {
			_, line, _ := strings.Cut(log, bad)
			t.Errorf("%d × %s%.300s", n, bad, line)
		}
	}
	if n := strings.Count(log, "status=sent (delivered via mxpipe service (2."); n != messages {
		t.Errorf("Postfix logged %d deliveries", n)
	}
}
