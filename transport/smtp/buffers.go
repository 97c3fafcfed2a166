package smtp

import (
	"bufio"
	"io"
	"net"
	"sync"
)

const (
	readSize = 4 << 10
	// writeSize is how much goes out in one write: a full TLS record, which
	// holds the whole flight of an ordinary message.
	writeSize = 16 << 10
)

// Buffers lends sessions the memory that they need while they talk, and have
// no use for while they are idle. It is safe for concurrent use; the zero
// value is ready.
type Buffers struct {
	readers, writers sync.Pool
}

func (b *Buffers) reader(r io.Reader) *bufio.Reader {
	if br, ok := b.readers.Get().(*bufio.Reader); ok {
		br.Reset(r)
		return br
	}
	return bufio.NewReaderSize(r, readSize)
}

func (b *Buffers) writer(w io.Writer) *bufio.Writer {
	if bw, ok := b.writers.Get().(*bufio.Writer); ok {
		bw.Reset(w)
		return bw
	}
	return bufio.NewWriterSize(w, writeSize)
}

// back takes back a reader that nothing uses any more.
func (b *Buffers) back(br *bufio.Reader) {
	br.Reset(nil)
	b.readers.Put(br)
}

// backWriter takes back a writer that nothing uses any more.
func (b *Buffers) backWriter(bw *bufio.Writer) {
	bw.Reset(nil)
	b.writers.Put(bw)
}

// lazyReader reads a connection through a buffer that is there only while
// there is something to read.
type lazyReader struct {
	*bufio.Reader // nil while the session is idle and nothing is buffered
	buffers       *Buffers
	conn          net.Conn
}

// borrow makes ready to read.
func (r *lazyReader) borrow() {
	if r.Reader == nil {
		r.Reader = r.buffers.reader(r.conn)
	}
}

// giveBack gives the buffer back, unless something is in it.
func (r *lazyReader) giveBack() {
	if r.Reader != nil && r.Reader.Buffered() == 0 {
		r.buffers.back(r.Reader)
		r.Reader = nil
	}
}

// Buffered is how many bytes have arrived that nothing has read.
func (r *lazyReader) Buffered() int {
	if r.Reader == nil {
		return 0
	}
	return r.Reader.Buffered()
}
