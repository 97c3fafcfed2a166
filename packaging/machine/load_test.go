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

// 500 messages go out while the package is upgraded and the service restarted twice: each arrives, once, and none is
// bounced. That nothing is even put off is what the sockets are for.
func TestUpgradeUnderLoad(t *testing.T) {
	const messages = 500
	m := boot(t)
	m.startPostfix(t)
	m.install(t, older)
	w := internet(t, m)
	m.sh(t, readme(t, "## Use it with Postfix"))
	s := server(w, daneDomain)
	habits := s.Habits()
	habits.Delay = 50 * time.Millisecond // so that there is always something under way
	s.SetHabits(habits)

	var sending sync.WaitGroup
	const senders = 5
	for i := range senders {
		sending.Go(func() {
			for n := i; n < messages; n += senders {
				text := fmt.Appendf(nil, "Subject: message %d\r\n\r\nHello\r\n", n)
				if err := smtp.SendMail("127.0.0.1:25", nil, "me@mail.machine.example", []string{"you@" + daneDomain}, text); err != nil {
					t.Errorf("message %d: %v", n, err)
					return
				}
			}
		})
	}
	arrived(t, w, daneDomain, messages/5)
	first := m.daemon(t)
	m.install(t, newer)
	upgraded := m.daemon(t)
	arrived(t, w, daneDomain, 2*messages/5)
	m.run(t, "systemctl", "restart", "mxpolicyd.service")
	arrived(t, w, daneDomain, 3*messages/5)
	before := len(s.Messages())
	m.run(t, "systemctl", "restart", "mxpolicyd.service")
	last := m.daemon(t)
	sending.Wait()
	if first == upgraded || upgraded == last {
		t.Errorf("the daemon was process %d, after the upgrade %d, in the end %d", first, upgraded, last)
	}
	if before == messages {
		t.Error("all messages were delivered before the last restart: the test has tested nothing")
	}
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
