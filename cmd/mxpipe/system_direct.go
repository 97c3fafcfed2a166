//go:build (amd64 || arm64) && !portable

package main

import (
	"strconv"
	"unsafe" // also for go:linkname, see runtime.go
)

// syscall5 makes a system call. The result is negative for an error.
//
//go:noescape
func syscall5(number, a1, a2, a3, a4, a5 uintptr) (result int)

// splitResult splits what a system call returns.
func splitResult(result int) (n int, err errno) {
	if result < 0 {
		return 0, errno(-result)
	}
	return result, 0
}

func read(fd int, p []byte) (n int, err errno) {
	return splitResult(syscall5(sysRead, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0))
}

func readAt(fd int, p []byte, offset int64) (n int, err errno) {
	return splitResult(syscall5(sysPread64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(offset), 0))
}

func write(fd int, p []byte) (n int, err errno) {
	return splitResult(syscall5(sysWrite, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0))
}

func closeFD(fd int) { syscall5(sysClose, uintptr(fd), 0, 0, 0, 0) }

func getppid() int { return syscall5(sysGetppid, 0, 0, 0, 0, 0) }

// openFile opens a file for reading. The path ends with a NUL.
func openFile(path []byte) (fd int, err errno) {
	dir := atFDCWD
	return splitResult(syscall5(sysOpenat, uintptr(dir), uintptr(unsafe.Pointer(unsafe.SliceData(path))), oRdonly|oCloexec, 0, 0))
}

func pidfdOpen(pid int) (fd int, err errno) {
	return splitResult(syscall5(sysPidfdOpen, uintptr(pid), 0, 0, 0, 0))
}

// timespec is struct timespec; timeval has the same shape.
type timespec struct{ sec, part int }

// ready looks at descriptors as poll(2) does, and waits for nothing.
func ready(fds []pollFD) (n int, err errno) {
	var none timespec
	return splitResult(syscall5(sysPpoll, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)), uintptr(unsafe.Pointer(&none)), 0, 0))
}

// poll waits for so many milliseconds at most. It tells the runtime that it
// blocks, so that nothing watches over it meanwhile.
func poll(fds []pollFD, milliseconds int64) (n int, err errno) {
	limit := timespec{int(milliseconds / 1000), int(milliseconds % 1000 * 1_000_000)}
	return splitResult(blocking5(sysPpoll, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)), uintptr(unsafe.Pointer(&limit)), 0, 0))
}

func unixSocket() (fd int, err errno) {
	return splitResult(syscall5(sysSocket, afUnix, sockStream|oCloexec|oNonblock, 0, 0, 0))
}

// sockaddrUnix is struct sockaddr_un.
type sockaddrUnix struct {
	family uint16
	path   [108]byte // with a NUL
}

func connect(fd int, to *sockaddrUnix) errno {
	_, err := splitResult(syscall5(sysConnect, uintptr(fd), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to), 0, 0))
	return err
}

// connectInTurn is connect for a socket that blocks.
func connectInTurn(fd int, to *sockaddrUnix) errno {
	_, err := splitResult(blocking5(sysConnect, uintptr(fd), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to), 0, 0))
	return err
}

// blockInTurns has a socket block: connect waits for so many microseconds
// instead of returning EAGAIN at once.
func blockInTurns(fd int, microseconds int64) errno {
	limit := timespec{int(microseconds / 1_000_000), int(microseconds % 1_000_000)}
	if _, err := splitResult(syscall5(sysSetsockopt, uintptr(fd), solSocket, soSndtimeo, uintptr(unsafe.Pointer(&limit)), unsafe.Sizeof(limit))); err != 0 {
		return err
	}
	flags, err := splitResult(syscall5(sysFcntl, uintptr(fd), fGetfl, 0, 0, 0))
	if err == 0 {
		_, err = splitResult(syscall5(sysFcntl, uintptr(fd), fSetfl, uintptr(flags&^oNonblock), 0, 0))
	}
	return err
}

// iovec is struct iovec.
type iovec struct {
	base unsafe.Pointer
	size uintptr
}

// msghdr is struct msghdr (sendmsg(2)).
type msghdr struct {
	name        unsafe.Pointer
	nameSize    uint32
	parts       unsafe.Pointer
	count       uintptr
	control     unsafe.Pointer
	controlSize uintptr
	flags       int32
}

// send sends what it can of some pieces without waiting. A peer that has closed
// is an error, and no signal.
func send(fd int, pieces ...[]byte) (n int, err errno) {
	var parts [3]iovec
	for i, p := range pieces {
		parts[i] = iovec{unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p))}
	}
	header := msghdr{parts: unsafe.Pointer(&parts), count: uintptr(len(pieces))}
	return splitResult(syscall5(sysSendmsg, uintptr(fd), uintptr(unsafe.Pointer(&header)), msgDontwait|msgNosignal, 0, 0))
}

// forbidCore keeps a crash from leaving the message in a core file. The limit
// stops the file; a collector that the kernel pipes cores to is stopped by the
// process not being dumpable. If either fails there is nothing better to do.
func forbidCore() {
	var none [2]uint64
	syscall5(sysPrlimit64, 0, rlimitCore, uintptr(unsafe.Pointer(&none)), 0, 0)
	syscall5(sysPrctl, prSetDumpable, 0, 0, 0, 0)
}

// exit ends the process.
func exit(status int) {
	for {
		syscall5(sysExitGroup, uintptr(status), 0, 0, 0, 0)
	}
}

// The numbers that the two kinds of machines share.
const (
	eperm        errno = 1
	enoent       errno = 2
	eintr        errno = 4
	eagain       errno = 11
	eacces       errno = 13
	eisconn      errno = 106
	econnrefused errno = 111

	atFDCWD     = -100
	oRdonly     = 0
	oCloexec    = 0o2000000
	fGetfl      = 3
	fSetfl      = 4
	oNonblock   = 0o4000
	afUnix      = 1
	sockStream  = 1
	solSocket   = 1
	soSndtimeo  = 21
	msgDontwait = 0x40
	msgNosignal = 0x4000

	prSetDumpable = 4
	rlimitCore    = 4
)

var errnoTexts = [...]struct {
	number errno
	text   string
}{
	{eperm, "operation not permitted"},
	{enoent, "no such file or directory"},
	{5, "input/output error"},
	{9, "bad file descriptor"},
	{12, "cannot allocate memory"},
	{eacces, "permission denied"},
	{20, "not a directory"},
	{21, "is a directory"},
	{22, "invalid argument"},
	{23, "too many open files in system"},
	{24, "too many open files"},
	{36, "file name too long"},
	{40, "too many levels of symbolic links"},
	{91, "protocol wrong type for socket"},
	{105, "no buffer space available"},
	{econnrefused, "connection refused"},
}

// Error gives the kernel's text where it is likely to be met, else the number.
func (e errno) Error() string {
	for i := range errnoTexts {
		if errnoTexts[i].number == e {
			return errnoTexts[i].text
		}
	}
	return "error " + strconv.Itoa(int(e))
}

// entersyscallblock and exitsyscall go around a system call that waits. Without
// them the runtime takes the thread for busy and looks after it every few
// microseconds.
//
//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// blocking5 is syscall5 for a call that waits. No stack grows from the one to
// the other, so that what the arguments point to stays where it is.
//
//go:nosplit
func blocking5(number, a1, a2, a3, a4, a5 uintptr) (result int) {
	entersyscallblock()
	result = syscall5(number, a1, a2, a3, a4, a5)
	exitsyscall()
	return result
}
