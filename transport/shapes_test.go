package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
	"github.com/mxpipe/mxpipe/transport/status"
)

// A shape is what a server's replies to one message look like. One reply is too
// many, or missing, or none is; the server itself is sound, and knows what it
// has accepted.
type shape struct {
	// the command that has it: MAIL, RCPT (the first), FINAL; empty: nothing is
	// wrong
	at     string
	extra  string // the reply too many; empty: the one that is due is missing
	before bool   // it comes before the true one
	late   bool   // the last reply of the two comes late
	pause  bool   // what follows the two comes late
	truth  string // the true reply to the message
	// The server is one reply behind: what follows the reply too many waits for
	// the command after the one that it is due to.
	behind  bool
	uncoded bool // it says no enhanced codes
	// the recipient that it takes is the last one
	last bool
}

func (s shape) String() string {
	switch {
	case s.at == "":
		return "sound, " + s.truth
	case s.extra == "":
		return "no reply to " + s.at + ", " + s.truth
	case s.behind:
		codes, who := "codes", "first"
		if s.uncoded {
			codes = "no codes"
		}
		if s.last {
			who = "last"
		}
		return fmt.Sprintf("%s before %s's, one behind, %s, taken %s, %s", s.extra, s.at, codes, who, s.truth)
	case s.pause && s.before:
		return fmt.Sprintf("%s before %s's, then a pause, %s", s.extra, s.at, s.truth)
	case s.pause:
		return fmt.Sprintf("%s after %s's, then a pause, %s", s.extra, s.at, s.truth)
	case s.before && s.late:
		return fmt.Sprintf("%s before %s's, which is late, %s", s.extra, s.at, s.truth)
	case s.before:
		return fmt.Sprintf("%s before %s's, %s", s.extra, s.at, s.truth)
	}
	return fmt.Sprintf("%s after %s's, %s", s.extra, s.at, s.truth)
}

// A shapeMode is a way to send a message.
type shapeMode struct {
	name     string
	keywords []string
	chunking Chunking
}

var shapeModes = []shapeMode{
	{"one flight", []string{"PIPELINING", "CHUNKING"}, ChunkingPipelined},
	{"waiting BDAT", []string{"PIPELINING", "CHUNKING"}, ChunkingWaiting},
	{"DATA", []string{"PIPELINING"}, ChunkingPipelined},
	{"in sequence", nil, ChunkingPipelined},
	{"in sequence, BDAT", []string{"CHUNKING"}, ChunkingPipelined},
}

// chunked says whether the message goes by BDAT.
func (m *shapeMode) chunked() bool {
	for _, k := range m.keywords {
		if k == "CHUNKING" {
			return true
		}
	}
	return false
}

// The ways in which the replies to one flight travel.
const (
	inOneSegment  = "one segment"
	inSegments    = "segments"
	inTLSRecords  = "TLS records"
	inOneTLSWrite = "one TLS record"
)

// shapeCell is one cell of the table.
type shapeCell struct {
	number int
	shape
	mode   *shapeMode
	travel string
	warm   bool // the shape is that of the second message over the connection
	// the connection is fresh, and the host is trusted after another
	trusted bool
}

func (c *shapeCell) String() string {
	conn := "fresh"
	if c.warm {
		conn = "warm"
	} else if c.trusted {
		conn = "trusted"
	}
	return fmt.Sprintf("%s, %s, %s: %v", c.mode.name, conn, c.travel, c.shape)
}

func (c *shapeCell) domain() string { return fmt.Sprintf("d%d.example", c.number) }

// recipients are one whom the server takes, and one whom it does not.
func (c *shapeCell) recipients() []string {
	taken, nobody := "taken@"+c.domain(), "nobody@"+c.domain()
	if c.last {
		return []string{nobody, taken}
	}
	return []string{taken, nobody}
}

func (c *shapeCell) tls() bool { return strings.Contains(c.travel, "TLS") }

// shapeCells generates the table.
func shapeCells() (cells []*shapeCell) {
	var shapes []shape
	for _, truth := range []string{"250 2.0.0 taken", "451 4.3.0 later", "550 5.7.1 no"} {
		shapes = append(shapes, shape{truth: truth})
		for _, at := range []string{"MAIL", "RCPT", "FINAL"} {
			shapes = append(shapes, shape{at: at, truth: truth})
			for _, extra := range []string{"250 2.0.0 ok", "354 go", "450 4.2.0 later", "550 5.1.1 no", "421 4.3.2 closing", "what?"} {
				for _, before := range []bool{true, false} {
					shapes = append(shapes, shape{at: at, extra: extra, before: before, truth: truth})
				}
			}
		}
		for _, extra := range []string{"250 2.0.0 ok", "550 5.1.1 no", "421 4.3.2 closing"} {
			shapes = append(shapes, shape{at: "FINAL", extra: extra, before: true, late: true, truth: truth})
			for _, before := range []bool{true, false} {
				shapes = append(shapes, shape{at: "FINAL", extra: extra, before: before, pause: true, truth: truth})
			}
		}
	}
	for i := range shapeModes {
		mode := &shapeModes[i]
		for _, warm := range []bool{false, true} {
			for _, travel := range []string{inOneSegment, inSegments, inTLSRecords, inOneTLSWrite} {
				for _, s := range shapes {
					if !knowable(s, mode, travel, warm) {
						continue
					}
					cells = append(cells, &shapeCell{number: len(cells), shape: s, mode: mode, travel: travel, warm: warm})
				}
			}
		}
		for _, s := range shapesBehind() {
			for _, trusted := range []bool{false, true} {
				if knowableBehind(s, mode, trusted) {
					cells = append(cells, &shapeCell{number: len(cells), shape: s, mode: mode, travel: inOneSegment, warm: !trusted, trusted: trusted})
				}
			}
		}
	}
	return cells
}

// shapesBehind are those of a server that is one reply behind.
func shapesBehind() (shapes []shape) {
	for _, truth := range []string{"250 2.0.0 taken", "451 4.7.1 later", "550 5.7.1 no"} {
		for _, at := range []string{"MAIL", "RCPT", "FINAL"} {
			for _, extra := range []string{"250 2.0.0 stray", "250 2.1.5 ok", "354 go", "450 4.2.0 later", "550 5.1.1 no"} {
				for _, uncoded := range []bool{false, true} {
					for _, last := range []bool{false, true} {
						shapes = append(shapes, shape{at: at, extra: extra, before: true, behind: true, uncoded: uncoded, last: last, truth: truth})
					}
				}
			}
		}
	}
	return shapes
}

// knowableBehind says whether a client that says no NOOP can find out that the
// server is one reply behind. A second word to the message itself that accepts
// it cannot be found out, nor, after DATA, one that refuses it; nor can one to
// another command where nothing tells the replies to recipients from those to
// messages: no enhanced code, and no message before on this connection
// (docs/reliability.md).
func knowableBehind(s shape, mode *shapeMode, trusted bool) bool {
	addressed := !s.uncoded && (strings.HasPrefix(s.extra, "250 2.1.") || strings.HasPrefix(s.extra, "550 5.1."))
	switch {
	case s.at != "FINAL":
		return !s.uncoded || !trusted
	case s.extra[0] == '2', s.extra[0] == '5' && !mode.chunked():
		return addressed
	}
	return true
}

// knowable says whether a client can find out that something is wrong, and
// whether a cell tells more than another.
func knowable(s shape, mode *shapeMode, travel string, warm bool) bool {
	confirms := !warm && mode.chunked() // NOOP follows the message
	switch {
	case s.at == "":
		return true
	case travel == inSegments:
		return false // what is too many may not have arrived yet
	case travel == inOneTLSWrite && s.at != "FINAL":
		return false // it would be, as in one segment; this is for time
	case (s.late || s.pause) && !confirms:
		return false // it has gone with what it was told first
	case s.extra == "" && confirms:
		// NOOP's reply stands in for it, and NOOP's own may be missing (DESIGN
		// §7)
		return false
	}
	return true
}

// TestReplyShapes sends messages to servers whose replies to one of them are
// not as many as the commands, in all ways of sending, over fresh and warm
// connections, and asks the servers what they have accepted: never a success
// that the server did not give, never a refusal for good of what it took. The
// message that follows is held to the same.
func TestReplyShapes(t *testing.T) {
	t.Parallel()
	cells := shapeCells()
	if len(cells) < 400 {
		t.Fatalf("%d cells, at least 400 are wanted", len(cells))
	}
	l := newLab(t)
	cert := l.cert(ca.For("mx.example"))
	transports := map[Chunking]*Transport{}
	l.idle = NewIdle(1000)
	for _, chunking := range []Chunking{ChunkingPipelined, ChunkingWaiting} {
		l.start(func(c *Config) { c.Chunking = chunking })
		transports[chunking] = l.transport
	}
	t.Cleanup(l.idle.Stop) // before the transports are closed
	addrs := make([]string, len(cells))
	for i, c := range cells {
		addrs[i] = l.address()
		l.zone("%s. MX 10 mx.%s.\nmx.%s. A %s", c.domain(), c.domain(), c.domain(), addrs[i])
	}
	var all errgroup.Group
	all.SetLimit(32)
	for i, c := range cells {
		all.Go(func() error {
			s, err := startShaped(c, fmt.Sprintf("%s:%d", addrs[i], l.port), cert)
			if err != nil {
				return err
			}
			defer s.stop()
			deliver := func() []Result {
				results := transports[c.mode.chunking].Deliver(t.Context(), envelope(c.recipients()...), msg(t, text))
				if c.last {
					results[0], results[1] = results[1], results[0]
				}
				return results
			}
			switch {
			case c.behind:
				// To one recipient: an uncoded refusal in a host's first
				// message ends the connection.
				results := transports[c.mode.chunking].Deliver(t.Context(), envelope("taken@"+c.domain()), msg(t, text))
				s.judge(t, "the message before", append(results, Result{Code: status.New(status.Permanent, 1, 1)}))
			case c.warm:
				s.judge(t, "the message before", deliver())
			}
			if c.trusted {
				s.drop()
			}
			s.apply()
			s.judge(t, "the message", deliver())
			s.judge(t, "the message after", deliver())
			return nil
		})
	}
	l.must(all.Wait())
	t.Logf("%d cells", len(cells))
}

// shaped is the server of a cell.
type shaped struct {
	cell     *shapeCell
	cert     tls.Certificate
	listener net.Listener
	wg       sync.WaitGroup
	// what comes late comes when it is closed; nil: some time later
	goOn chan struct{}

	mu   sync.Mutex
	next bool // the shape is that of the next message
	// how often it said 2yz to a whole message, and meant it, since the last
	// judgement
	taken   int
	rounds  int
	datas   int // messages by DATA
	open    map[net.Conn]bool
	stopped bool
}

func startShaped(c *shapeCell, addr string, cert tls.Certificate) (*shaped, error) {
	listener, err := forks.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &shaped{cell: c, cert: cert, listener: listener, open: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open[conn] = true
			stopped := s.stopped
			s.mu.Unlock()
			if stopped {
				conn.Close()
				continue
			}
			s.wg.Go(func() {
				defer conn.Close()
				(&shapedConn{shaped: s, conn: smtpconn.New(conn, smtpconn.Options{})}).serve()
			})
		}
	})
	return s, nil
}

func (s *shaped) stop() {
	s.listener.Close()
	s.mu.Lock()
	s.stopped = true
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// drop closes the connections that there are, and waits until the client must
// have seen it.
func (s *shaped) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
		delete(s.open, conn)
	}
}

// apply has the next message get the shape.
func (s *shaped) apply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = true
}

// judge holds the results of a message to what the server has accepted.
func (s *shaped) judge(t *testing.T, what string, results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.taken
	s.taken = 0
	s.rounds++
	ok, nobody := results[0], results[1]
	story := fmt.Sprintf("%v: %s: taken %d times, %v %s / %v %s", s.cell, what, taken, ok.Code, ok.Text, nobody.Code, nobody.Text)
	switch {
	case ok.Code.Class == 2 && taken == 0:
		t.Errorf("a success that the server did not give: %s", story)
	case ok.Code.Class == 5 && taken > 0:
		t.Errorf("a bounce of what the server took: %s", story)
	case nobody.Code.Class == 2:
		t.Errorf("a success for no one: %s", story)
	case taken > 3:
		t.Errorf("too many copies: %s", story)
	}
	if s.cell.at != "" && what == "the message" {
		return
	}
	// Where nothing is wrong, the answer is the server's.
	want := map[byte]int{'2': 2, '4': 4, '5': 5}[s.cell.truth[0]]
	if what != "the message" {
		want = 2
	}
	if int(ok.Code.Class) != want || nobody.Code.Class != 5 || want == 2 && taken != 1 {
		if what == "the message after" && s.cell.at != "" && ok.Code.Class == 4 {
			return // a late word of the message before
		}
		t.Errorf("a sound dialogue went wrong: %s", story)
	}
}

// shapedConn is one connection to it.
type shapedConn struct {
	*shaped
	conn  *smtpconn.Conn
	out   []string // replies that wait for the end of the flight
	due   int      // commands that the client waits for the replies to
	shape shape    // of the message under way
	rcpts int      // asked for
	ok    int      // accepted
	// a reply was left out, so that the client may wait for ever
	missing bool
}

func (x *shapedConn) serve() {
	x.conn.Write([]byte("220 mx\r\n"))
	for {
		if x.conn.Buffered() == 0 {
			if x.flush(); x.missing {
				return
			}
		}
		line, err := x.conn.ReadLine(2000)
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			x.ehlo()
		case "STARTTLS":
			x.conn.Write([]byte("220 go\r\n"))
			config := &tls.Config{Certificates: []tls.Certificate{x.cert}, SessionTicketsDisabled: true}
			if x.conn.StartTLS(context.Background(), config) != nil {
				return
			}
		case "MAIL":
			x.begin()
			x.answer("MAIL", "250 2.1.0 ok")
		case "RCPT":
			x.rcpts++
			reply, at := "250 2.1.5 ok", "RCPT"
			if strings.Contains(arg, "nobody") {
				reply, at = "550 5.1.1 nobody", ""
			} else {
				x.ok++
			}
			x.answer(at, reply)
		case "DATA":
			x.mu.Lock()
			x.datas++
			x.mu.Unlock()
			if x.ok == 0 {
				x.answer("", "554 5.5.1 no recipients")
				continue
			}
			x.answer("", "354 go")
			x.flush()
			if x.missing || !x.data() {
				return
			}
			x.final()
		case "BDAT":
			size, _, _ := strings.Cut(arg, " ")
			n, err := strconv.Atoi(size)
			if err != nil || x.conn.ReadFull(make([]byte, n)) != nil {
				return
			}
			x.final()
		case "QUIT":
			x.answer("", "221 bye")
			x.flush()
			return
		default:
			x.answer("", "250 2.0.0 ok")
		}
	}
}

func (x *shapedConn) ehlo() {
	lines := append([]string{"mx"}, x.cell.mode.keywords...)
	if x.cell.tls() && x.conn.State() == nil {
		lines = append(lines, "STARTTLS")
	}
	var b strings.Builder
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		b.WriteString("250" + sep + line + "\r\n")
	}
	x.conn.Write([]byte(b.String()))
}

// begin starts a transaction.
func (x *shapedConn) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rcpts, x.ok = 0, 0
	x.shape = shape{truth: "250 2.0.0 taken", uncoded: x.cell.uncoded}
	if x.next {
		x.next = false
		x.shape = x.cell.shape
	}
}

// data reads a message up to its dot.
func (x *shapedConn) data() bool {
	for {
		line, err := x.conn.ReadLine(2000)
		if err != nil || string(line) == ".\r\n" {
			return err == nil
		}
		if len(x.out) > 0 { // it is behind with its 354
			x.due = len(x.out)
			x.flush()
		}
	}
}

// final answers the message.
func (x *shapedConn) final() {
	if x.ok == 0 {
		x.answer("", "554 5.5.1 no recipients")
		return
	}
	if x.shape.truth[0] == '2' {
		x.mu.Lock()
		x.taken++
		x.mu.Unlock()
	}
	x.answer("FINAL", x.shape.truth)
}

// answer gives the reply to a command, in the shape that it has.
func (x *shapedConn) answer(at, reply string) {
	s := &x.shape
	x.due++
	switch {
	case at == "" || at != s.at:
		x.out = append(x.out, reply)
	case s.extra == "":
		x.missing = true
	case s.before:
		x.out = append(x.out, s.extra)
		if s.late {
			x.flush()
			x.wait()
		}
		x.out = append(x.out, reply)
	default:
		x.out = append(x.out, reply, s.extra)
	}
	if at == s.at && s.pause {
		x.flush()
		time.Sleep(3 * time.Millisecond)
	}
	if at == s.at {
		s.at = "" // once
	}
}

// wait is for what comes late.
func (x *shapedConn) wait() {
	if x.goOn != nil {
		<-x.goOn
		return
	}
	time.Sleep(3 * time.Millisecond)
}

// flush sends what waits.
func (x *shapedConn) flush() {
	var behind []string
	if x.shape.behind && len(x.out) > x.due {
		x.out, behind = x.out[:x.due], x.out[x.due:]
	}
	defer func() { x.out, x.due = behind, 0 }()
	for i, reply := range x.out {
		if x.shape.uncoded {
			reply = withoutCode(reply)
		}
		x.out[i] = reply + "\r\n"
	}
	switch {
	case len(x.out) == 0:
	case x.cell.travel == inTLSRecords:
		x.conn.WriteTogether(x.out...)
	case x.cell.travel == inSegments:
		for _, reply := range x.out {
			x.conn.Write([]byte(reply))
		}
	default:
		x.conn.Write([]byte(strings.Join(x.out, "")))
	}
}

// withoutCode takes the enhanced code out of a reply.
func withoutCode(reply string) string {
	code, text, _ := strings.Cut(reply, " ")
	if enhanced, rest, ok := strings.Cut(text, " "); ok && strings.Count(enhanced, ".") == 2 {
		text = rest
	}
	return code + " " + text
}
