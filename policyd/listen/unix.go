package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/safeio"
	"github.com/mxpipe/mxpipe/policyd/config"
)

// openUnix opens a configured unix socket, in a directory that is made if need
// be. A socket file that nothing listens on any more is replaced. No one may
// connect before the socket has its group and mode.
func openUnix(ctx context.Context, s *config.Socket) (net.Listener, error) {
	if err := safeio.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, s.Path); err != nil {
		return nil, err
	}
	// The file gets its first mode from the socket (unix(7) has it from the
	// umask alone, Linux from both).
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := private.Listen(ctx, "unix", s.Path)
	if err != nil {
		return nil, err
	}
	if err := chown(s); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Check says which of the configured sockets cannot be opened, as far as that
// is seen without trying: something else lies in its place, or above it.
func Check(cfg *config.Listen) (err error) {
	for _, at := range configured(cfg) {
		if at.address != "" {
			continue
		}
		if _, failed := socketFile(at.socket.Path); failed != nil && !errors.Is(failed, fs.ErrPermission) {
			err = errors.Join(err, fmt.Errorf("listen.%s: %w", at.Kind, failed))
		}
	}
	return err
}

// socketFile reports whether there is a socket's file.
func socketFile(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode().Type() != fs.ModeSocket:
		return false, fmt.Errorf("%s: the file there is not a socket", path)
	}
	return true, nil
}

// removeStale removes a socket file that nothing listens on.
func removeStale(ctx context.Context, path string) error {
	if there, err := socketFile(path); err != nil || !there {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: in use by another process", path)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// chown gives a socket its owner, its group and its mode.
func chown(s *config.Socket) error {
	if err := safeio.GiveSocket(s.Path); err != nil {
		return err
	}
	if s.Group != "" {
		gid, err := groupID(s.Group)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Path, err)
		}
		if err := os.Lchown(s.Path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(s.Path, s.Mode)
}

func groupID(group string) (int, error) {
	if gid, err := strconv.Atoi(group); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
