package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/internal/wire"
)

const (
	defaultSocket    = "/run/mxpolicyd/pipe.sock"
	defaultTransport = "default"
	defaultTimeout   = 15 * time.Minute // Postfix bounces after 1000 s
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
	timeout  time.Duration
	envelope wire.Envelope // without its Timeout
	show     string        // to be printed instead of anything else, unless empty
}

// flagKind says what may stand behind a flag.
type flagKind uint8

const (
	unknown  flagKind = iota
	valued            // --flag VALUE or --flag=VALUE
	switched          // --flag or --flag=VALUE
	bare              // --flag
)

func kindOf(name string) flagKind {
	switch name {
	case "sender", "socket", "transport", "queue-id", "nexthop", "size", "body", "ret", "envid", "notify", "orcpt", "timeout":
		return valued
	case "smtputf8", "requiretls", "quarantined":
		return switched
	case "version", "help":
		return bare
	}
	return unknown
}

// parser holds what must wait until all flags are read.
type parser struct {
	options
	given  []string // names of the flags so far
	notify string
	orcpts []string // one for each --orcpt, "" for one without an address
}

// parse reads the command line. Its errors are usage errors: temporary, and with
// a text that names the flag.
func parse(args []string) (*options, error) {
	p := parser{options: options{
		socket:   defaultSocket,
		timeout:  defaultTimeout,
		envelope: wire.Envelope{Transport: defaultTransport},
	}}
	recipients, err := p.flags(args)
	if err != nil {
		return nil, err
	}
	if p.show != "" {
		// In front of a message this would be a success without a delivery.
		if len(recipients) > 0 || p.has("sender") {
			return nil, misuse("--version and --help cannot be combined with a sender or recipients")
		}
		return &p.options, nil
	}
	if !p.has("sender") {
		return nil, misuse("-f is missing")
	}
	if err := p.recipients(recipients); err != nil {
		return nil, err
	}
	if err := p.envelope.Validate(); err != nil {
		return nil, misuse(explain(err))
	}
	return &p.options, nil
}

func misuse(text string) error { return localError(codeConfigured, "usage: "+text) }

// explain gives what is wrong with the envelope in the words of the usage.
func explain(err error) string {
	var f *wire.FieldError
	if !errors.As(err, &f) {
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

func (p *parser) has(name string) bool {
	for _, g := range p.given {
		if g == name {
			return true
		}
	}
	return false
}

// flags reads the flags and returns the recipients.
func (p *parser) flags(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return args, nil
		}
		dashed, value, joined := strings.Cut(arg, "=")
		name, long := strings.CutPrefix(dashed, "--")
		if arg == "-f" {
			name, long = "sender", true
		}
		kind := kindOf(name)
		switch {
		case !long || kind == unknown:
			return nil, misuse("unknown flag " + strconv.Quote(dashed))
		case p.has(name) && name != "orcpt":
			return nil, misuse(dashed + " is given twice")
		case kind == bare && joined:
			return nil, misuse(dashed + " takes no value")
		case kind == switched && !joined:
			value = "yes"
		case kind == valued && !joined:
			if len(args) == 0 {
				return nil, misuse(dashed + " needs a value")
			}
			value, args = args[0], args[1:]
		}
		p.given = append(p.given, name)
		if err := p.set(name, value); err != nil {
			return nil, err
		}
	}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			return nil, misuse("flags come before the recipients; write -- before recipients that start with -")
		}
	}
	return args, nil
}

func (p *parser) set(name, value string) error {
	e := &p.envelope
	ok := true
	switch name {
	case "sender":
		if value != "<>" {
			e.Sender = value
		}
	case "socket":
		p.socket, ok = value, value != ""
	case "transport":
		e.Transport, ok = value, value != ""
	case "queue-id":
		e.QueueID = value
	case "nexthop":
		e.Nexthop = value
	case "size":
		if value != "" {
			n, err := strconv.ParseUint(value, 10, 63)
			e.Size, ok = int64(n), err == nil
		}
	case "body":
		e.Body, ok = oneOf(value, "7bit", "8bitmime")
	case "ret":
		e.Ret, ok = oneOf(value, "full", "hdrs")
	case "envid":
		e.EnvID = value
	case "notify":
		p.notify, ok = notifyList(value)
	case "orcpt":
		kind, address, found := strings.Cut(value, ";")
		ok = value == "" || (found && kind != "")
		given := value
		if address == "" {
			given = ""
		}
		p.orcpts = append(p.orcpts, given)
	case "timeout":
		var err error
		p.timeout, err = time.ParseDuration(value)
		ok = err == nil && p.timeout > 0
	case "smtputf8":
		e.SMTPUTF8, ok = yesOrNo(value)
	case "requiretls":
		e.RequireTLS, ok = yesOrNo(value)
	case "quarantined":
		e.Quarantined, ok = yesOrNo(value)
	case "version":
		p.show = "mxpipe " + version + "\n"
	case "help":
		p.show = usageText
	}
	if !ok {
		return misuse("--" + name + " cannot be " + strconv.Quote(value))
	}
	return nil
}

// recipients gives each recipient its delivery status notification parameters.
func (p *parser) recipients(addresses []string) error {
	if len(addresses) == 0 {
		return misuse("no recipient")
	}
	orcpts := p.orcpts
	if len(orcpts) != len(addresses) {
		for _, o := range orcpts {
			if o != "" {
				return misuse("--orcpt is given " + strconv.Itoa(len(orcpts)) + " times for " +
					strconv.Itoa(len(addresses)) + " recipients (write it as one word, --orcpt=TYPE;ADDR)")
			}
		}
		orcpts = make([]string, len(addresses))
	}
	p.envelope.Recipients = make([]wire.Recipient, len(addresses))
	for i, address := range addresses {
		if address == "" || address == "<>" {
			return misuse("a recipient is empty")
		}
		p.envelope.Recipients[i] = wire.Recipient{Address: address, Notify: p.notify, ORcpt: orcpts[i]}
	}
	return nil
}

// oneOf finds value among words in any letter case. The empty value is not given.
func oneOf(value string, words ...string) (string, bool) {
	if value == "" {
		return "", true
	}
	for _, w := range words {
		if strings.EqualFold(value, w) {
			return w, true
		}
	}
	return value, false
}

// notifyList brings a list into the one order and letter case that we send
// (RFC 3461 §4.1). The empty list is not given.
func notifyList(list string) (string, bool) {
	if list == "" || strings.EqualFold(list, "NEVER") {
		return strings.ToUpper(list), true
	}
	words := [...]string{"SUCCESS", "FAILURE", "DELAY"}
	var given [len(words)]bool
	for _, element := range strings.Split(list, ",") {
		known := false
		for i, w := range words {
			if strings.EqualFold(strings.TrimSpace(element), w) {
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
