package wire

import "strconv"

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

// name gives the name of the flag that a field comes from, and "" for a tag
// that this version does not know.
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
		if kind, address, _ := cut(r.ORcpt, ';'); kind == "" || address == "" {
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
		element, list, more = cut(list, ',')
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

// cut slices s around the first c, as strings.Cut does.
func cut(s string, c byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// AppendEnvelope appends the start of a request to dst: the magic, the version
// and the envelope's frame. It fails with a [*FieldError] or [ErrTooLong] when
// the envelope exceeds a bound or holds what cannot be carried; dst is then
// returned as it was.
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
	dst = appendNumber(dst, tagTimeout, int64(e.Timeout))

	size := len(dst) - content
	if size > MaxEnvelope {
		return dst[:begin], ErrTooLong
	}
	appendLength(dst[:content-4], size)
	return dst, nil
}

// AppendData appends a piece of the message to dst, in as many data frames as
// it needs. An empty piece appends nothing.
func AppendData(dst, chunk []byte) []byte {
	for len(chunk) > 0 {
		n := min(len(chunk), MaxData)
		dst = append(AppendDataHeader(dst, n), chunk[:n]...)
		chunk = chunk[n:]
	}
	return dst
}

// AppendDataHeader appends what goes before a piece of the message of n bytes,
// 1 to MaxData, for who need not copy it.
func AppendDataHeader(dst []byte, n int) []byte { return appendHeader(dst, kindData, n) }

// AppendCommit appends the frame that says that the message is whole. It must
// be the last of a request, and be sent only when the sender is sure.
func AppendCommit(dst []byte) []byte { return appendHeader(dst, kindCommit, 0) }

func appendHeader(dst []byte, kind byte, size int) []byte {
	return appendLength(append(dst, kind), size)
}

// appendLength appends four bytes, most significant first. Package
// encoding/binary would do the same, and brings package reflect.
func appendLength(dst []byte, n int) []byte {
	return append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// length reads what appendLength wrote. What an int cannot hold is given as the
// greatest int32, which exceeds every bound as well.
func length(b []byte) int {
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return int(min(n, 1<<31-1))
}

func appendField(dst []byte, t tag, value string) []byte {
	dst = append(dst, byte(t), byte(len(value)>>8), byte(len(value)))
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
	var digits [20]byte
	return appendField(dst, t, string(strconv.AppendInt(digits[:0], n, 10)))
}
