package doctor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// collector looks at the socket of the TLSRPT collector, for the user that the
// daemon runs as (-1: unknown). Mail does not wait for it, so nothing here
// is worse than a warning.
func (h Host) collector(cfg *config.TLSRPT, uid int) []finding.Finding {
	if cfg.Socket == "" {
		return nil
	}
	who := "TLSRPT collector " + cfg.Socket
	info, err := os.Stat(cfg.Socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding.Finding{warn("start the collector, or correct tlsrpt.socket", "%s: does not exist, so no TLS reports are sent", who)}
	case err != nil:
		return []finding.Finding{warn("run doctor as root", "%s: %v", who, err)}
	case info.Mode().Type() != fs.ModeSocket:
		return []finding.Finding{warn("correct tlsrpt.socket", "%s: not a socket", who)}
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if known && uid > 0 && !h.mayWrite(uid, info.Mode().Perm(), stat) {
		group, _ := h.groupName(int(stat.Gid))
		return []finding.Finding{warn("have the collector give its socket mode 0660 and a group that "+h.userName(uid)+" is in",
			"%s: mode %04o, owner %s and group %s do not let mxpolicyd (user %s) use it", who, info.Mode().Perm(), h.userName(int(stat.Uid)), group, h.userName(uid))}
	}
	// Nothing is sent: connecting a datagram socket only asks the kernel who is
	// at the other end.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: cfg.Socket, Net: "unixgram"})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return []finding.Finding{warn("start the collector", "%s: nothing listens, so no TLS reports are sent", who)}
	case errors.Is(err, unix.EPROTOTYPE):
		return []finding.Finding{warn("correct tlsrpt.socket", "%s: not a datagram socket", who)}
	case err != nil:
		return []finding.Finding{warn("run doctor as root", "%s: %v", who, err)}
	}
	conn.Close()
	return []finding.Finding{ok("%s: listening", who)}
}

// mayWrite tells whether a user may write to a file, by its mode.
func (h Host) mayWrite(uid int, mode fs.FileMode, stat *syscall.Stat_t) bool {
	if int(stat.Uid) == uid {
		return mode&0o200 != 0
	}
	if _, members := h.groupName(int(stat.Gid)); slices.Contains(members, h.userName(uid)) {
		return mode&0o020 != 0
	}
	return mode&0o002 != 0
}
