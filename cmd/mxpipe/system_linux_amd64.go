//go:build !portable

package main

// The numbers of the system calls.
const (
	sysRead       = 0
	sysWrite      = 1
	sysClose      = 3
	sysPread64    = 17
	sysSocket     = 41
	sysConnect    = 42
	sysSendmsg    = 46
	sysSetsockopt = 54
	sysFcntl      = 72
	sysGetppid    = 110
	sysPrctl      = 157
	sysExitGroup  = 231
	sysOpenat     = 257
	sysPpoll      = 271
	sysPrlimit64  = 302
	sysPidfdOpen  = 434
)
