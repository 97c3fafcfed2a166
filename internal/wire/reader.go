package wire

import (
	"errors"
	"io"
)

// readerBuffer lets an ordinary message arrive in one read, and costs little
// for each of a thousand deliveries at once.
const readerBuffer = 16 << 10

// Reader is the daemon's end of one request. Call [Reader.Envelope] once, then
// [Reader.Read] until io.EOF. An error is final: each later call returns it
// again. Errors of the connection, deadlines among them, are passed on as
// they are.
//
// A Reader reads ahead, but never past what the client sent, and a client sends
// nothing after the commit. So after io.EOF a read on the connection itself
// tells one thing only: that the client went away.
type Reader struct {
	// Hold, when it is not nil, is asked before so many bytes of the envelope
	// are kept; its error is final.
	Hold func(bytes int) error

	src    io.Reader
	buf    []byte
	r, w   int // buf[r:w] is read and not yet used
	left   int // bytes to come of the current data frame
	opened bool
	err    error
}

// NewReader returns a Reader for one request that arrives on r.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: r, buf: make([]byte, readerBuffer)}
}

// Reset makes a Reader ready for another request, as if it were new.
func (r *Reader) Reset(src io.Reader) { *r = Reader{src: src, buf: r.buf} }

// Envelope reads the start of the request. It returns an error that wraps
// [ErrProtocol] for what the protocol does not allow, and [ErrUncommitted] for
// a stream that ends.
func (r *Reader) Envelope() (Envelope, error) {
	if r.err == nil && r.opened {
		r.err = ErrSequence
	}
	if r.err != nil {
		return Envelope{}, r.err
	}
	r.opened = true
	e, err := r.envelope()
	if err != nil {
		r.err = err
		return Envelope{}, err
	}
	return e, nil
}

func (r *Reader) envelope() (Envelope, error) {
	start, err := r.next(len(magic) + 1)
	if err != nil {
		return Envelope{}, err
	}
	if string(start[:len(magic)]) != magic || start[len(magic)] != Version {
		return Envelope{}, ErrVersion
	}
	kind, left, err := r.header()
	if err != nil {
		return Envelope{}, err
	}
	switch {
	case kind != kindEnvelope:
		return Envelope{}, ErrSequence
	case left > MaxEnvelope:
		return Envelope{}, ErrTooLong
	}
	var f fields
	for left > 0 {
		size, err := r.field(&f, left)
		if err != nil {
			return Envelope{}, err
		}
		left -= size
	}
	return f.envelope()
}

// field reads one field, of which at most left bytes may belong to the
// envelope, and returns its size.
func (r *Reader) field(f *fields, left int) (int, error) {
	const prefix = 3
	if left < prefix {
		return 0, ErrSequence
	}
	b, err := r.next(prefix)
	if err != nil {
		return 0, err
	}
	t, size := tag(b[0]), int(b[1])<<8|int(b[2])
	if t.name() == "" {
		return 0, ErrField
	}
	if size > MaxValue {
		return 0, t.wrong(ErrTooLong)
	}
	if size > left-prefix {
		return 0, t.wrong(ErrSequence)
	}
	if r.Hold != nil {
		if err := r.Hold(size); err != nil {
			return 0, err
		}
	}
	value, err := r.next(size)
	if err != nil {
		return 0, err
	}
	return prefix + size, f.add(t, string(value))
}

// Read reads bytes of the message. It returns io.EOF only after the commit; a
// stream that ends before gives [ErrUncommitted], and what the protocol does
// not allow an error that wraps [ErrProtocol].
func (r *Reader) Read(p []byte) (int, error) {
	if r.err == nil && !r.opened {
		r.err = ErrSequence
	}
	if r.err == nil && r.left == 0 && len(p) > 0 {
		r.err = r.nextData()
	}
	if r.err != nil {
		return 0, r.err
	}
	p = p[:min(len(p), r.left)]
	if len(p) == 0 {
		return 0, nil
	}
	if r.r == r.w && len(p) >= len(r.buf) {
		n, err := r.src.Read(p)
		r.left -= n
		if n == 0 && err != nil {
			r.err = uncommitted(err)
		}
		return n, r.err
	}
	if r.r == r.w {
		if r.err = r.fill(1); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	r.left -= n
	return n, nil
}

// WriteTo writes the rest of the message to w, as [Reader.Read] gives it; it
// returns nil only after the commit. An error of w leaves the Reader where it
// was. It implements io.WriterTo, so that io.Copy needs no buffer of its own.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	if r.err == nil && !r.opened {
		r.err = ErrSequence
	}
	var written int64
	for {
		switch {
		case r.err == io.EOF:
			return written, nil
		case r.err != nil:
			return written, r.err
		case r.left == 0:
			r.err = r.nextData()
		case r.r == r.w:
			r.err = r.fill(1)
		default:
			n, err := w.Write(r.buf[r.r:min(r.w, r.r+r.left)])
			r.r += n
			r.left -= n
			written += int64(n)
			if err != nil {
				return written, err
			}
		}
	}
}

// nextData reads the header of the next data frame, or io.EOF for a commit.
func (r *Reader) nextData() error {
	kind, size, err := r.header()
	switch {
	case err != nil:
		return err
	case kind == kindCommit && size == 0:
		return io.EOF
	case kind == kindEnvelope, kind == kindCommit, kind == kindData && size == 0:
		return ErrSequence
	case kind != kindData:
		return ErrFrame
	case size > MaxData:
		return ErrTooLong
	}
	r.left = size
	return nil
}

// header reads a frame's header.
func (r *Reader) header() (kind byte, size int, err error) {
	b, err := r.next(headerSize)
	if err != nil {
		return 0, 0, err
	}
	return b[0], length(b[1:]), nil
}

// next returns the next n bytes, which stay valid until the next call. n is at
// most the size of the buffer.
func (r *Reader) next(n int) ([]byte, error) {
	if r.w-r.r < n {
		if err := r.fill(n); err != nil {
			return nil, err
		}
	}
	b := r.buf[r.r : r.r+n]
	r.r += n
	return b, nil
}

// fill reads until at least n bytes are in the buffer.
func (r *Reader) fill(n int) error {
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	for idle := 0; r.w < n; idle++ {
		got, err := r.src.Read(r.buf[r.w:])
		r.w += got
		if err != nil && r.w < n {
			return uncommitted(err)
		}
		if got > 0 {
			idle = 0
		} else if idle == maxIdleReads {
			return io.ErrNoProgress
		}
	}
	return nil
}

// maxIdleReads is how often in a row a stream may give nothing without an
// error.
const maxIdleReads = 100

func uncommitted(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrUncommitted
	}
	return err
}

// fields gathers an envelope from its fields.
type fields struct {
	e    Envelope
	seen [256]bool // tags of the whole envelope
	last [256]bool // tags of the last recipient
}

func (f *fields) add(t tag, value string) error {
	switch t {
	case tagRecipient:
		if len(f.e.Recipients) == MaxRecipients {
			return t.wrong(ErrTooMany)
		}
		f.e.Recipients = append(f.e.Recipients, Recipient{Address: value})
		f.last = [256]bool{}
		return nil
	case tagNotify, tagORcpt:
		if len(f.e.Recipients) == 0 || f.last[t] {
			return t.wrong(ErrSequence)
		}
		f.last[t] = true
		return f.addToRecipient(t, value)
	}
	if f.seen[t] {
		return t.wrong(ErrSequence)
	}
	f.seen[t] = true
	return f.addToEnvelope(t, value)
}

func (f *fields) addToRecipient(t tag, value string) error {
	if value == "" {
		return t.wrong(ErrValue)
	}
	r := &f.e.Recipients[len(f.e.Recipients)-1]
	if t == tagNotify {
		r.Notify = value
	} else {
		r.ORcpt = value
	}
	return nil
}

func (f *fields) addToEnvelope(t tag, value string) error {
	ok := value != ""
	switch t {
	case tagSender:
		f.e.Sender, ok = value, true
	case tagTransport:
		f.e.Transport = value
	case tagQueueID:
		f.e.QueueID = value
	case tagNexthop:
		f.e.Nexthop = value
	case tagSize:
		f.e.Size, ok = number(value, 1<<63-1)
	case tagBody:
		f.e.Body = value
	case tagSMTPUTF8:
		f.e.SMTPUTF8, ok = true, value == ""
	case tagRequireTLS:
		f.e.RequireTLS, ok = true, value == ""
	case tagQuarantined:
		f.e.Quarantined, ok = true, value == ""
	case tagRet:
		f.e.Ret = value
	case tagEnvID:
		f.e.EnvID = value
	case tagTimeout:
		var n int64
		n, ok = number(value, int64(maxTimeout))
		f.e.Timeout = Milliseconds(n)
	}
	if !ok {
		return t.wrong(ErrValue)
	}
	return nil
}

func (f *fields) envelope() (Envelope, error) {
	if !f.seen[tagSender] {
		return Envelope{}, tagSender.wrong(ErrSequence)
	}
	if f.e.Transport == "" {
		f.e.Transport = "default"
	}
	if err := f.e.Validate(); err != nil {
		return Envelope{}, err
	}
	return f.e, nil
}

// number reads decimal digits of a number from 1 to most, without a leading
// zero: 0 is said by not sending it.
func number(s string, most int64) (int64, bool) {
	var n int64
	for i := 0; i < len(s); i++ {
		d := int64(s[i]) - '0'
		if d < 0 || d > 9 || n > (most-d)/10 || (i == 0 && d == 0) {
			return 0, false
		}
		n = n*10 + d
	}
	return n, n > 0
}
