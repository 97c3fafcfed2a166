package wire

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// tag is the first byte of a field of the envelope.
type tag byte

const (
	tagSender      tag = 's'
	tagRecipient   tag = 'r'
	tagNotify      tag = 'n'
	tagORcpt       tag = 'o'
	tagTransport   tag = 't'
	tagQueueID     tag = 'q'
	tagNexthop     tag = 'h'
	tagSize        tag = 'z'
	tagBody        tag = 'b'
	tagSMTPUTF8    tag = 'u'
	tagRequireTLS  tag = 'l'
	tagQuarantined tag = 'x'
	tagRet         tag = 'e'
	tagEnvID       tag = 'i'
	tagTimeout     tag = 'w'
)

// name gives the name of the flag that a field comes from, and "" for a tag that
// this version does not know.
func (t tag) name() string {
	switch t {
	case tagSender:
		return "sender"
	case tagRecipient:
		return "recipient"
	case tagNotify:
		return "notify"
	case tagORcpt:
		return "orcpt"
	case tagTransport:
		return "transport"
	case tagQueueID:
		return "queue-id"
	case tagNexthop:
		return "nexthop"
	case tagSize:
		return "size"
	case tagBody:
		return "body"
	case tagSMTPUTF8:
		return "smtputf8"
	case tagRequireTLS:
		return "requiretls"
	case tagQuarantined:
		return "quarantined"
	case tagRet:
		return "ret"
	case tagEnvID:
		return "envid"
	case tagTimeout:
		return "timeout"
	}
	return ""
}

func (t tag) wrong(err error) error { return &FieldError{Field: t.name(), Err: err} }

// Validate reports the first thing in the envelope that the protocol does not
// carry, as a [*FieldError]. Both ends refuse such an envelope.
func (e *Envelope) Validate() error {
	if len(e.Recipients) == 0 {
		return tagRecipient.wrong(ErrSequence)
	}
	if len(e.Recipients) > MaxRecipients {
		return tagRecipient.wrong(ErrTooMany)
	}
	texts := [...]struct {
		tag   tag
		value string
	}{
		{tagSender, e.Sender}, {tagTransport, e.Transport}, {tagQueueID, e.QueueID},
		{tagNexthop, e.Nexthop}, {tagEnvID, e.EnvID},
	}
	for _, t := range texts {
		if err := checkText(t.tag, t.value); err != nil {
			return err
		}
	}
	for i := range e.Recipients {
		if err := e.Recipients[i].validate(); err != nil {
			return err
		}
	}
	switch {
	case e.Body != "" && e.Body != "7bit" && e.Body != "8bitmime":
		return tagBody.wrong(ErrValue)
	case e.Ret != "" && e.Ret != "full" && e.Ret != "hdrs":
		return tagRet.wrong(ErrValue)
	case e.Size < 0:
		return tagSize.wrong(ErrValue)
	case e.Timeout < 0:
		return tagTimeout.wrong(ErrValue)
	}
	return nil
}

func (r *Recipient) validate() error {
	if r.Address == "" {
		return tagRecipient.wrong(ErrValue)
	}
	if err := checkText(tagRecipient, r.Address); err != nil {
		return err
	}
	if err := checkText(tagORcpt, r.ORcpt); err != nil {
		return err
	}
	if r.ORcpt != "" {
		if kind, address, _ := strings.Cut(r.ORcpt, ";"); kind == "" || address == "" {
			return tagORcpt.wrong(ErrValue)
		}
	}
	if !validNotify(r.Notify) {
		return tagNotify.wrong(ErrValue)
	}
	return nil
}

func checkText(t tag, value string) error {
	if len(value) > MaxValue {
		return t.wrong(ErrTooLong)
	}
	for i := 0; i < len(value); i++ {
		if value[i] < 0x20 || value[i] == 0x7f {
			return t.wrong(ErrControl)
		}
	}
	return nil
}

// validNotify holds a list against RFC 3461 §4.1, in upper case and without
// repetitions.
func validNotify(list string) bool {
	if list == "" || list == "NEVER" {
		return true
	}
	var seen [3]bool
	for more := true; more; {
		var element string
		element, list, more = strings.Cut(list, ",")
		var i int
		switch element {
		case "SUCCESS":
			i = 0
		case "FAILURE":
			i = 1
		case "DELAY":
			i = 2
		default:
			return false
		}
		if seen[i] {
			return false
		}
		seen[i] = true
	}
	return true
}

// AppendEnvelope appends the start of a request to dst: the magic, the version
// and the envelope's frame. It fails with a [*FieldError] or [ErrTooLong] when
// the envelope exceeds a bound or holds what cannot be carried; dst is then
// returned as it was. A Timeout of less than a millisecond travels as one.
func AppendEnvelope(dst []byte, e *Envelope) ([]byte, error) {
	if err := e.Validate(); err != nil {
		return dst, err
	}
	begin := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, Version)
	dst = appendHeader(dst, kindEnvelope, 0)
	content := len(dst)

	dst = appendField(dst, tagSender, e.Sender)
	for i := range e.Recipients {
		r := &e.Recipients[i]
		dst = appendField(dst, tagRecipient, r.Address)
		dst = appendGiven(dst, tagNotify, r.Notify)
		dst = appendGiven(dst, tagORcpt, r.ORcpt)
	}
	dst = appendGiven(dst, tagTransport, e.Transport)
	dst = appendGiven(dst, tagQueueID, e.QueueID)
	dst = appendGiven(dst, tagNexthop, e.Nexthop)
	dst = appendNumber(dst, tagSize, e.Size)
	dst = appendGiven(dst, tagBody, e.Body)
	dst = appendYes(dst, tagSMTPUTF8, e.SMTPUTF8)
	dst = appendYes(dst, tagRequireTLS, e.RequireTLS)
	dst = appendYes(dst, tagQuarantined, e.Quarantined)
	dst = appendGiven(dst, tagRet, e.Ret)
	dst = appendGiven(dst, tagEnvID, e.EnvID)
	dst = appendNumber(dst, tagTimeout, milliseconds(e.Timeout))

	size := len(dst) - content
	if size > MaxEnvelope {
		return dst[:begin], ErrTooLong
	}
	binary.BigEndian.PutUint32(dst[content-4:], uint32(size))
	return dst, nil
}

func milliseconds(d time.Duration) int64 {
	if d > 0 && d < time.Millisecond {
		return 1
	}
	return d.Milliseconds()
}

// AppendData appends a piece of the message to dst, in as many data frames as
// it needs. An empty piece appends nothing.
func AppendData(dst, chunk []byte) []byte {
	for len(chunk) > 0 {
		n := min(len(chunk), MaxData)
		dst = appendHeader(dst, kindData, n)
		dst = append(dst, chunk[:n]...)
		chunk = chunk[n:]
	}
	return dst
}

// AppendCommit appends the frame that says that the message is whole. It must
// be the last of a request, and be sent only when the sender is sure.
func AppendCommit(dst []byte) []byte { return appendHeader(dst, kindCommit, 0) }

func appendHeader(dst []byte, kind byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, kind), uint32(size))
}

func appendField(dst []byte, t tag, value string) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, byte(t)), uint16(len(value)))
	return append(dst, value...)
}

func appendGiven(dst []byte, t tag, value string) []byte {
	if value == "" {
		return dst
	}
	return appendField(dst, t, value)
}

func appendYes(dst []byte, t tag, yes bool) []byte {
	if !yes {
		return dst
	}
	return appendField(dst, t, "")
}

func appendNumber(dst []byte, t tag, n int64) []byte {
	if n == 0 {
		return dst
	}
	return appendField(dst, t, strconv.FormatInt(n, 10))
}
