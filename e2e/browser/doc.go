// Package browser looks at the page of "mxpolicyd web" as an administrator
// does: with Debian's Chromium, while a real mxpolicyd delivers to the lab's
// domains. It reads what is on the screen, clicks and types, and asks the
// daemon what became of it. axe-core, from npm, looks for what a person with a
// screen reader or a keyboard could not use.
//
// Chromium is driven over a pipe (--remote-debugging-pipe), with the few
// methods of the DevTools protocol that are needed: no port that somebody else
// may have, and no library of some hundred packages. Its profile is in the
// test's directory, and it ends with the test.
//
// "go test ./e2e/browser -update" writes the pictures of docs/.
package browser
