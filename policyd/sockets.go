package policyd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// pipeSocket is the name of the socket for mxpipe.
const pipeSocket = "pipe"

var errNoSocket = errors.New("there is no socket to serve: systemd handed over none, and listen names none")

// sockets is what the daemon listens on, by name.
type sockets map[string]net.Listener

// close closes all of them.
func (s sockets) close() {
	for _, l := range s {
		l.Close()
	}
}

// listen takes the sockets that systemd handed over, and opens those that are
// configured and were not. What this version does not serve is named in the
// log.
func listen(ctx context.Context, handed []*os.File, cfg *config.Listen, log *slog.Logger) (sockets, error) {
	got, err := handedOver(handed)
	if err != nil {
		return nil, err
	}
	if l := got[pipeSocket]; l != nil && l.Addr().Network() != "unix" {
		got.close()
		return nil, errors.New("systemd handed over a pipe socket that is no unix socket: whoever reaches it could send mail")
	}
	given := len(got) > 0
	for name, l := range got {
		if name != pipeSocket {
			log.Warn("systemd handed over a socket that is not served", "socket", name)
			l.Close()
			delete(got, name)
		}
	}
	for _, name := range notServed(cfg) {
		log.Warn("listen names a socket that is not served", "socket", name)
	}
	if cfg.Pipe != nil && got[pipeSocket] == nil && !(cfg.Builtin && given) {
		if got[pipeSocket], err = open(ctx, cfg.Pipe); err != nil {
			delete(got, pipeSocket)
			got.close()
			return nil, fmt.Errorf("listen.pipe: %w", err)
		}
	}
	if len(got) == 0 {
		return nil, errNoSocket
	}
	return got, nil
}

// notServed names what a configuration asks for in vain.
func notServed(cfg *config.Listen) []string {
	var names []string
	if cfg.Builtin {
		return nil // nobody asked
	}
	if len(cfg.LMTP) > 0 {
		names = append(names, "lmtp")
	}
	if cfg.Socketmap != nil {
		names = append(names, "socketmap")
	}
	if cfg.Admin != nil {
		names = append(names, "admin")
	}
	if cfg.Metrics != "" {
		names = append(names, "metrics")
	}
	return names
}

// handedOver makes listeners of the files that systemd passed on
// (sd_listen_fds(3)); each has the name of FileDescriptorName=. Closing such a
// listener leaves the socket, and who waits at it, with systemd.
func handedOver(files []*os.File) (sockets, error) {
	got := sockets{}
	var failed error
	for _, f := range files {
		name := f.Name()
		l, err := listener(f)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("systemd handed over %q, which can not be served: %w", name, err))
		case got[name] != nil:
			failed = errors.Join(failed, fmt.Errorf("systemd handed over two sockets named %q", name))
			l.Close()
		default:
			got[name] = l
		}
	}
	if failed != nil {
		got.close()
		return nil, failed
	}
	return got, nil
}

// listener makes a listener of a file and closes the file.
func listener(f *os.File) (net.Listener, error) {
	defer f.Close()
	fd := int(f.Fd())
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return nil, err
	} else if on == 0 {
		return nil, errors.New("it is not a socket that listens (ListenStream= with Accept=no)")
	}
	return net.FileListener(f)
}

// open opens a configured unix socket, in a directory that is made if need be.
// A socket file that nobody listens on any more is replaced. Nobody may connect
// before the socket has its group and mode.
func open(ctx context.Context, s *config.Socket) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
		return nil, err
	}
	if err := vacate(ctx, s.Path); err != nil {
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
	if err := own(s); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// vacate removes a socket file that nobody listens on.
func vacate(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s: there is a file that is no socket", path)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: another process is listening there", path)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// own gives a socket its group and mode.
func own(s *config.Socket) error {
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
