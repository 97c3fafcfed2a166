package lmtp

import (
	"bytes"
	"io"
)

// body reads a message that comes by DATA, without the dots that were put
// before others (RFC 5321 §4.5.2), in the library's place: that one reads byte
// by byte, which is most of what a message costs here. All that it gets of the
// message is its end.
type body struct {
	conn   *conn
	begins bool // a line begins
	cr     bool // the last byte was a CR
	over   bool
}

// Read gives io.EOF at the end of data alone.
func (b *body) Read(p []byte) (int, error) {
	c := b.conn
	n := 0
	for n == 0 && len(p) > 0 {
		if b.over {
			return 0, io.EOF
		}
		if err := c.more(); err != nil {
			return 0, err
		}
		free := int(min(c.free, int64(c.w-c.r)))
		if !c.data {
			free -= len(endOfData)
		}
		if free == 0 {
			c.take(len(endOfData))
			c.tail = endOfData
			b.over = true
			continue
		}
		n = b.unstuff(p, c.buf[c.r:c.r+free])
	}
	return n, nil
}

// unstuff copies lines and parts of lines.
func (b *body) unstuff(p, free []byte) int {
	n, from := 0, 0
	for n < len(p) && from < len(free) {
		if b.begins && free[from] == '.' {
			b.begins, b.cr = false, false
			from++
			continue
		}
		end := bytes.IndexByte(free[from:], '\n') + 1
		if end == 0 {
			end = len(free) - from
		}
		k := copy(p[n:], free[from:from+end])
		last := p[n+k-1]
		if k > 1 {
			b.cr = p[n+k-2] == '\r'
		}
		b.begins = last == '\n' && b.cr
		b.cr = last == '\r'
		n += k
		from += k
	}
	b.conn.take(from)
	return n
}
