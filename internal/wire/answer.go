package wire

import (
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/status"
)

// fallbackCode stands in for a code that is none: a temporary one, so that the
// message stays in the queue.
const fallbackCode = "4.3.0"

// answerText is the longest text that an answer is given: a code of the usual
// length and a blank fill the rest.
const answerText = MaxAnswer - len("5.0.0 ")

// AppendAnswer appends the daemon's answer to dst. The text is made printable
// as [Printable] does, and cut so that it has at most 894 bytes and that "D.S.N
// text" has at most 900. A Code that is no status code becomes 4.3.0: the
// message then stays in the queue.
func AppendAnswer(dst []byte, a Answer) []byte {
	code := a.Code
	if !validCode(code) {
		code = fallbackCode
	}
	text := Printable(a.Text, min(answerText, MaxAnswer-len(code)-1))
	dst = appendHeader(dst, kindAnswer, len(code)+1+len(text))
	dst = append(dst, code...)
	dst = append(dst, ' ')
	return append(dst, text...)
}

// ReadAnswer reads the daemon's answer, of any version of the protocol. It may
// read bytes after the answer, and drops them. The code of the answer is a
// status code of class 2, 4 or 5, and its text is printable. Errors wrap
// [ErrProtocol], or are [ErrNoAnswer] for a stream that ends, or are those of
// r.
func ReadAnswer(r io.Reader) (Answer, error) {
	var buf [AnswerSize]byte
	read := 0
	for idle := 0; ; idle++ {
		n, err := r.Read(buf[read:])
		read += n
		if n > 0 {
			idle = 0
		}
		a, problem := ParseAnswer(string(buf[:read]))
		if problem != ErrNoAnswer {
			return a, problem
		}
		if errors.Is(err, io.EOF) {
			return Answer{}, ErrNoAnswer
		}
		if err == nil && idle == maxIdleReads {
			err = io.ErrNoProgress
		}
		if err != nil {
			return Answer{}, err
		}
	}
}

// AnswerSize is how many bytes the frame of an answer has at most.
const AnswerSize = headerSize + MaxAnswer

// ParseAnswer reads an answer from what has come of a stream so far, as
// [ReadAnswer] does. As long as raw is only a beginning, the error is
// [ErrNoAnswer].
func ParseAnswer(raw string) (Answer, error) {
	if len(raw) > 0 && raw[0] != kindAnswer {
		return Answer{}, ErrFrame
	}
	if len(raw) < headerSize {
		return Answer{}, ErrNoAnswer
	}
	size := int(raw[1])<<24 | int(raw[2])<<16 | int(raw[3])<<8 | int(raw[4])
	if size > MaxAnswer || size < 0 {
		return Answer{}, ErrTooLong
	}
	if len(raw) < headerSize+size {
		return Answer{}, ErrNoAnswer
	}
	code, text, _ := cut(raw[headerSize:headerSize+size], ' ')
	if !validCode(code) {
		return Answer{}, ErrValue
	}
	return Answer{Code: code, Text: Printable(text, MaxAnswer)}, nil
}

func validCode(text string) bool {
	_, rest, ok := status.Parse(text)
	return ok && rest == "" && text[len(text)-1] >= '0' // and no blank
}

// Printable makes a line for people of text: each run of control characters
// becomes one blank, other characters that do not print, and bytes that are not
// UTF-8, become question marks, and blanks at the ends go. At most limit
// bytes remain, and no character is cut in two.
func Printable(text string, limit int) string {
	if printable(text) && len(text) <= limit {
		return trim(text)
	}
	out := make([]byte, 0, min(len(text), max(limit, 0)))
	control := false
	for _, c := range text {
		if c < 0x20 || c == 0x7f {
			if control {
				continue
			}
			control, c = true, ' '
		} else {
			control = false
			if c == utf8.RuneError || !strconv.IsPrint(c) {
				c = '?'
			}
		}
		if len(out)+utf8.RuneLen(c) > limit {
			break
		}
		out = utf8.AppendRune(out, c)
	}
	return trim(string(out))
}

// printable reports whether all of a text is printable ASCII, as most is.
func printable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// trim cuts the blanks at the ends.
func trim(s string) string {
	for s != "" && s[0] == ' ' {
		s = s[1:]
	}
	for s != "" && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}
