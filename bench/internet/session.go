package internet

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
)

// bufferSize is one TLS record: a message of ordinary size in one read.
const bufferSize = 16 << 10

// errOver ends a session in good order.
var errOver = errors.New("the client said QUIT")

// session is one connection.
type session struct {
	*Sink
	conn   net.Conn
	r      *bufio.Reader
	out    []byte
	secure bool
	rcpts  int
}

func (x *session) run() {
	x.r = bufio.NewReaderSize(x.conn, bufferSize)
	x.say("220 sink.bench ESMTP\r\n")
	for {
		// Replies gather for as long as there are commands to read (RFC 2920
		// §3.2).
		if x.r.Buffered() == 0 && x.flush() != nil {
			return
		}
		line, err := x.r.ReadSlice('\n')
		if err != nil {
			return
		}
		if err := x.command(bytes.TrimRight(line, "\r\n")); err != nil {
			x.flush()
			return
		}
	}
}

func (x *session) say(reply string) { x.out = append(x.out, reply...) }

func (x *session) flush() error {
	if len(x.out) == 0 {
		return nil
	}
	x.flights.Add(1)
	_, err := x.conn.Write(x.out)
	x.out = x.out[:0]
	return err
}

func (x *session) command(line []byte) error {
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	switch strings.ToUpper(string(verb)) {
	case "EHLO":
		x.hello()
	case "HELO", "RSET", "NOOP":
		x.rcpts = 0
		x.say("250 2.0.0 ok\r\n")
	case "STARTTLS":
		return x.startTLS()
	case "MAIL":
		x.rcpts = 0
		x.say("250 2.1.0 ok\r\n")
	case "RCPT":
		x.rcpts++
		x.say("250 2.1.5 ok\r\n")
	case "DATA":
		return x.data()
	case "BDAT":
		return x.chunk(string(arg))
	case "QUIT":
		x.say("221 2.0.0 bye\r\n")
		return errOver
	default:
		x.say("500 5.5.2 what?\r\n")
	}
	return nil
}

func (x *session) hello() {
	x.say("250-sink.bench\r\n")
	if !x.secure && !x.options.Plaintext {
		x.say("250-STARTTLS\r\n")
	}
	if !x.options.NoPipelining {
		x.say("250-PIPELINING\r\n")
	}
	if !x.options.NoChunking {
		x.say("250-CHUNKING\r\n")
	}
	x.say("250-8BITMIME\r\n250-SIZE 104857600\r\n250 ENHANCEDSTATUSCODES\r\n")
}

func (x *session) startTLS() error {
	x.say("220 2.0.0 go\r\n")
	if err := x.flush(); err != nil {
		return err
	}
	conn := tls.Server(x.conn, x.config)
	if err := conn.HandshakeContext(x.ctx); err != nil {
		return err
	}
	x.handshakes.Add(1)
	if conn.ConnectionState().DidResume {
		x.resumed.Add(1)
	}
	x.conn, x.secure = conn, true
	x.r.Reset(conn)
	return nil
}

// data takes a message that ends with a dot.
func (x *session) data() error {
	if x.rcpts == 0 {
		x.say("554 5.5.1 no recipients\r\n")
		return nil
	}
	x.say("354 go\r\n")
	if err := x.flush(); err != nil {
		return err
	}
	size := 0
	for start := true; ; {
		line, err := x.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if start && string(line) == ".\r\n" {
			x.taken(size)
			return nil
		}
		size += len(line)
		start = err == nil
	}
}

// chunk takes a message, or a part of it, that is announced by its size.
func (x *session) chunk(arg string) error {
	count, last, _ := strings.Cut(arg, " ")
	size, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if _, err := x.r.Discard(size); err != nil {
		return err
	}
	switch {
	case x.rcpts == 0:
		x.say("554 5.5.1 no recipients\r\n")
	case last == "":
		x.say("250 2.0.0 go on\r\n")
	default:
		x.taken(size)
	}
	return nil
}

func (x *session) taken(size int) {
	x.messages.Add(1)
	x.size.Add(int64(size))
	x.rcpts = 0
	x.say("250 2.0.0 queued\r\n")
}
