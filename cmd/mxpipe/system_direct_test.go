//go:build (amd64 || arm64) && !portable

package main

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers are written out, as the packages that have them cost too much.
func TestNumbers(t *testing.T) {
	for name, c := range map[string][2]int{
		"read": {sysRead, unix.SYS_READ}, "write": {sysWrite, unix.SYS_WRITE}, "close": {sysClose, unix.SYS_CLOSE},
		"pread64": {sysPread64, unix.SYS_PREAD64}, "socket": {sysSocket, unix.SYS_SOCKET}, "connect": {sysConnect, unix.SYS_CONNECT},
		"sendmsg": {sysSendmsg, unix.SYS_SENDMSG}, "setsockopt": {sysSetsockopt, unix.SYS_SETSOCKOPT}, "fcntl": {sysFcntl, unix.SYS_FCNTL},
		"getppid": {sysGetppid, unix.SYS_GETPPID}, "prctl": {sysPrctl, unix.SYS_PRCTL}, "exit_group": {sysExitGroup, unix.SYS_EXIT_GROUP},
		"openat": {sysOpenat, unix.SYS_OPENAT}, "ppoll": {sysPpoll, unix.SYS_PPOLL}, "prlimit64": {sysPrlimit64, unix.SYS_PRLIMIT64},
		"pidfd_open": {sysPidfdOpen, unix.SYS_PIDFD_OPEN},
		"AT_FDCWD":   {atFDCWD, unix.AT_FDCWD}, "O_RDONLY": {oRdonly, unix.O_RDONLY}, "O_CLOEXEC": {oCloexec, unix.O_CLOEXEC},
		"SOCK_CLOEXEC": {oCloexec, unix.SOCK_CLOEXEC}, "SOCK_NONBLOCK": {oNonblock, unix.SOCK_NONBLOCK},
		"F_GETFL": {fGetfl, unix.F_GETFL}, "F_SETFL": {fSetfl, unix.F_SETFL}, "O_NONBLOCK": {oNonblock, unix.O_NONBLOCK},
		"AF_UNIX": {afUnix, unix.AF_UNIX}, "SOCK_STREAM": {sockStream, unix.SOCK_STREAM}, "SOL_SOCKET": {solSocket, unix.SOL_SOCKET},
		"SO_SNDTIMEO": {soSndtimeo, unix.SO_SNDTIMEO}, "MSG_DONTWAIT": {msgDontwait, unix.MSG_DONTWAIT}, "MSG_NOSIGNAL": {msgNosignal, unix.MSG_NOSIGNAL},
		"POLLIN": {pollIn, unix.POLLIN}, "POLLOUT": {pollOut, unix.POLLOUT}, "POLLERR": {pollErr, unix.POLLERR}, "POLLHUP": {pollHup, unix.POLLHUP},
		"POLLNVAL": {pollNval, unix.POLLNVAL}, "PR_SET_DUMPABLE": {prSetDumpable, unix.PR_SET_DUMPABLE}, "RLIMIT_CORE": {rlimitCore, unix.RLIMIT_CORE},
		"EPERM": {int(eperm), int(unix.EPERM)}, "ENOENT": {int(enoent), int(unix.ENOENT)}, "EINTR": {int(eintr), int(unix.EINTR)},
		"EAGAIN": {int(eagain), int(unix.EAGAIN)}, "EACCES": {int(eacces), int(unix.EACCES)}, "EISCONN": {int(eisconn), int(unix.EISCONN)},
		"ECONNREFUSED": {int(econnrefused), int(unix.ECONNREFUSED)},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d, not %d", name, c[1], c[0])
		}
	}
}

// The texts are the kernel's, or the number's.
func TestErrnoTexts(t *testing.T) {
	known := 0
	for n := 1; n < 134; n++ {
		switch got := errno(n).Error(); {
		case got == syscall.Errno(n).Error():
			known++
		case !strings.HasPrefix(got, "error "):
			t.Errorf("%d: %q", n, got)
		}
	}
	if known < 16 {
		t.Errorf("%d texts are known", known)
	}
}
