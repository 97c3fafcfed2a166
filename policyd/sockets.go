package policyd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/config"
)

var errNoSocket = errors.New("there is no socket to serve: systemd handed over none, and listen names none")

// kind is what a socket serves.
type kind uint8

// The kinds of sockets. The name of a kind is that of its key under listen and
// of FileDescriptorName=; an LMTP socket for transport T is named lmtp-T there.
const (
	kindPipe kind = iota
	kindLMTP
	kindSocketmap
	kindAdmin
	kindMetrics
	kinds // how many there are
)

// String gives the name.
func (k kind) String() string {
	return [...]string{"pipe", "lmtp", "socketmap", "admin", "metrics"}[k]
}

// suits says why a kind can not be served at an address.
func (k kind) suits(at net.Addr) error {
	tcp, isTCP := at.(*net.TCPAddr)
	switch k {
	case kindPipe, kindLMTP:
		if at.Network() != "unix" {
			return errors.New("it is no unix socket: whoever reaches it could send mail")
		}
	case kindAdmin:
		if at.Network() != "unix" {
			return errors.New("it is no unix socket: whoever reaches it could rule the daemon")
		}
	case kindSocketmap:
		if isTCP && !tcp.IP.IsLoopback() {
			return errors.New("it is neither a unix socket nor a loopback address: answers could be forged on their way")
		}
	}
	return nil
}

// duty is what a socket is for: the same for one that systemd hands over and
// one that listen names.
type duty struct {
	kind      kind
	transport string // the one that messages of an LMTP socket take
}

// String gives the socket's name.
func (d duty) String() string {
	if d.kind == kindLMTP && d.transport != config.DefaultTransport {
		return d.kind.String() + "-" + d.transport
	}
	return d.kind.String()
}

// dutyOf reads a socket's name; ok is false when there is no such duty.
func dutyOf(name string) (d duty, ok bool) {
	for k := range kinds {
		if name == k.String() {
			d = duty{kind: k}
			if k == kindLMTP {
				d.transport = config.DefaultTransport
			}
			return d, true
		}
	}
	if t, ok := strings.CutPrefix(name, kindLMTP.String()+"-"); ok && t != "" {
		return duty{kindLMTP, t}, true
	}
	return duty{}, false
}

// socket is a socket that is served.
type socket struct {
	duty
	net.Listener
}

// sockets is what the daemon listens on. A transport may have several LMTP
// sockets.
type sockets []socket

// close closes all of them.
func (s sockets) close() {
	for _, l := range s {
		l.Close()
	}
}

// has reports whether there is a socket for a duty.
func (s sockets) has(d duty) bool {
	return slices.ContainsFunc(s, func(one socket) bool { return one.duty == d })
}

// listen takes the sockets that systemd handed over, and opens those that are
// configured and were not. What this version does not serve is named in the
// log.
func listen(ctx context.Context, handed []*os.File, cfg *config.Listen, served func(kind) bool, log *slog.Logger) (sockets, error) {
	files, err := handedOver(handed)
	if err != nil {
		return nil, err
	}
	var all sockets
	for _, name := range slices.Sorted(maps.Keys(files)) {
		l := files[name]
		d, ok := dutyOf(name)
		if !ok || !served(d.kind) {
			log.Warn("systemd handed over a socket that is not served", "socket", name)
			l.Close()
			continue
		}
		all = append(all, socket{d, l})
		if failed := d.kind.suits(l.Addr()); failed != nil {
			err = errors.Join(err, fmt.Errorf("systemd handed over %q, but %w", name, failed))
		}
	}
	given := all
	for _, place := range configured(cfg) {
		switch {
		case !served(place.kind):
			if !cfg.Builtin { // otherwise nobody asked
				log.Warn("listen names a socket that is not served", "socket", place.kind.String())
			}
		case given.has(place.duty) || cfg.Builtin && len(files) > 0 || err != nil:
		default:
			l, failed := place.open(ctx)
			if failed != nil {
				err = fmt.Errorf("listen.%s: %w", place.kind, failed)
				break
			}
			all = append(all, socket{place.duty, l})
		}
	}
	if err == nil && len(all) == 0 {
		err = errNoSocket
	}
	if err != nil {
		all.close()
		return nil, err
	}
	return all, nil
}

// place is where listen wants a socket: a unix socket, or a TCP address.
type place struct {
	duty
	unix    *config.Socket
	address string
}

// configured gives what listen names.
func configured(cfg *config.Listen) []place {
	var all []place
	if cfg.Pipe != nil {
		all = append(all, place{duty: duty{kind: kindPipe}, unix: cfg.Pipe})
	}
	for i := range cfg.LMTP {
		all = append(all, place{duty: duty{kindLMTP, cfg.LMTP[i].Transport}, unix: &cfg.LMTP[i].Socket})
	}
	if s := cfg.Socketmap; s != nil {
		all = append(all, place{duty: duty{kind: kindSocketmap}, unix: &s.Socket, address: s.Address})
	}
	if cfg.Admin != nil {
		all = append(all, place{duty: duty{kind: kindAdmin}, unix: &cfg.Admin.Socket})
	}
	if cfg.Metrics != "" {
		all = append(all, place{duty: duty{kind: kindMetrics}, address: cfg.Metrics})
	}
	return all
}

// open opens a configured socket.
func (p place) open(ctx context.Context) (net.Listener, error) {
	if p.address == "" {
		return open(ctx, p.unix)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if err := p.kind.suits(l.Addr()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.address, err), l.Close())
	}
	return l, nil
}

// handedOver makes listeners of the files that systemd passed on
// (sd_listen_fds(3)); each has the name of FileDescriptorName=. Closing such a
// listener leaves the socket, and who waits at it, with systemd.
func handedOver(files []*os.File) (map[string]net.Listener, error) {
	got := map[string]net.Listener{}
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
		for _, l := range got {
			l.Close()
		}
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
