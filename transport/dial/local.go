package dial

import (
	"errors"
	"net/netip"
	"syscall"
)

// LocalError is a connection that this host could not even begin: the trouble
// is ours, and nothing follows from it for the remote host. [TCP] gives it.
type LocalError struct {
	What string // in words
	Err  error  // of the operating system
	// Source says that it lies with the source address, so that another one
	// may do.
	Source bool
}

// Error says what is wrong with this host.
func (e *LocalError) Error() string { return e.What }

// Unwrap returns the error of the operating system.
func (e *LocalError) Unwrap() error { return e.Err }

// Local reports whether every attempt failed for reasons of ours. Through
// something that is all that is known.
func (e *Error) Local() bool {
	if e.Through != "" {
		return len(e.Attempts) > 0
	}
	for _, a := range e.Attempts {
		var ours *LocalError
		if !errors.As(a.Err, &ours) {
			return false
		}
	}
	return e.Cause == nil && len(e.Attempts) > 0
}

// SourceFailed reports whether every attempt failed for the source address.
func (e *Error) SourceFailed() bool {
	for _, a := range e.Attempts {
		var ours *LocalError
		if !errors.As(a.Err, &ours) || !ours.Source {
			return false
		}
	}
	return e.Cause == nil && len(e.Attempts) > 0
}

// sourceFails reports whether an error of the operating system lies with the
// source address.
func sourceFails(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EINVAL)
}

// localTrouble says what is wrong with this host when it could not begin a
// connection from a source address, which is not valid where the kernel
// chooses; "": nothing is, as far as the error tells. EHOSTUNREACH is left out,
// because routers far away say so about hosts. They can say ENETUNREACH too,
// but then a host is merely tried more often than it need be.
func localTrouble(err error, local netip.Addr) string {
	is := func(numbers ...syscall.Errno) bool {
		for _, n := range numbers {
			if errors.Is(err, n) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.EMFILE):
		return "this process has no file descriptor left"
	case is(syscall.ENFILE):
		return "this host has no file descriptor left"
	case is(syscall.ENOBUFS, syscall.ENOMEM):
		return "this host has no memory left for connections"
	case is(syscall.EADDRNOTAVAIL, syscall.EADDRINUSE) && local.IsValid():
		return "the source address " + local.String() + " is not this host's, or has no port left"
	case is(syscall.EADDRNOTAVAIL, syscall.EADDRINUSE):
		return "this host has no local port left"
	case is(syscall.EPERM, syscall.EACCES):
		return "this host's firewall or sandbox does not permit it"
	case is(syscall.EINVAL) && local.IsValid():
		return "nothing can be sent there from the source address " + local.String()
	case is(syscall.ENETUNREACH, syscall.ENETDOWN):
		return "this host has no route there"
	case is(syscall.EAFNOSUPPORT):
		return "this host cannot connect to such addresses"
	}
	return ""
}
