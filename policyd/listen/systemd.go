package listen

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// activated makes listeners of the files that systemd passed on
// (sd_listen_fds(3)); each has the name of FileDescriptorName=. Closing such a
// listener leaves the socket, and who waits at it, with systemd.
func activated(files []*os.File) (map[string]net.Listener, error) {
	got := map[string]net.Listener{}
	var failed error
	for _, f := range files {
		name := f.Name()
		l, err := fileListener(f)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("systemd passed %q, which cannot be served: %w", name, err))
		case got[name] != nil:
			failed = errors.Join(failed, fmt.Errorf("systemd passed two sockets named %q", name))
			l.Close()
		default:
			got[name] = l
		}
	}
	if failed != nil {
		for _, l := range got {
			l.Close()
		}
		return nil, failed
	}
	return got, nil
}

// fileListener makes a listener of a file and closes the file.
func fileListener(f *os.File) (net.Listener, error) {
	defer f.Close()
	fd := int(f.Fd())
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return nil, err
	} else if on == 0 {
		return nil, errors.New("not a listening socket (ListenStream= with Accept=no)")
	}
	return net.FileListener(f)
}
