package policyd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// sockets is what the daemon listens on, by the names of DESIGN: pipe, lmtp,
// lmtp-T, socketmap, admin.
type sockets map[string]net.Listener

// handedOver takes the sockets that systemd opened, by FileDescriptorName=.
func handedOver() (sockets, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, err
	}
	got := sockets{}
	for name, list := range byName {
		for _, l := range list {
			if l == nil {
				return nil, fmt.Errorf("systemd handed over a socket named %q that is no stream socket", name)
			}
			if got[name] != nil {
				return nil, fmt.Errorf("systemd handed over two sockets named %q", name)
			}
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false) // it stays with systemd
			}
			got[name] = l
		}
	}
	return got, nil
}

// open opens a configured unix socket. A socket file that nobody listens on
// any more is replaced.
func open(s *config.Socket) (net.Listener, error) {
	if conn, err := net.Dial("unix", s.Path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another process is listening there", s.Path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if info, err := os.Lstat(s.Path); err == nil && info.Mode().Type() == os.ModeSocket {
			os.Remove(s.Path)
		}
	}
	l, err := net.Listen("unix", s.Path)
	if err != nil {
		return nil, err
	}
	if err := own(s); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// own gives a socket its mode and group.
func own(s *config.Socket) error {
	if s.Group != "" {
		gid, err := strconv.Atoi(s.Group)
		if err != nil {
			g, err := user.LookupGroup(s.Group)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Path, err)
			}
			if gid, err = strconv.Atoi(g.Gid); err != nil {
				return fmt.Errorf("%s: group %s: %w", s.Path, s.Group, err)
			}
		}
		if err := os.Lchown(s.Path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(s.Path, s.Mode)
}
