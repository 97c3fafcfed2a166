//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Mxpipe hands one message to mxpolicyd, the daemon that delivers it, and tells
// the mail server that started it what came of it. Postfix starts it from
// pipe(8), Exim from a pipe transport. It runs on Linux.
//
//	mxpipe [flags] -f SENDER [--] RECIPIENT...        message on standard input
//
// # Flags
//
// Flags come before the recipients, and after -- everything is a recipient. A
// value is written as --flag VALUE or --flag=VALUE. No flag but --orcpt may be
// given twice. An empty value means that the flag is not given, so that a mail
// server's empty macro does no harm; only --socket, --transport and --timeout
// insist on one.
//
//	-f, --sender ADDR     envelope sender, required; empty or <>: the
//	                      null sender
//	--socket PATH         the daemon's socket; default /run/mxpolicyd/pipe.sock
//	--transport NAME      the daemon's transport; default "default"
//	--queue-id ID         the mail server's own id of the message, for the logs
//	--nexthop HOST        deliver there: domain (its MX hosts) or [host], either
//	                      with :port
//	--size N              size of the message in bytes, a hint
//	--body TYPE           7bit or 8bitmime (RFC 6152), in any letter case
//	--smtputf8            the message needs SMTPUTF8 (RFC 6531)
//	--requiretls          the message must not travel without TLS (RFC 8689)
//	--quarantined         a content check marked the message: refuse it, 5.7.0
//	--ret TYPE            full or hdrs (RFC 3461 §4.3), in any letter case
//	--envid ID            the sender's envelope id, plain (RFC 3461 §4.4)
//	--notify LIST         NEVER, or SUCCESS, FAILURE, DELAY with commas
//	                      (RFC 3461 §4.1), in any letter case; holds for all
//	                      recipients
//	--orcpt TYPE;ADDR     original recipient, plain (RFC 3461 §4.2)
//	--timeout DURATION    give up, temporarily, after this long; default 15m
//	--version             print the version; not together with -f or recipients
//	--help                print the usage; not together with -f or recipients
//
// --smtputf8, --requiretls and --quarantined also take =VALUE: yes, true and 1
// give them, no, false, 0 and nothing do not.
//
// --orcpt is given once for a single recipient, or once for each recipient in
// their order; one without an address after its semicolon leaves that recipient
// without. Any other number of them is a usage error, unless none has an
// address. Postfix writes as many as there are recipients for
// --orcpt=rfc822;${original_recipient}, but only when it is written as one
// word.
//
// An address is passed on as it is; whether it is one, the daemon decides. No
// value may hold a control character or more than 1,024 bytes, and there are at
// most 1,000 recipients.
//
// # Output
//
// Standard output is one line of at most 900 bytes, its end included, fit to be
// printed: an enhanced status code (RFC 3463), a blank, and text for people.
// Its first digit always agrees with the exit status. Standard error stays
// empty, because mail servers mix the two. Only a crash of the program itself
// writes there.
//
// # Exit status
//
//	 0   every recipient was accepted by a remote server (2.x.x)
//	65   EX_DATAERR: the message itself is refused for good (5.6.x)
//	67   EX_NOUSER: refused for good, no such mailbox (5.1.1)
//	68   EX_NOHOST: the domain does not exist or takes no mail (5.1.2, 5.1.10,
//	     5.4.4)
//	69   EX_UNAVAILABLE: refused for good for another reason (any other 5.x.x)
//	75   EX_TEMPFAIL: try again (4.x.x)
//
// There is no other. All trouble of our own is 75: a wrong flag and a socket
// that one may not use (4.3.5), a daemon that is missing or went away (4.3.2),
// anything else between us and it (4.3.0), and time that ran out (4.4.7). An
// answer of the daemon that makes no sense is 75 with 4.3.0.
//
// A crash must not exit at all. The Go runtime ends a crashed program with
// status 2, which a mail server takes for a refusal and bounces the message, so
// mxpipe makes it end by a signal, SIGABRT, which a mail server takes for a
// temporary failure. This holds from the first statement of main. For the
// moment before, in which the runtime can fail to start a thread because the
// user has too many processes, the mail server should set GOTRACEBACK=crash in
// the command's environment. No core file is left, since it would hold mail.
//
// # Time
//
// --timeout counts from the start, and covers everything: a standard input that
// does not come, a daemon that does not listen, read or answer. The daemon is
// told what is left of it, less a little, so that it gives up first and says
// more about why. Keep it below the mail server's own limit: Postfix bounces a
// message whose command outlives that.
//
// # The cut-off message
//
// The end of standard input does not prove that the message is whole: a mail
// server that is killed while it writes closes the pipe too. So mxpipe
// commits the message, without which the daemon delivers nothing, only if
// standard input ended and the process that started mxpipe is still its parent
// and is not about to exit. Otherwise it ends with 75, as it does for an empty
// standard input and for one that cannot be read.
//
//   - The parent's id is remembered at the start and compared at the end.
//   - A process that is killed closes its pipes before it stops being anyone's
//     parent. So the kernel is asked in /proc/PID/stat whether the parent is
//     exiting. Where /proc does not show it (hidepid), mxpipe waits for a tenth
//     of a second in its place, and compares the parent's id then.
//   - A parent can be gone before mxpipe remembers it, and process 1 in its
//     place. So a parent that is process 1 from the start is taken for gone,
//     and likewise one outside mxpipe's process namespace. To try mxpipe by
//     hand in a container, start it from a shell that is not process 1. A
//     process that takes in orphans in the place of process 1
//     (PR_SET_CHILD_SUBREAPER in prctl(2)) is not told from a mail server that
//     started mxpipe: run no mail server below one.
//
// The process that writes the message must therefore be the one that starts
// mxpipe: behind a shell's pipe only the shell is watched, not the writer.
//
// Once the message is committed and the daemon has it, killing mxpipe cancels
// the delivery as long as the final dot was not sent.
//
// # The orphan
//
// A mail server that is stopped, or crashes, in the middle of a delivery keeps
// the message and sends it again when it is back. So an mxpipe whose parent is
// gone has nothing left to tell: it watches its parent from its start to its
// end, by a pidfd beside the socket, and ends as soon as the parent is dead, in
// whatever it waits for. An answer that it has not read by then it leaves
// unread. The daemon notices either: before the final dot it cancels the
// delivery, after it it waits for the outcome and writes it down, so that the
// next try is answered and not delivered again. What is left is the instant
// between the answer's being read and the end of mxpipe, of which a mail server
// that dies then learns nothing; SMTP itself has the like between its last two
// parties.
//
// Where the kernel has no pidfd (before 5.3, or behind a filter of system
// calls) the parent's id is compared instead: once a second, and before an
// answer is read.
package main

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() {
	// A panic would end us with status 2, and the mail server would bounce the
	// message. At this level it is SIGABRT, which leaves it in the queue. Fatal
	// errors, such as a deadlock, cannot be recovered from, but obey this too.
	setTraceback("crash")
	var s session
	s.parent = findParent()
	s.start = nanotime()
	s.socket = noSocket
	forbidCore()
	if err := s.options.parse(runtimeArgs()[1:]); err != nil {
		s.finish(failed(err))
	}
	if s.options.show != "" {
		emit(s.options.show)
		exit(0)
	}
	s.finish(s.run())
}

// finish prints the one line and ends the program.
func (s *session) finish(r result) {
	emit(view(r.appendLine(s.line[:0])))
	exit(exitStatus(r.code))
}
