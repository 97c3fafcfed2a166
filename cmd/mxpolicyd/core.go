package main

import "golang.org/x/sys/unix"

// withoutCore has the kernel write no core file when the daemon crashes: its
// memory holds other people's mail, and a relay's password. Where that is not
// allowed the unit has done it already (LimitCORE=0).
func withoutCore() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
