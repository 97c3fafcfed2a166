// Package e2e holds tests in which nothing is played: a real Postfix or a real
// Exim keeps the queue and runs the real mxpipe, which hands its messages to a
// real mxpolicyd, which delivers to a second real Postfix, to real servers of
// other makes, or to the lab's mail servers. What a test asserts is read where
// an administrator would read it: in the mail server's log, in its queue, in
// the bounces it writes, and in what arrived.
//
// Every process works in one directory of its own under the directory for
// temporary files, listens on addresses of 127.0.0.0/8 only, and dies with the
// test; a caretaker process removes the directory even after a crash. Each test
// has its own domains, so that most tests share the mail servers and one
// mxpolicyd and run at the same time.
//
// Postfix works only for root, and so do these tests. They fail, and say so,
// where they cannot run: "make needs" installs the servers, "make unit" runs
// everything but this package.
package e2e
