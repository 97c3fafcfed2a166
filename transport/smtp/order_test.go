package smtp

import (
	"bufio"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/reply"
)

// said makes a report of replies: MAIL | RCPT.. | DATA | message. What is empty
// is not there.
func said(t *testing.T, replies string) *Report {
	t.Helper()
	parts := strings.Split(replies, "|")
	if len(parts) != 4 {
		t.Fatalf("%q has %d parts", replies, len(parts))
	}
	read := func(text string) reply.Reply {
		if text = strings.TrimSpace(text); text == "" {
			return reply.Reply{}
		}
		r, err := reply.Read(bufio.NewReader(strings.NewReader(text + "\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := &Report{Ending: Answered, Mail: read(parts[0]), Data: read(parts[2]), Final: read(parts[3])}
	for rcpt := range strings.SplitSeq(parts[1], ",") {
		r.Rcpts = append(r.Rcpts, read(rcpt))
	}
	return r
}

// What the replies of a transaction say about their own order, on a new
// connection and on one with messages before, and whether the host is trusted.
func TestOrder(t *testing.T) {
	const (
		coded   = "250 2.1.0 Ok | 250 2.1.5 Ok | | 250 2.0.0 Ok: queued as 4X"
		uncoded = "250 OK | 250 Accepted | | 250 OK id=1x"
		alike   = "250 ok | 250 ok | | 250 ok"
	)
	for _, tt := range []struct {
		name, before, replies string
		first                 bool
		want                  order
	}{
		// what real servers say
		{"Postfix", "", coded, true, inOrder},
		{"Postfix, warm", coded, coded, false, inOrder},
		{"Postfix, one refused", coded, "250 2.1.0 Ok | 550 5.1.1 no, 250 2.1.5 Ok | | 250 2.0.0 Ok: queued as 4X", false, inOrder},
		{"Postfix, DATA", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | 354 End data with <CR><LF>.<CR><LF> | 250 2.0.0 Ok: queued as 4X", false, inOrder},
		{"Exim", "", uncoded, true, inOrder},
		{"Exim, warm", uncoded, "250 OK | 250 Accepted | | 250 OK id=1y", false, inOrder},
		{"Exim, one refused, trusted", uncoded, "250 OK | 550 Unrouteable address, 250 Accepted | | 250 OK id=1y", false, inOrder},
		{"Exim, one refused, first", "", "250 OK | 550 Unrouteable address, 250 Accepted | | 250 OK id=1y", true, doubted},
		{"Exchange", coded, "250 2.1.0 Sender OK | 250 2.1.5 Recipient OK | | 250 2.6.0 <x@y> [InternalId=1] Queued mail for delivery", false, inOrder},
		{"go-smtp", "", "250 2.0.0 Roger, accepting mail from <a@b> | 250 2.0.0 I'll make sure <c@d> gets this | | 250 2.0.0 OK: queued", true, inOrder},
		{"qmail", "", "250 ok | 250 ok | | 250 ok 1700000000 qp 123", true, inOrder},
		{"ok to everything", alike, alike, false, inOrder},
		{"all refused", "", "250 2.1.0 Ok | 550 5.1.1 no, 550 5.1.1 no | | 554 5.5.1 no valid recipients", true, inOrder},
		{"all refused, DATA", "", "250 2.1.0 Ok | 550 5.1.1 no | 554 5.5.1 no valid recipients | ", false, inOrder},
		{"MAIL refused", "", "550 5.7.1 no | 503 5.5.1 MAIL first | | 503 5.5.1 MAIL first", false, inOrder},
		{"refused after the dot", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | 354 go | 550 5.7.1 spam", false, inOrder},
		{"later", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | | 451 4.7.1 later", false, inOrder},
		{"421", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | | 421 4.3.2 closing", false, inOrder},

		// a server that counts otherwise
		{"MAIL answered twice", coded, "250 2.1.0 Ok | 250 2.1.0 Ok | | 250 2.1.5 Ok", false, doubted},
		{"the same on a new connection", "", "250 2.1.0 Ok | 250 2.1.0 Ok | | 250 2.1.5 Ok", false, doubted},
		{"RCPT answered twice", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | | 250 2.1.5 Ok", false, doubted},
		{"twice, DATA", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | 354 go | 250 2.1.5 Ok", false, doubted},
		{"the last recipient's refusal", coded, "250 2.1.0 Ok | 250 stray, 250 2.1.5 Ok | | 550 5.1.1 no", false, doubted},
		{"the last recipient's 450", coded, "250 2.1.0 Ok | 250 stray, 550 5.1.1 no | | 450 4.2.0 later", false, doubted},
		{"a stray reply without a code", coded, "250 m | 250 stray | | 250 r", false, doubted},
		{"a stray reply, never a code", uncoded, "250 OK | 250 OK | | 250 Accepted", false, doubted},
		// docs/reliability.md
		{"a stray reply, never a code, nothing before", "", "250 OK | 250 OK | | 250 Accepted", false, inOrder},
		{"two words about the message", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | | 250 2.0.0 got it", false, inOrder},
		{"refused by BDAT", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | | 550 5.7.1 spam", false, doubted},
		{"DATA refused for all", coded, "250 2.1.0 Ok | 250 2.1.5 Ok | 554 5.7.1 no | ", false, doubted},
		{"DATA later, one refused", coded, "250 2.1.0 Ok | 250 2.1.5 Ok, 550 5.1.1 no | 451 4.7.1 later | ", false, doubted},
		{"a recipient's reply to DATA", coded, "250 2.1.0 Ok | 250 stray, 550 5.1.1 no | 250 2.1.5 Ok | ", false, impossible},
		{"354 to a recipient", coded, "250 2.1.0 Ok | 550 5.1.1 no, 354 go | | 250 2.0.0 Ok", false, impossible},
		{"221 to the message", coded, "250 2.1.0 Ok | 550 5.1.1 no, 250 2.1.5 Ok | | 221 bye", false, impossible},
		{"354 and nobody refused for good", coded, "250 2.1.0 Ok | 354 go | | 554 5.5.1 no", false, inOrder},
		{"334 to MAIL", "", "334 x | 503 5.5.1 MAIL first | | 503 5.5.1 MAIL first", false, inOrder},
		{"MAIL refused and RCPT accepted", "", "550 5.7.1 no | 250 2.1.0 Ok | | 503 5.5.1 no", false, impossible},
		{"nobody, and accepted", "", "250 2.1.0 Ok | 550 5.1.1 no | | 250 2.0.0 Ok", false, impossible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m manners
			if tt.before != "" {
				m.learn(said(t, tt.before))
			}
			if got, why := m.order(said(t, tt.replies), tt.first); got != tt.want || (got == inOrder) != (why == "") {
				t.Errorf("%d, %q; want %d", got, why, tt.want)
			}
		})
	}
}
