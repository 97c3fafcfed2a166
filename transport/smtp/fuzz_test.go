package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/transport/outcome"
)

// dice gives one decision after the other, and sound ones (0) at the end.
type dice struct{ data []byte }

func (d *dice) roll(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := int(d.data[0])
	d.data = d.data[1:]
	return b % n
}

// A model is a server that counts what it accepts. It says all that it has to
// say to a flight at once, when it has read the flight; what it says may be too
// much, or too little, but not both, since no one could find that out. Where
// NOOP follows a message it leaves nothing out, since NOOP's reply would stand
// in for what is missing (DESIGN §7).
type model struct {
	dice                 dice
	conn                 net.Conn
	hold                 *holdingConn
	r                    *bufio.Reader
	out                  []string
	pipelining, chunking bool
	confirms             bool
	unknownBDAT          bool // it offers CHUNKING and does not know it
	faults               fault
	closing              bool
	// It is one reply behind, once it has said one too many: each waits for the
	// command after the one that it is due to. It says no second word to the
	// message itself then, which no one could find out.
	behind bool
	due    int // commands that the client waits for the replies to

	mail  bool   // MAIL was accepted
	rcpts []bool // each RCPT: accepted

	mu sync.Mutex
	// the accepted recipients of each message it took, nil for one that it did
	// not
	taken [][]bool
	// the message, from 1, of which no one can say whether it was taken
	open int
}

// fault is what is wrong with the replies to a message.
type fault uint8

const (
	noFault fault = iota
	tooMany
	tooFew
)

// holdingConn sends several writes at once.
type holdingConn struct {
	net.Conn
	held []byte
	hold bool
}

func (h *holdingConn) Write(p []byte) (int, error) {
	if h.hold {
		h.held = append(h.held, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (h *holdingConn) release() error {
	held := h.held
	h.held, h.hold = nil, false
	_, err := h.Conn.Write(held)
	return err
}

var lies = []string{"250 2.0.0 lie", "550 5.0.0 lie", "450 4.0.0 lie", "421 4.0.0 lie", "354 lie", "no reply", "250-lie\r\n250 lie", "221 lie"}

// say gives the true reply to a command, and perhaps more or less than that.
func (m *model) say(true_ string) {
	m.due++
	switch m.faults {
	case tooMany:
		roll := m.dice.roll(8)
		if m.behind && roll == 2 {
			// After the last recipient it would be one about the message.
			roll = 1
		}
		switch roll {
		case 1:
			m.out = append(m.out, lies[m.dice.roll(len(lies))])
		case 2:
			m.out = append(m.out, true_)
			true_ = lies[m.dice.roll(len(lies))]
		default:
			m.out = append(m.out, true_)
			return
		}
		if m.behind {
			m.faults = noFault // once
		}
	case tooFew:
		if m.dice.roll(6) == 1 {
			m.closing = true // the client would wait for ever
			return
		}
	}
	m.out = append(m.out, true_)
}

func (m *model) flush() bool {
	var behind []string
	if m.behind && len(m.out) > m.due {
		m.out, behind = m.out[:m.due], m.out[m.due:]
	}
	defer func() { m.out, m.due = behind, 0 }()
	if len(m.out) > 0 {
		m.hold.hold = true
		if m.dice.roll(2) == 0 {
			for _, reply := range m.out {
				io.WriteString(m.conn, reply+"\r\n")
			}
		} else {
			io.WriteString(m.conn, strings.Join(m.out, "\r\n")+"\r\n")
		}
		if m.hold.release() != nil {
			return false
		}
	}
	return !m.closing
}

// verdict rolls a reply code.
func (m *model) verdict(ok string) (reply string, accepted bool) {
	switch m.dice.roll(10) {
	case 1:
		return "550 5.1.1 no", false
	case 2:
		return "450 4.2.0 later", false
	case 3:
		return "421 4.3.2 not this", false
	}
	return ok, true
}

func (m *model) serve() {
	defer m.conn.Close()
	for {
		// The end of a flight: nothing more is there to be read.
		if m.r.Buffered() == 0 && !m.flush() {
			return
		}
		line, err := m.r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "MAIL":
			m.begin()
		case "RCPT":
			reply, ok := "503 5.5.1 no MAIL", false
			if m.mail {
				reply, ok = m.verdict("250 2.1.5 ok")
			}
			m.rcpts = append(m.rcpts, ok)
			m.say(reply)
		case "DATA":
			if !m.anyone() {
				m.say("554 5.5.1 nobody")
				continue
			}
			if reply, ok := m.verdict("354 go"); !ok {
				m.say(reply)
				continue
			}
			m.say("354 go")
			if !m.flush() || !m.data() {
				return
			}
			m.final()
		case "BDAT":
			if !m.bdat(arg) {
				return
			}
		case "RSET":
			m.say("250 2.0.0 ok")
		case "NOOP":
			m.say([]string{"250 2.0.0 ok", "500 what?", "502 what?", "421 bye"}[m.dice.roll(4)])
		case "QUIT":
			m.say("221 bye")
			m.flush()
			return
		default:
			m.due++
			m.out = append(m.out, "500 5.5.2 what?")
		}
	}
}

func (m *model) anyone() bool {
	for _, ok := range m.rcpts {
		if ok {
			return true
		}
	}
	return false
}

func (m *model) begin() {
	m.faults, m.rcpts = fault(m.dice.roll(3)), nil
	if (m.confirms || m.behind) && m.faults == tooFew {
		m.faults = noFault
	}
	m.mu.Lock()
	m.taken = append(m.taken, nil)
	m.mu.Unlock()
	var reply string
	reply, m.mail = m.verdict("250 2.1.0 ok")
	m.say(reply)
}

func (m *model) data() bool {
	for {
		line, err := m.r.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return err == nil
		}
		if len(m.out) > 0 { // it is behind with its 354
			m.due = len(m.out)
			m.flush()
		}
	}
}

func (m *model) bdat(arg string) bool {
	size, _, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil {
		return false
	}
	if m.unknownBDAT {
		m.due++
		m.out = append(m.out, "500 5.5.1 what?") // and the chunk is run
		return true
	}
	if n > 1000 && m.dice.roll(4) == 1 {
		// It has made up its mind before it has read everything.
		if _, err := io.CopyN(io.Discard, m.r, 1000); err != nil {
			return false
		}
		m.final()
		goesOn := m.flush()
		if goesOn {
			_, err := io.CopyN(io.Discard, m.r, int64(n-1000))
			goesOn = err == nil
		}
		if !goesOn { // it has spoken of what it did not read
			m.mu.Lock()
			m.open = len(m.taken)
			m.mu.Unlock()
		}
		return goesOn
	}
	if _, err := io.CopyN(io.Discard, m.r, int64(n)); err != nil {
		return false
	}
	m.final()
	return true
}

// final decides about a whole message.
func (m *model) final() {
	if !m.anyone() {
		m.say("554 5.5.1 nobody")
		return
	}
	reply, ok := m.verdict("250 2.0.0 taken")
	if m.behind {
		m.faults = noFault
	}
	if ok {
		m.mu.Lock()
		m.taken[len(m.taken)-1] = append([]bool(nil), m.rcpts...)
		m.mu.Unlock()
	}
	m.say(reply)
	// An end that leaves NOOP without its reply, after one reply too many, is
	// both too much and too little.
	if m.dice.roll(16) == 1 && !(m.confirms && m.faults == tooMany) && !m.behind {
		m.closing = true
	}
}

var fuzzCert = sync.OnceValue(func() tls.Certificate {
	authority, err := ca.New(ca.Options{})
	if err != nil {
		panic(err)
	}
	cert, err := authority.Issue(ca.For("mx.example"))
	if err != nil {
		panic(err)
	}
	return cert
})

// claim is what a report says of a recipient: 2, 4 or 5. It is delivery's table
// in short.
func claim(r *Report, i int) int {
	final := outcome.Final
	if r.Ending == Early {
		final = outcome.Body
	}
	for _, said := range []struct {
		stage outcome.Stage
		code  int
		class int
	}{
		{outcome.MAIL, r.Mail.Code, r.Mail.Class()},
		{outcome.RCPT, r.Rcpts[i].Code, r.Rcpts[i].Class()},
		{outcome.DATA, r.Data.Code, r.Data.Class()},
		{final, r.Final.Code, r.Final.Class()},
	} {
		if said.class == 4 || said.class == 5 {
			if said.code == 421 {
				return 4
			}
			return said.class
		}
	}
	if r.Err == nil && r.Final.Class() == 2 && r.Rcpts[i].Class() == 2 && r.Mail.Class() == 2 && r.Ending != Early {
		return 2
	}
	return 4
}

// FuzzAccounting holds the client to what a model server has accepted: never a
// success that it did not give, never a refusal for good of what it took, and
// always one of the legal endings.
func FuzzAccounting(f *testing.F) {
	for _, seed := range [][]byte{
		{}, {1, 1, 0, 3, 2}, {3, 2, 1, 7, 3, 1, 1, 1, 1}, {7, 3, 1, 2, 3, 2, 0, 1, 2, 1, 0, 3, 1}, {0x1f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		{2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 2}, {0x22, 3, 2, 1, 1, 0, 0, 2, 1, 0, 2, 3}, bytes.Repeat([]byte{1}, 40), bytes.Repeat([]byte{2, 1}, 40),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice{data}
		flags, rcpts, messages, size := d.roll(256), 1+d.roll(3), 1+d.roll(3), []int{1, 3000, 40_000}[d.roll(3)]
		m := &model{
			pipelining: flags&1 != 0, chunking: flags&2 != 0, confirms: flags&4 != 0, unknownBDAT: flags&0x18 == 0x18, behind: flags&0x18 == 0x10,
			dice: dice{append([]byte(nil), d.data...)},
		}
		mode := ChunkingPipelined
		if flags&0x20 != 0 {
			mode = ChunkingWaiting
		}
		useTLS := flags&0xc0 == 0xc0
		client, server := memnet.Pipe(8 << 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			m.hold = &holdingConn{Conn: server}
			m.conn = m.hold
			m.r = bufio.NewReader(m.conn)
			if m.greet(useTLS) {
				m.serve()
			}
		}()
		defer func() { <-done }()
		s, err := Open(t.Context(), client, config())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err = s.Hello(t.Context()); err == nil && useTLS {
			err = s.StartTLS(t.Context(), &tls.Config{InsecureSkipVerify: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		body := strings.Repeat("x\r\n", size/3+1)
		for n := range messages {
			tx := transaction(t, body)
			for i := range rcpts {
				tx.Recipients = append(tx.Recipients, Recipient{Address: addr(t, fmt.Sprintf("b%d@mx.example", i))})
			}
			tx.Chunking, tx.Confirm = mode, m.confirms
			tx.BeforeFinal = func() context.Context { return t.Context() }
			report := send(t, t.Context(), s, tx)
			if !report.Ending.ConnUsable() { // the server still has to find out
				s.Close()
				<-done
			}
			m.mu.Lock()
			var taken []bool
			if len(m.taken) > n {
				taken = m.taken[n]
			}
			open := m.open == n+1
			m.mu.Unlock()
			if open {
				return
			}
			for i := range rcpts {
				got := claim(report, i)
				took := i < len(taken) && taken[i]
				if got == 2 && !took || got == 5 && took {
					t.Fatalf("message %d, recipient %d: the client says %d, the server took it: %v\n%v, %v, %v at %v", n, i, got, took, codes(report), report.Ending, report.Err, report.Stage)
				}
			}
			if !report.Ending.ConnUsable() || report.Final.Code >= 400 || report.Data.Code != 0 && report.Data.Code != 354 || s.Stale() {
				return
			}
			if report.Accepted() == 0 && s.Reset(t.Context()) != nil {
				return
			}
		}
	})
}

func (m *model) greet(useTLS bool) bool {
	io.WriteString(m.conn, "220 mx\r\n")
	keywords := "250-mx\r\n"
	if m.pipelining {
		keywords += "250-PIPELINING\r\n"
	}
	if m.chunking {
		keywords += "250-CHUNKING\r\n"
	}
	if _, err := m.r.ReadString('\n'); err != nil {
		return false
	}
	if !useTLS {
		_, err := io.WriteString(m.conn, keywords+"250 HELP\r\n")
		return err == nil
	}
	io.WriteString(m.conn, "250-mx\r\n250 STARTTLS\r\n")
	if _, err := m.r.ReadString('\n'); err != nil {
		return false
	}
	io.WriteString(m.conn, "220 go\r\n")
	conn := tls.Server(m.hold, &tls.Config{Certificates: []tls.Certificate{fuzzCert()}, SessionTicketsDisabled: true})
	m.conn = conn
	m.r.Reset(conn)
	if _, err := m.r.ReadString('\n'); err != nil {
		return false
	}
	_, err := io.WriteString(m.conn, keywords+"250 HELP\r\n")
	return err == nil
}
