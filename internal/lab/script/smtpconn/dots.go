package smtpconn

// Unstuffer takes the dots out of a message body that arrives as DATA (RFC 5321
// §4.5.2). The body ends at CRLF.CRLF and at nothing else: a bare CR or a bare
// LF begins no line, so it neither ends the body nor hides a dot. They stay in
// Text as they came. The zero value is ready to use.
type Unstuffer struct {
	Text []byte // the body without transparency dots and without the final dot
	// bytes of Text to keep, 0: no bound; what goes beyond is read and dropped
	Max  int
	Long bool // Text was cut off at Max
	at   place
	done bool
}

type place int

const (
	lineStart  place = iota // after CRLF, or at the beginning
	afterDot                // CRLF .
	afterDotCR              // CRLF . CR
	inLine
	afterCR
)

// Feed takes bytes of the stream and returns how many belong to the body, the
// final dot line included. Once done is true the rest of the stream is not the
// body's.
func (u *Unstuffer) Feed(p []byte) (used int, done bool) {
	for i, b := range p {
		if u.done {
			return i, true
		}
		u.feed(b)
	}
	return len(p), u.done
}

func (u *Unstuffer) feed(b byte) {
	switch u.at {
	case lineStart:
		if b == '.' {
			u.at = afterDot
			return
		}
	case afterDot:
		if b == '\r' {
			u.at = afterDotCR
			return
		}
	case afterDotCR:
		if b == '\n' {
			u.done = true
			return
		}
		u.put('\r')
	case afterCR:
		u.put('\r')
		if b == '\n' {
			u.put('\n')
			u.at = lineStart
			return
		}
	}
	if b == '\r' {
		u.at = afterCR
		return
	}
	u.put(b)
	u.at = inLine
}

func (u *Unstuffer) put(b byte) {
	if u.Max > 0 && len(u.Text) >= u.Max {
		u.Long = true
		return
	}
	u.Text = append(u.Text, b)
}
