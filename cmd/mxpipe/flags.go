package main

import (
	"strconv"

	"github.com/mxpipe/mxpipe/internal/wire"
)

const (
	defaultSocket    = "/run/mxpolicyd/pipe.sock"
	defaultTransport = "default"
	defaultTimeout   = 15 * minute // Postfix bounces after 1000 s

	defaultTimeoutText = "15m"
)

const usageText = `usage: mxpipe [flags] -f SENDER [--] RECIPIENT...        message on standard input

  -f, --sender ADDR     envelope sender; empty or <> is the null sender
  --socket PATH         the daemon's socket (default ` + defaultSocket + `)
  --transport NAME      the daemon's transport (default ` + defaultTransport + `)
  --queue-id ID         the mail server's own id of the message
  --nexthop HOST        deliver to this domain or [host], either with :port
  --size N              size of the message in bytes, a hint
  --body TYPE           7bit or 8bitmime
  --smtputf8            the message needs SMTPUTF8
  --requiretls          the message must not travel without TLS
  --quarantined         a content check marked the message: refuse it
  --ret TYPE            full or hdrs
  --envid ID            the sender's envelope id
  --notify LIST         NEVER, or SUCCESS, FAILURE, DELAY with commas
  --orcpt TYPE;ADDR     original recipient; once for each recipient
  --timeout DURATION    give up, temporarily, after this long (default 15m)
  --version             print the version
  --help                print this text

Prints one line, "D.S.N text". Exit status: 0 delivered, 75 try again,
65, 67, 68, 69 permanently refused.
`

// options is what the command line says.
type options struct {
	socket   string
	timeout  int64         // in nanoseconds
	limit    string        // that, as it was written
	envelope wire.Envelope // without its Timeout
	// to be printed instead of anything else, unless empty
	show string

	// What must wait until all flags are read. It lies here and not in a
	// struct of its own, since a pointer from that to here would put all of it
	// into the heap.
	given  uint32 // the flags so far, as bits
	notify string
	orcpts []string // one for each --orcpt, "" for one without an address
}

// flag is one of the flags.
type flag uint8

const (
	noFlag flag = iota
	// --flag VALUE or --flag=VALUE
	flagSender
	flagSocket
	flagTransport
	flagQueueID
	flagNexthop
	flagSize
	flagBody
	flagRet
	flagEnvID
	flagNotify
	flagORcpt
	flagTimeout
	// --flag or --flag=VALUE
	flagSMTPUTF8
	flagRequireTLS
	flagQuarantined
	// --flag
	flagVersion
	flagHelp
)

func (f flag) needsValue() bool { return f >= flagSender && f <= flagTimeout }
func (f flag) takesNone() bool  { return f >= flagVersion }

// flagOf knows the flags by their names without the dashes.
func flagOf(name string) flag {
	switch name {
	case "sender":
		return flagSender
	case "socket":
		return flagSocket
	case "transport":
		return flagTransport
	case "queue-id":
		return flagQueueID
	case "nexthop":
		return flagNexthop
	case "size":
		return flagSize
	case "body":
		return flagBody
	case "ret":
		return flagRet
	case "envid":
		return flagEnvID
	case "notify":
		return flagNotify
	case "orcpt":
		return flagORcpt
	case "timeout":
		return flagTimeout
	case "smtputf8":
		return flagSMTPUTF8
	case "requiretls":
		return flagRequireTLS
	case "quarantined":
		return flagQuarantined
	case "version":
		return flagVersion
	case "help":
		return flagHelp
	}
	return noFlag
}

// parse reads the command line. Its errors are usage errors: temporary, and
// with a text that names the flag.
func (o *options) parse(args []string) error {
	*o = options{
		socket: defaultSocket, timeout: defaultTimeout, limit: defaultTimeoutText,
		envelope: wire.Envelope{Transport: defaultTransport},
	}
	recipients, err := o.flags(args)
	if err != nil {
		return err
	}
	if o.show != "" {
		// In front of a message this would be a success without a delivery.
		if len(recipients) > 0 || o.has(flagSender) {
			return misuse("--version and --help cannot be combined with a sender or recipients")
		}
		return nil
	}
	if !o.has(flagSender) {
		return misuse("-f is missing")
	}
	if err := o.recipients(recipients); err != nil {
		return err
	}
	if err := o.envelope.Validate(); err != nil {
		return misuse(explain(err))
	}
	return nil
}

func misuse(text string) error { return localError(codeConfigured, "usage: "+text) }

// explain gives what is wrong with the envelope in the words of the usage.
func explain(err error) string {
	f, ok := err.(*wire.FieldError)
	if !ok {
		return "the envelope: " + err.Error()
	}
	if f.Err == wire.ErrTooMany {
		return "more than 1000 recipients in one call"
	}
	if f.Field == "recipient" {
		return "a recipient: " + f.Err.Error()
	}
	return "--" + f.Field + ": " + f.Err.Error()
}

func (o *options) has(f flag) bool { return o.given&(1<<f) != 0 }

// flags reads the flags and returns the recipients.
func (o *options) flags(args []string) ([]string, error) {
	for len(args) > 0 && dashed(args[0]) {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return args, nil
		}
		word, value, joined := cut(arg, '=')
		f := noFlag
		switch {
		case arg == "-f":
			f = flagSender
		case len(word) > 2 && word[:2] == "--":
			f = flagOf(word[2:])
		}
		switch {
		case f == noFlag:
			return nil, misuse("unknown flag " + strconv.Quote(word))
		case o.has(f) && f != flagORcpt:
			return nil, misuse(word + " is given twice")
		case f.takesNone() && joined:
			return nil, misuse(word + " takes no value")
		case f.needsValue() && !joined:
			if len(args) == 0 {
				return nil, misuse(word + " needs a value")
			}
			value, args = args[0], args[1:]
		case !joined:
			value = "yes"
		}
		o.given |= 1 << f
		if !o.set(f, value) {
			return nil, misuse(word + " cannot be " + strconv.Quote(value))
		}
	}
	for _, arg := range args {
		if dashed(arg) {
			return nil, misuse("flags come before the recipients; write -- before recipients that start with -")
		}
	}
	return args, nil
}

// set takes a flag's value, if it can be one.
func (o *options) set(f flag, value string) (ok bool) {
	e := &o.envelope
	ok = true
	switch f {
	case flagSender:
		if value != "<>" {
			e.Sender = value
		}
	case flagSocket:
		o.socket, ok = value, value != ""
	case flagTransport:
		e.Transport, ok = value, value != ""
	case flagQueueID:
		e.QueueID = value
	case flagNexthop:
		e.Nexthop = value
	case flagSize:
		if value != "" {
			n, err := strconv.ParseUint(value, 10, 63)
			e.Size, ok = int64(n), err == nil
		}
	case flagBody:
		e.Body, ok = oneOf(value, "7bit", "8bitmime")
	case flagRet:
		e.Ret, ok = oneOf(value, "full", "hdrs")
	case flagEnvID:
		e.EnvID = value
	case flagNotify:
		o.notify, ok = notifyList(value)
	case flagORcpt:
		kind, address, found := cut(value, ';')
		ok = value == "" || (found && kind != "")
		given := value
		if address == "" {
			given = ""
		}
		o.orcpts = append(o.orcpts, given)
	case flagTimeout:
		o.limit = value
		o.timeout, ok = parseDuration(value)
	case flagSMTPUTF8:
		e.SMTPUTF8, ok = yesOrNo(value)
	case flagRequireTLS:
		e.RequireTLS, ok = yesOrNo(value)
	case flagQuarantined:
		e.Quarantined, ok = yesOrNo(value)
	case flagVersion:
		o.show = "mxpipe " + version + "\n"
	case flagHelp:
		o.show = usageText
	}
	return ok
}

// recipients gives each recipient its delivery status notification parameters.
func (o *options) recipients(addresses []string) error {
	if len(addresses) == 0 {
		return misuse("no recipient")
	}
	orcpts := o.orcpts
	if len(orcpts) != len(addresses) {
		for _, o := range orcpts {
			if o != "" {
				return misuse("--orcpt is given " + strconv.Itoa(len(orcpts)) + " times for " +
					strconv.Itoa(len(addresses)) + " recipients (write it as one word, --orcpt=TYPE;ADDR)")
			}
		}
		orcpts = make([]string, len(addresses))
	}
	o.envelope.Recipients = make([]wire.Recipient, len(addresses))
	for i, address := range addresses {
		if address == "" || address == "<>" {
			return misuse("a recipient is empty")
		}
		o.envelope.Recipients[i] = wire.Recipient{Address: address, Notify: o.notify, ORcpt: orcpts[i]}
	}
	return nil
}

// oneOf finds value among words in any letter case. The empty value is not
// given.
func oneOf(value string, words ...string) (string, bool) {
	if value == "" {
		return "", true
	}
	for _, w := range words {
		if equalFold(value, w) {
			return w, true
		}
	}
	return value, false
}

// notifyList brings a list into the one order and letter case that we send
// (RFC 3461 §4.1). The empty list is not given.
func notifyList(list string) (string, bool) {
	if list == "" {
		return "", true
	}
	if equalFold(list, "NEVER") {
		return "NEVER", true
	}
	words := [...]string{"SUCCESS", "FAILURE", "DELAY"}
	var given [len(words)]bool
	for more := true; more; {
		var element string
		element, list, more = cut(list, ',')
		known := false
		for i, w := range words {
			if equalFold(trim(element), w) {
				given[i], known = true, true
			}
		}
		if !known {
			return list, false
		}
	}
	out := ""
	for i, w := range words {
		if given[i] {
			if out != "" {
				out += ","
			}
			out += w
		}
	}
	return out, true
}

func yesOrNo(value string) (yes, ok bool) {
	w, ok := oneOf(value, "yes", "true", "1", "no", "false", "0")
	return w == "yes" || w == "true" || w == "1", ok
}
