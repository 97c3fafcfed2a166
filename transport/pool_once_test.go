package transport

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/session"
)

// flight is what a client sends at once, and what the server answers to it.
type flight struct {
	lines   int    // commands
	content string // what follows them: "chunk", "data" or nothing
	reply   string
}

// manner is a way to speak SMTP.
type manner struct {
	name     string
	keywords []string
	chunking Chunking
	flights  []flight // of one message for one recipient
	tls      bool
}

const taken = "250-2.0.0 ok\r\n250 2.0.0 queued\r\n"

var manners = []manner{
	{"CHUNKING in one flight", []string{"PIPELINING", "CHUNKING"}, ChunkingPipelined,
		[]flight{{2, "chunk", "250 ok\r\n250 ok\r\n" + taken}}, false},
	{"CHUNKING in one flight, TLS", []string{"PIPELINING", "CHUNKING"}, ChunkingPipelined,
		[]flight{{2, "chunk", "250 ok\r\n250 ok\r\n" + taken}}, true},
	{"CHUNKING after the replies", []string{"PIPELINING", "CHUNKING"}, ChunkingWaiting,
		[]flight{{2, "", "250 ok\r\n250 ok\r\n"}, {0, "chunk", taken}}, false},
	{"PIPELINING", []string{"PIPELINING"}, ChunkingPipelined,
		[]flight{{3, "", "250 ok\r\n250 ok\r\n354 go\r\n"}, {0, "data", taken}}, false},
	{"PIPELINING, TLS", []string{"PIPELINING"}, ChunkingPipelined,
		[]flight{{3, "", "250 ok\r\n250 ok\r\n354 go\r\n"}, {0, "data", taken}}, true},
	{"one by one", nil, ChunkingPipelined,
		[]flight{{1, "", "250 ok\r\n"}, {1, "", "250 ok\r\n"}, {1, "", "354 go\r\n"}, {0, "data", taken}}, false},
	{"one by one, CHUNKING", []string{"CHUNKING"}, ChunkingPipelined,
		[]flight{{1, "", "250 ok\r\n"}, {1, "", "250 ok\r\n"}, {0, "chunk", taken}}, false},
}

// reading is how much of a flight the server takes in before it breaks off.
type reading int

const (
	readAll reading = iota
	// at least one byte; what is left unread makes the kernel reset the
	// connection
	readHalf
	readNone // it does not even wait for the flight
)

// end is how a warm transaction ends: after so many bytes of the replies.
type end struct {
	at      int
	reading reading
	// "close", "reset", or "goodbye" for one with TLS's close_notify
	how string
}

// fickle is a server that breaks off the second transaction of the first
// connection. It accepts a message when it has read the whole of it, before it
// says a word: the worst that a server can do.
type fickle struct {
	manner   *manner
	cert     tls.Certificate
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	end    end
	conns  int
	copies int
	broken chan struct{} // closed when it broke off
	held   chan struct{} // waited for before that; nil: not
}

func (l *lab) fickle(name string, m *manner) *fickle {
	l.t.Helper()
	addr := l.address()
	f := &fickle{manner: m, cert: l.cert(ca.For(name))}
	var err error
	f.listener, err = forks.Listen("tcp", fmt.Sprintf("%s:%d", addr, l.port))
	l.must(err)
	l.zone("%s. A %s", name, addr)
	f.wg.Go(func() {
		for {
			conn, err := f.listener.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(conn.(*net.TCPConn)) })
		}
	})
	l.t.Cleanup(func() {
		f.listener.Close()
		f.wg.Wait()
	})
	return f
}

// plan begins a new round.
func (f *fickle) plan(e end) (broken <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end, f.conns, f.copies, f.broken, f.held = e, 0, 0, make(chan struct{}), nil
	return f.broken
}

// hold has it break off only when the channel is closed.
func (f *fickle) hold() chan<- struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = make(chan struct{})
	return f.held
}

// seen gives the connections and copies of this round.
func (f *fickle) seen() (conns, copies int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns, f.copies
}

func (f *fickle) serve(raw *net.TCPConn) {
	defer raw.Close()
	f.mu.Lock()
	f.conns++
	first, e, broken, held := f.conns == 1, f.end, f.broken, f.held
	f.mu.Unlock()
	raw.SetDeadline(time.Now().Add(time.Minute))
	s := &fickleSession{fickle: f, raw: raw, conn: raw, r: bufio.NewReader(raw)}
	if !s.greet() {
		return
	}
	for n := 1; ; n++ {
		if first && n == 2 {
			if held != nil {
				<-held
			}
			s.breakOff(e)
			close(broken)
			return
		}
		for i, fl := range f.manner.flights {
			if !s.answer(fl) {
				return
			}
			if first && n == 1 && i == len(f.manner.flights)-1 && fl.content == "chunk" && !s.noop() {
				return
			}
		}
	}
}

// noop answers the NOOP after the first message by BDAT.
func (s *fickleSession) noop() bool { return s.line() && s.write("250 2.0.0 noop\r\n") }

type fickleSession struct {
	*fickle
	raw  *net.TCPConn
	conn net.Conn
	r    *bufio.Reader
}

func (s *fickleSession) greet() bool {
	ehlo := func(last ...string) bool {
		lines := append(append([]string{"mx"}, s.manner.keywords...), last...)
		var b strings.Builder
		for i, line := range lines {
			b.WriteString("250" + map[bool]string{true: " ", false: "-"}[i == len(lines)-1] + line + "\r\n")
		}
		return s.line() && s.write(b.String())
	}
	if !s.write("220 mx\r\n") {
		return false
	}
	if !s.manner.tls {
		return ehlo()
	}
	if !ehlo("STARTTLS") || !s.line() || !s.write("220 go\r\n") {
		return false
	}
	s.conn = tls.Server(s.raw, &tls.Config{Certificates: []tls.Certificate{s.cert}})
	s.r.Reset(s.conn)
	return ehlo()
}

func (s *fickleSession) line() bool { _, err := s.r.ReadString('\n'); return err == nil }

func (s *fickleSession) write(text string) bool {
	_, err := io.WriteString(s.conn, text)
	return err == nil
}

// answer takes in a flight and answers it.
func (s *fickleSession) answer(fl flight) bool {
	reply, ok := s.read(fl)
	return ok && s.write(reply)
}

// read takes in a flight, and accepts the message when that was its end. It
// gives the reply that is due.
func (s *fickleSession) read(fl flight) (reply string, ok bool) {
	for range fl.lines {
		if !s.line() {
			return "", false
		}
	}
	reply = fl.reply
	switch fl.content {
	case "":
		return reply, true
	case "chunk":
		line, err := s.r.ReadString('\n')
		if err != nil {
			return "", false
		}
		if line == "DATA\r\n" {
			// What it had said while it was idle were replies too many, and who
			// is out of step is given DATA.
			if !s.write(strings.TrimSuffix(reply, taken)+"354 go\r\n") || !s.data() {
				return "", false
			}
			reply = taken
			break
		}
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, "BDAT "), " LAST\r\n"))
		if err != nil {
			return "", false
		}
		if _, err := io.CopyN(io.Discard, s.r, int64(n)); err != nil {
			return "", false
		}
	case "data":
		if !s.data() {
			return "", false
		}
	}
	s.mu.Lock()
	s.copies++
	s.mu.Unlock()
	return reply, true
}

// data takes in what follows DATA.
func (s *fickleSession) data() bool {
	var got []byte
	for !bytes.HasSuffix(got, []byte("\r\n.\r\n")) {
		line, err := s.r.ReadBytes('\n')
		if err != nil {
			return false
		}
		got = append(got, line...)
	}
	return true
}

// breakOff plays a transaction up to its end.
func (s *fickleSession) breakOff(e end) {
	i, left := s.manner.last(e)
	for _, fl := range s.manner.flights[:i] {
		if !s.answer(fl) {
			return
		}
	}
	fl := s.manner.flights[i]
	switch e.reading {
	case readAll:
		if _, ok := s.read(fl); !ok {
			return
		}
	case readHalf:
		s.raw.Read(make([]byte, 10))
	}
	s.write(fl.reply[:left])
	switch e.how {
	case "reset":
		s.raw.SetLinger(0)
	case "goodbye":
		s.conn.Close()
	}
	s.raw.Close()
}

// last gives the flight that a transaction ends in, and how much of the reply
// to it gets out. An end between two flights belongs to the later one.
func (m *manner) last(e end) (i, left int) {
	left = e.at
	for i < len(m.flights)-1 && left >= len(m.flights[i].reply) {
		left -= len(m.flights[i].reply)
		i++
	}
	return i, left
}

// replies is the length of all replies of a transaction.
func (m *manner) replies() (n int) {
	for _, fl := range m.flights {
		n += len(fl.reply)
	}
	return n
}

// ends lists every way in which a transaction can be broken off.
func (m *manner) ends() (list []end) {
	ways := []string{"close", "reset"}
	readings := []reading{readAll, readHalf, readNone}
	if m.tls {
		ways = append(ways, "goodbye")
		// what is left of a TLS record says no more than a whole one
		readings = readings[:1]
	}
	for at := range m.replies() + 1 {
		for _, how := range ways {
			for _, r := range readings {
				if r == readAll || at < m.replies() {
					list = append(list, end{at, r, how})
				}
			}
		}
	}
	return list
}

// knowable says whether the client can know what became of the message: it
// has the whole reply to it, or it has not yet sent the end of it, or it finds
// the connection closed before it begins.
func (m *manner) knowable(e end) bool {
	i, left := m.last(e)
	fl := m.flights[i]
	return fl.content == "" || e.reading == readAll && left == len(fl.reply) || e.reading == readNone && i == 0
}

// unanswered says whether the connection ends before a byte of a reply came to
// the flight that the message was in. The message goes on then, as the mail
// server would have it go on some minutes later, at the same risk.
func (m *manner) unanswered(e end) bool {
	i, left := m.last(e)
	return i == 0 && left == 0 && m.flights[0].content != ""
}

// TestOnce breaks a warm transaction off at each byte of the replies, however
// much was read by then, and counts the copies: one whenever the client can
// know what became of the message, and otherwise what the server made of it
// and no second one; then the answer is temporary. Only where the server said
// not a word the message goes on over a second connection, and the event tells
// it wherever that made a second copy.
func TestOnce(t *testing.T) {
	t.Parallel()
	for i := range manners {
		m := &manners[i]
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.fickle("mx1.a.example", m)
			w := l.watch()
			l.zone("a.example. MX 10 mx1.a.example.")
			l.startPooled(func(c *Config) { c.Chunking, c.ConnReuseLimit = m.chunking, 1000 })
			t.Cleanup(l.idle.Stop) // before the server is waited for
			for _, e := range m.ends() {
				what := fmt.Sprintf("%+v", e)
				broken := server.plan(e)
				i, _ := m.last(e)
				// it dies while it is idle
				idle := i == 0 && e.reading == readNone
				var hold chan<- struct{}
				if idle {
					hold = server.hold()
				}
				expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
				if idle {
					close(hold)
					<-broken
				}
				r := l.send("b@a.example")[0]
				<-broken
				conns, copies := server.seen()
				copies-- // the first message
				events := w.take()
				resent := events[len(events)-1].Resent
				if resent != 0 && !m.unanswered(e) || resent != 1 && copies == 2 {
					t.Errorf("%s: sent again %d times, says the event; %d copies", what, resent, copies)
				}
				switch {
				case m.unanswered(e) && r.Code.Class == 2 && conns == 2 && (copies == 1 || copies == 2 && e.reading == readAll):
				case copies > 1, m.unanswered(e):
					t.Errorf("%s: %d copies over %d connections, and the answer is %v %s", what, copies, conns, r.Code, r.Text)
				case r.Code.Class == 2 && copies == 1:
				case r.Code.Class == 4 && !m.knowable(e) && conns == 1 && (e.reading != readAll || copies == 1):
				default:
					t.Errorf("%s: %d copies over %d connections, and the answer is %v %s", what, copies, conns, r.Code, r.Text)
				}
				server.plan(end{}) // nothing breaks off what is left
				l.idle.Retire(func(session.IdleConn) bool { return true })
				// a broken BDAT shall not be avoided here
				l.transport.base.delivery.Hosts = delivery.NewHosts()
			}
		})
	}
}

// A connection dies after it was taken out of the pool and before the first
// command: the kernel's counters prove that nothing of the message arrived.
func TestOnceWhenTheIdleDies(t *testing.T) {
	t.Parallel()
	for i := range manners {
		m := &manners[i]
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for _, how := range []string{"close", "reset"} {
				l := newLab(t)
				server := l.fickle("mx1.a.example", m)
				l.zone("a.example. MX 10 mx1.a.example.")
				l.startPooled(func(c *Config) { c.Chunking, c.Limits[limit.IP] = m.chunking, limit.Limit{Concurrency: 1} })
				t.Cleanup(l.idle.Stop)
				broken := server.plan(end{0, readNone, how})
				hold := server.hold()
				expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
				// While this place is taken, the second delivery waits with the
				// connection in its hand.
				place := l.transport.base.limits.Permit()
				addr, _, _ := net.SplitHostPort(server.listener.Addr().String())
				l.must(place.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: addr}))
				second := make(chan Result)
				go func() { second <- l.send("b@a.example")[0] }()
				for l.transport.base.limits.Stats(limit.IP).Waiting == 0 {
					time.Sleep(time.Millisecond)
				}
				close(hold)
				<-broken
				place.Release()
				r := <-second
				if conns, copies := server.seen(); r.Code.Class != 2 || copies != 2 || conns != 2 || strings.Contains(r.Text, "reused") {
					t.Errorf("%s: %d messages over %d connections, %v %s", how, copies, conns, r.Code, r.Text)
				}
			}
		})
	}
}
