// Package mailserver looks for the usual mistakes in the configuration of a
// mail server that delivers through mxpolicyd. Each of them once bounced, held
// up or changed somebody's mail; contrib/postfix and contrib/exim tell why the
// shipped configurations are as they are, and these checks hold others against
// them.
//
// It is pure: the caller runs postconf(1) or exim(8) and hands over what they
// print, and what is known of the daemon's side. Postfix wants the output of
// "postconf" (or "postconf -n"; what is not in it counts as Postfix's default)
// and "postconf -M". Exim wants those of "exim -bP", "exim -bP transports" and
// "exim -bP config".
//
// What is looked at are the entries of master.cf and the transports that run
// mxpipe, whatever their names, and those that lead to the daemon's LMTP and
// socketmap sockets. A mail server with none of them is told so, once. An entry
// without a mistake is one finding of level OK. What cannot be seen from here,
// such as what a transport map returns, is not guessed.
package mailserver

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Daemon is what the checks know of mxpolicyd's side. What is left zero is not
// compared with anything.
type Daemon struct {
	Transports []string // names of the configured transports
	Pipe       string   // path of the pipe socket
	LMTP       []string // paths of the LMTP sockets
	Socketmap  []string // where the socketmap answers: paths, and host:port
	Pins       bool     // an override pins keys
	Relays     []Relay  // that transports and their overrides have
	// MinTLS is what each transport requires of every server
	// (local_policy.min_tls_level), Relayed the transports whose mail all goes
	// to a relay, which proves who it is; Postfix's smtp(8) does not send it
	// there.
	MinTLS         map[string]verdict.TLSLevel
	Relayed        []string
	MaxMessageSize int64 // bytes
	MaxDeliveries  int   // at once
}

const (
	// defaultSocket is where mxpipe calls without --socket.
	defaultSocket = "/run/mxpolicyd/pipe.sock"
	// defaultTimeout is mxpipe's --timeout; an LMTP delivery takes no longer
	// either.
	defaultTimeout = 15 * time.Minute
	// margin is how much longer than our own the mail server's time limit must
	// be. A command that gives up still has to be started, fed and heard.
	margin = time.Minute
)

// report gathers the findings about one entry.
type report struct {
	name string // what the entry is called in findings
	list []finding.Finding
}

func (r *report) warn(mend, what string, args ...any) {
	r.add(finding.Warn, mend, what, args...)
}

func (r *report) fail(mend, what string, args ...any) {
	r.add(finding.Fail, mend, what, args...)
}

func (r *report) add(level finding.Level, mend, what string, args ...any) {
	r.list = append(r.list, finding.Finding{Level: level, What: r.name + ": " + fmt.Sprintf(what, args...), Mend: mend})
}

// findings returns the list, which is never empty.
func (r *report) findings() []finding.Finding {
	if len(r.list) == 0 {
		return []finding.Finding{{Level: finding.OK, What: r.name + ": correct"}}
	}
	return r.list
}

// call is a command line of mxpipe, with the mail server's macros still in it.
type call struct {
	flags map[string]string // by their long names, without dashes
	rest  []string          // what follows the flags
	ended bool              // by "--"
}

// switches are mxpipe's flags that take no value as a word of its own.
var switches = []string{"smtputf8", "requiretls", "quarantined", "version", "help"}

// parseCall reads a command line. It returns false when its program is not
// mxpipe.
func parseCall(argv []string) (call, bool) {
	c := call{flags: map[string]string{}}
	if len(argv) == 0 || path.Base(argv[0]) != "mxpipe" {
		return c, false
	}
	for argv = argv[1:]; len(argv) > 0 && strings.HasPrefix(argv[0], "-"); {
		word := argv[0]
		argv = argv[1:]
		if word == "--" {
			c.ended = true
			break
		}
		name, value, joined := strings.Cut(word, "=")
		if name == "-f" {
			name = "--sender"
		}
		name = strings.TrimPrefix(name, "--")
		if !joined && !slices.Contains(switches, name) && len(argv) > 0 {
			value, argv = argv[0], argv[1:]
		}
		c.flags[name] = value
	}
	c.rest = argv
	return c, true
}

// timeout is how long mxpipe will try. A value that mxpipe does not take counts
// as the default.
func (c call) timeout() time.Duration {
	if d, err := time.ParseDuration(c.flags["timeout"]); err == nil && d > 0 {
		return d
	}
	return defaultTimeout
}

// check finds what is wrong with the call in every mail server. edit says where
// its command line is written.
func (c call) check(d Daemon, edit string, r *report) {
	if _, ok := c.flags["sender"]; !ok {
		r.fail("add -f and the sender's macro "+edit, "mxpipe gets no sender, so all mail is deferred")
	}
	if _, ok := c.flags["queue-id"]; !ok {
		r.warn("add --queue-id and the macro of the queue id "+edit,
			"without --queue-id a retried message can reach a recipient twice, and the logs do not name it")
	}
	if !c.ended {
		r.warn("put -- before the recipients "+edit, "a recipient that starts with - is taken for a flag and deferred")
	}
	socket := c.flags["socket"]
	if socket == "" {
		socket = defaultSocket
	}
	if d.Pipe != "" && socket != d.Pipe {
		r.fail("add --socket "+d.Pipe+" "+edit, "mxpipe connects to %s, but mxpolicyd listens on %s", socket, d.Pipe)
	}
	if t, ok := c.flags["transport"]; ok && len(d.Transports) > 0 && !slices.Contains(d.Transports, t) {
		r.fail("use one of "+strings.Join(d.Transports, ", ")+" "+edit, "mxpolicyd has no transport %q, so all mail is deferred", t)
	}
	if value, ok := c.flags["timeout"]; ok {
		if t, err := time.ParseDuration(value); err != nil || t <= 0 {
			r.fail("write a duration such as 15m "+edit, "--timeout %q is not a duration, so all mail is deferred", value)
		}
	}
}

// checkSize compares how large a message may be on both sides. 0 is no limit of
// the mail server's.
func checkSize(d Daemon, limit int64, mend string, r *report) {
	if d.MaxMessageSize > 0 && (limit == 0 || limit > d.MaxMessageSize) {
		r.warn(mend, "the mail server accepts larger messages than mxpolicyd (max_message_size is %d bytes), and they bounce", d.MaxMessageSize)
	}
}
