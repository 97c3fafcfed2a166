//go:build !portable

package main

// The numbers of the system calls.
const (
	sysFcntl      = 25
	sysOpenat     = 56
	sysClose      = 57
	sysRead       = 63
	sysWrite      = 64
	sysPread64    = 67
	sysPpoll      = 73
	sysExitGroup  = 94
	sysPrctl      = 167
	sysGetppid    = 173
	sysSocket     = 198
	sysConnect    = 203
	sysSetsockopt = 208
	sysSendmsg    = 211
	sysPrlimit64  = 261
	sysPidfdOpen  = 434
)
