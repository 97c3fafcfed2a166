// Package contrib holds what a mail server's configuration needs, as the files
// that are shipped: an administrator copies from them what "mxpolicyd setup"
// writes, and a test reads what both have.
package contrib

import "embed"

// Files are the shipped files, "postfix/master.cf.mxpipe" and so on.
//
//go:embed postfix exim
var Files embed.FS
