// Demo delivers mail through the real mxpipe and the real mxpolicyd to an
// internet on loopback, and prints what became of each message and why. "make
// demo" builds the two programs and runs it; it needs Go and nothing else: no
// root, no mail server, no network, no port below 1024.
//
//	demo [-bin DIR] [-v]
//
// It starts the lab's world of well-known domains (package world), writes a
// configuration and starts mxpolicyd with it. Then it sends the messages that
// the file messages.go lists, one after the other, each by a call of mxpipe, as
// a mail server would. Beside each stands what must come of it: exit status,
// status code, the host that got the message and how it came there. A message
// that arrived must be the one that was sent, byte for byte. Then it hands one
// message over by LMTP for the recipients that the file letters.go lists. At
// last it asks mxpolicyd what Postfix's own smtp(8) would ask it, as the file
// asks.go lists.
//
// Exit status 0 when all went as it should; 1 when something did not, with
// mxpolicyd's log lines about it, or when something could not be started; 130
// when it was interrupted, or nothing reads its output any more. -v shows the
// configuration and mxpolicyd's log after each message. Everything lives in a
// temporary directory, which is gone at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() { os.Exit(start()) }

func start() int {
	bin := flag.String("bin", "bin", "`directory` of mxpipe and mxpolicyd")
	verbose := flag.Bool("v", false, "show the configuration and the log of mxpolicyd")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		return 1
	}
	// SIGPIPE is for "make demo | head", which must not leave anything behind
	// either.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	// It stays caught to the end: each further line raises it again.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// A second interrupt does not wait.
	defer context.AfterFunc(ctx, stop)()

	d := demo{bin: *bin, verbose: *verbose, table: newTable(os.Stdout, terminal(os.Stdout)), messages: messages(), letters: letters(), asks: asks()}
	switch err := d.run(ctx); {
	case err == nil:
		return 0
	case errors.Is(err, errUnexpected):
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted, all is cleared away")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
}

// terminal finds out what the table can do on a file.
func terminal(f *os.File) screen {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return screen{}
	}
	s := screen{terminal: true, width: int(size.Col), colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if s.width == 0 {
		s.width = 80 // it does not know, as some serial lines
	}
	return s
}
