package mx

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// body gathers the content of a message.
type body struct {
	dots   smtpconn.Unstuffer
	length int64 // bytes that came so far, those that were dropped included
	half   bool  // StageBody is behind us
}

// limit returns how many bytes of a body are taken.
func (x *session) limit() int64 {
	if n := x.s.behaviour().RealSize; n > 0 {
		return min(n, int64(x.s.opts.MaxBody))
	}
	return int64(x.s.opts.MaxBody)
}

func (x *session) data(arg string) error {
	refuse := func(reply string) error {
		_, err := x.answer(StageDATA, reply, nil)
		return err
	}
	switch {
	case arg != "":
		x.breach(BadSyntax, "DATA with an argument")
		return refuse(x.coded(501, "5.5.4", "no argument allowed"))
	case x.tx == nil:
		return refuse(x.missing("DATA"))
	case x.tx.Chunks > 0:
		x.breach(BadSequence, "DATA after BDAT")
		return refuse(x.coded(503, "5.5.1", "go on with BDAT"))
	case len(x.tx.Recipients) == 0:
		return refuse(x.coded(554, "5.5.1", "no valid recipients"))
	}
	if ok, err := x.answer(StageDATA, "354 go ahead", nil); err != nil || !ok {
		return err
	}
	x.settle()
	if x.conn.Buffered() > 0 {
		x.breach(Pipelined, "the body came before the reply to DATA")
	}
	if err := x.flush(); err != nil {
		return err
	}
	b := &x.tx.body
	b.dots.Max = int(x.limit())
	for done := false; !done; {
		part, err := x.conn.Next()
		if err != nil {
			return err
		}
		var n int
		n, done = b.dots.Feed(part)
		if err := x.conn.Skip(n); err != nil {
			return err
		}
		if err := x.came(int64(n)); err != nil {
			return err
		}
	}
	return x.final()
}

// came counts bytes of a body and lets the action at StageBody strike at the
// right place.
func (x *session) came(n int64) error {
	b := &x.tx.body
	b.length += n
	if b.half || b.length < x.s.behaviour().HalfBody {
		return nil
	}
	b.half = true
	return x.pass(StageBody)
}

// parseBDAT reads the argument of BDAT (RFC 3030 §2).
func parseBDAT(arg string) (size int64, last bool, err error) {
	count, end, more := strings.Cut(arg, " ")
	if more && !strings.EqualFold(end, "LAST") {
		return 0, false, errSyntax
	}
	n, err := strconv.ParseUint(count, 10, 62)
	if err != nil {
		return 0, false, errSyntax
	}
	return int64(n), more, nil
}

func (x *session) bdat(arg string) error {
	size, last, err := parseBDAT(arg)
	if err != nil || x.offered&Chunking == 0 {
		// Where the chunk ends is unknown, or no business of this server.
		if err != nil {
			x.breach(BadSyntax, "BDAT %.60q", arg)
			x.say(x.coded(501, "5.5.4", "bad syntax"))
		} else {
			x.breach(Unoffered, "BDAT")
			x.say(x.coded(502, "5.5.1", "not implemented"))
		}
		return x.leave(Goodbye)
	}
	reply := ""
	switch {
	case x.tx == nil:
		reply = x.missing("BDAT")
	case x.tx.spoilt:
		reply = x.coded(503, "5.5.1", "a chunk was refused before")
	case len(x.tx.Recipients) == 0:
		reply = x.coded(554, "5.5.1", "no valid recipients")
	}
	if reply != "" {
		if !x.s.behaviour().SpillChunk {
			if err := x.swallow(size); err != nil {
				return err
			}
		}
		if x.tx != nil {
			x.tx.spoilt = true
		}
		_, err := x.answer(StageBDAT, reply, nil)
		return err
	}
	if err := x.chunk(size); err != nil {
		return err
	}
	x.tx.Chunks++
	return x.chunked(size, last)
}

// chunked answers a chunk that was taken in. The last chunk has one reply, the
// final one, unless an action refuses it.
func (x *session) chunked(size int64, last bool) error {
	action := x.s.take(StageBDAT)
	if err := x.strike(action); err != nil {
		return err
	}
	if last && (action.Reply == "" || positive(action.Reply)) {
		return x.final()
	}
	ok, err := x.conclude(action, x.coded(250, "2.0.0", fmt.Sprintf("%d bytes received", size)), nil)
	if err != nil {
		return err
	}
	if !ok {
		x.tx.spoilt = true
		if last {
			x.s.update(func(st *store) { st.counters.Refused++ })
			x.tx = nil
		}
		return nil
	}
	return nil
}

// chunk takes in the content of a BDAT command.
func (x *session) chunk(size int64) error {
	b := &x.tx.body
	limit := x.limit()
	for size > 0 {
		part, err := x.conn.Next()
		if err != nil {
			return err
		}
		n := min(int64(len(part)), size)
		room := max(limit-int64(len(b.dots.Text)), 0)
		b.dots.Text = append(b.dots.Text, part[:min(n, room)]...)
		b.dots.Long = b.dots.Long || n > room
		size -= n
		if err := x.conn.Skip(int(n)); err != nil {
			return err
		}
		if err := x.came(n); err != nil {
			return err
		}
	}
	return nil
}

// swallow reads a chunk that nothing wants.
func (x *session) swallow(size int64) error {
	for size > 0 {
		part, err := x.conn.Next()
		if err != nil {
			return err
		}
		n := min(int64(len(part)), size)
		size -= n
		if err := x.conn.Skip(int(n)); err != nil {
			return err
		}
	}
	return nil
}

// final judges a whole body and ends the transaction.
func (x *session) final() error {
	tx := x.tx
	flights := x.conn.Flights() - tx.flight + 1
	content := tx.body.dots.Text
	x.inspect(content)
	id := fmt.Sprintf("LAB%d", x.s.ids.Add(1))
	own := x.coded(250, "2.0.0", "queued as "+id)
	if tx.body.dots.Long {
		own = x.coded(552, "5.3.4", "message too big")
	}
	stored := false
	ok, err := x.answer(StageFinal, own, func(string) {
		stored = true
		x.messages++
		m := tx.Message
		m.ID, m.Conn, m.OnConn, m.Hello = id, x.number, x.messages, x.hello
		m.Body, m.Length = content, len(content)
		m.Flights, m.TLS = flights, x.conn.State()
		x.s.keep(m)
	})
	if !stored {
		x.s.update(func(st *store) { st.counters.Refused++ })
	}
	if err != nil {
		return err
	}
	x.tx, x.last = nil, false
	if !ok {
		return nil
	}
	return x.pass(StageDone)
}

// inspect notes what is wrong with a message's content.
func (x *session) inspect(content []byte) {
	for _, breach := range breaches(content) {
		x.breach(breach, "in the body")
	}
	if n := len(content); x.tx.Chunks > 0 && (n < 2 || string(content[n-2:]) != "\r\n") {
		x.breach(NoLastCRLF, "in the body")
	}
	value, _ := x.tx.Param("BODY")
	_, utf8 := x.tx.Param("SMTPUTF8")
	if !strings.EqualFold(value, "8BITMIME") && !utf8 && !isASCII(content) {
		x.breach(EightBit, "in the body")
	}
}

// breaches finds what may not be in a body: bare CR, bare LF, NUL, lines over
// 998 bytes (RFC 5322 §2.1.1). It names each breach once.
func breaches(content []byte) []Breach {
	var bareCR, bareLF, nul, long bool
	start := 0
	for i, b := range content {
		switch b {
		case '\r':
			if i+1 == len(content) || content[i+1] != '\n' {
				bareCR = true
			}
		case '\n':
			if i == 0 || content[i-1] != '\r' {
				bareLF = true
				continue
			}
			long = long || i-1-start > 998
			start = i + 1
		case 0:
			nul = true
		}
	}
	long = long || len(content)-start > 998
	var found []Breach
	for _, f := range []struct {
		is     bool
		breach Breach
	}{{bareCR, BareCR}, {bareLF, BareLF}, {nul, Control}, {long, LongLine}} {
		if f.is {
			found = append(found, f.breach)
		}
	}
	return found
}
