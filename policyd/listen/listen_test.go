package listen

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/policyd/config"
)

func tryOpen(t *testing.T, s *config.Socket) (net.Listener, error) {
	t.Helper()
	l, err := openUnix(t.Context(), s)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func connects(path string) error {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	return err
}

// A socket has the mode and the group that are configured, whatever the umask.
func TestOwnSocket(t *testing.T) {
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	gid := os.Getgid()
	groups := []string{"", strconv.Itoa(gid)}
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		groups = append(groups, g.Name)
	}
	if os.Getuid() == 0 {
		gid = 65534
		groups = []string{"65534"}
	}
	for _, group := range groups {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
			s := &config.Socket{Path: filepath.Join(t.TempDir(), "run", "mxpolicyd", "s.sock"), Mode: mode, Group: group}
			l, err := tryOpen(t, s)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(s.Path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != fs.ModeSocket|mode || int(info.Sys().(*syscall.Stat_t).Gid) != gid {
				t.Errorf("mode %v, group %d", info.Mode(), info.Sys().(*syscall.Stat_t).Gid)
			}
			if err := connects(s.Path); err != nil {
				t.Error(err)
			}
			l.Close()
			if _, err := os.Stat(s.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after Close: %v", err)
			}
		}
	}
}

func TestUnknownGroup(t *testing.T) {
	s := &config.Socket{Path: filepath.Join(t.TempDir(), "s.sock"), Mode: 0o666, Group: "no-such-group"}
	if _, err := tryOpen(t, s); err == nil || !strings.Contains(err.Error(), "no-such-group") {
		t.Errorf("%v", err)
	}
	if err := connects(s.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket is left: %v", err)
	}
}

// A socket that a daemon left behind is replaced; one that is in use, and what
// is no socket, is not.
func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	s := &config.Socket{Path: filepath.Join(dir, "s.sock"), Mode: 0o600}
	l, err := tryOpen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(t, s); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("in use: %v", err)
	}
	if err := connects(s.Path); err != nil {
		t.Errorf("the one in use is gone: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := connects(s.Path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a stale socket: %v", err)
	}
	if _, err := tryOpen(t, s); err != nil {
		t.Errorf("stale: %v", err)
	}
	file := &config.Socket{Path: filepath.Join(dir, "file"), Mode: 0o600}
	if err := os.WriteFile(file.Path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(t, file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if got, err := os.ReadFile(file.Path); string(got) != "precious" {
		t.Errorf("the file: %q, %v", got, err)
	}
	if _, err := tryOpen(t, &config.Socket{Path: filepath.Join(file.Path, "s.sock")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

// handed makes files as systemd hands them over.
type handed struct {
	t     *testing.T
	dir   string
	files []*os.File
}

func (h *handed) add(name string, f *os.File, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	// activation.Files names the files like this.
	h.files = append(h.files, os.NewFile(dup(h.t, f), name))
	f.Close()
}

func dup(t *testing.T, f *os.File) uintptr {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(fd)
}

func (h *handed) unix(name string) {
	h.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(h.dir, strconv.Itoa(len(h.files))), Net: "unix"})
	if err != nil {
		h.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	h.add(name, f, err)
}

func (h *handed) tcp(name string) {
	h.t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	h.add(name, f, err)
}

func (h *handed) datagram(name string) {
	h.t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(h.dir, "dgram"), Net: "unixgram"})
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	f, err := c.File()
	h.add(name, f, err)
}

func (h *handed) connection(name string) {
	h.t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	syscall.Close(pair[1])
	h.add(name, os.NewFile(uintptr(pair[0]), name), nil)
}

func (h *handed) file(name string) {
	h.t.Helper()
	f, err := os.Open(os.DevNull)
	h.add(name, f, err)
}

// Which sockets are served, of those that systemd hands over and those that are
// configured.
func TestListen(t *testing.T) {
	type configured func(path string) config.Listen
	builtin := func(path string) config.Listen {
		return config.Listen{Builtin: true, Pipe: &config.Socket{Path: path, Mode: 0o600}, Admin: &config.Admin{Socket: config.Socket{Path: path + "2", Mode: 0o600}}}
	}
	pipe := func(path string) config.Listen {
		return config.Listen{Pipe: &config.Socket{Path: path, Mode: 0o600}}
	}
	nothing := func(string) config.Listen { return config.Listen{} }
	everything := func(path string) config.Listen {
		l := builtin(path)
		l.Builtin, l.LMTP, l.Socketmap, l.Metrics = false, []config.LMTP{{}}, &config.Socketmap{}, "127.0.0.1:9461"
		return l
	}
	for _, c := range []struct {
		name   string
		handed func(*handed)
		cfg    configured
		opened bool   // the configured one
		err    string // or none is served, and why
		warned []string
	}{
		{name: "built-in", cfg: builtin, opened: true},
		{name: "configured", cfg: pipe, opened: true},
		{name: "configured in vain", cfg: everything, opened: true, warned: []string{"lmtp", "socketmap", "admin", "metrics"}},
		{name: "none", cfg: nothing, err: ErrNoSocket.Error()},
		{name: "handed over", handed: func(h *handed) { h.unix("pipe") }, cfg: nothing},
		{name: "handed over and built-in", handed: func(h *handed) { h.unix("pipe") }, cfg: builtin},
		{name: "handed over and configured", handed: func(h *handed) { h.unix("pipe") }, cfg: pipe, warned: []string{"pipe"}},
		{name: "another handed over and configured", handed: func(h *handed) { h.unix("admin") }, cfg: pipe, opened: true, warned: []string{"admin"}},
		{name: "another handed over and built-in", handed: func(h *handed) { h.unix("admin") }, cfg: builtin, err: ErrNoSocket.Error(), warned: []string{"admin"}},
		{name: "a unit's name", handed: func(h *handed) { h.unix("mxpolicyd.socket") }, cfg: nothing, err: ErrNoSocket.Error(), warned: []string{"mxpolicyd.socket"}},
		{name: "two of one name", handed: func(h *handed) { h.unix("pipe"); h.unix("pipe") }, cfg: pipe, err: `two sockets named "pipe"`},
		{name: "TCP", handed: func(h *handed) { h.tcp("pipe") }, cfg: nothing, err: "not a unix socket"},
		{name: "a datagram socket", handed: func(h *handed) { h.datagram("pipe") }, cfg: pipe, err: "not a listening socket"},
		{name: "a connection", handed: func(h *handed) { h.unix("admin"); h.connection("pipe") }, cfg: pipe, err: "Accept=no"},
		{name: "no socket at all", handed: func(h *handed) { h.file("pipe") }, cfg: pipe, err: `"pipe"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &handed{t: t, dir: t.TempDir()}
			if c.handed != nil {
				c.handed(h)
			}
			path := filepath.Join(h.dir, "own")
			cfg := c.cfg(path)
			words := testlog.New()
			before := openFiles(t)
			got, err := Open(t.Context(), h.files, &cfg, only(KindPipe), slog.New(slog.NewTextHandler(words, nil)))
			t.Cleanup(got.Close)
			if n := words.Count("WARN"); n != len(c.warned) {
				t.Errorf("%d warnings:\n%s", n, words)
			}
			for _, name := range c.warned {
				words.Wait(t, "socket="+name)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %s", err, c.err)
				}
				if n := openFiles(t); n != before-len(h.files) {
					t.Errorf("%d files are open, were %d with %d handed over", n, before, len(h.files))
				}
				if err := connects(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the configured socket: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].Endpoint != (Endpoint{Kind: KindPipe}) {
				t.Fatalf("%v", got)
			}
			where := filepath.Join(h.dir, "0")
			if c.opened {
				where = path
			}
			if a := got[0].Addr().String(); a != where {
				t.Errorf("served at %s, want %s", a, where)
			}
			if err := connects(where); err != nil {
				t.Error(err)
			}
			got.Close()
			if _, err := os.Stat(where); c.opened != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

// only has some kinds of sockets served.
func only(some ...EndpointKind) func(EndpointKind) bool {
	return func(k EndpointKind) bool { return slices.Contains(some, k) }
}

// Every kind of socket is opened where listen names it, and taken from systemd
// by its name; of those that systemd hands over none is opened.
func TestEveryKindOfSocket(t *testing.T) {
	every := only(KindPipe, KindLMTP, KindSocketmap, KindAdmin, KindMetrics)
	dir := t.TempDir()
	at := func(name string) config.Socket { return config.Socket{Path: filepath.Join(dir, name), Mode: 0o600} }
	pipe, admin := at("pipe"), config.Admin{Socket: at("admin")}
	cfg := config.Listen{
		Pipe: &pipe, Admin: &admin, Metrics: "127.0.0.1:0",
		LMTP:      []config.LMTP{{Socket: at("l1"), Transport: "default"}, {Socket: at("l2"), Transport: "other"}, {Socket: at("l3"), Transport: "other"}},
		Socketmap: &config.Socketmap{Address: "127.0.0.1:0"},
	}
	names := func(s Sockets) string {
		var all []string
		for _, one := range s {
			all = append(all, one.Endpoint.String()+"/"+one.Addr().Network())
		}
		return strings.Join(all, " ")
	}
	log := slog.New(slog.DiscardHandler)
	opened, err := Open(t.Context(), nil, &cfg, every, log)
	t.Cleanup(opened.Close)
	if got := names(opened); err != nil || got != "pipe/unix lmtp/unix lmtp-other/unix lmtp-other/unix socketmap/tcp admin/unix metrics/tcp" {
		t.Errorf("opened %s, %v", got, err)
	}
	for k := range kinds {
		if !slices.ContainsFunc(opened, func(s Socket) bool { return s.Kind == k }) {
			t.Errorf("listen opens no socket of kind %s", k)
		}
		// The configuration has a key of that name.
		_, err := config.Parse("f", []byte("listen: {"+k.String()+": 0}"), config.Environment{})
		if err == nil || strings.Contains(err.Error(), "unknown key") {
			t.Errorf("listen.%s: %v", k, err)
		}
	}
	h := &handed{t: t, dir: t.TempDir()}
	for _, name := range []string{"pipe", "lmtp", "lmtp-other", "admin"} {
		h.unix(name)
	}
	h.tcp("socketmap")
	h.tcp("metrics")
	taken, err := Open(t.Context(), h.files, &cfg, every, log)
	t.Cleanup(taken.Close)
	if got := names(taken); err != nil || got != "admin/unix lmtp/unix lmtp-other/unix metrics/tcp pipe/unix socketmap/tcp" {
		t.Errorf("taken %s, %v", got, err)
	}
}

// A socket that strangers could reach is refused, no matter what opened it.
func TestSocketOfTheWrongKind(t *testing.T) {
	every := only(KindPipe, KindLMTP, KindSocketmap, KindAdmin, KindMetrics)
	for _, name := range []string{"pipe", "lmtp", "lmtp-other", "admin"} {
		h := &handed{t: t, dir: t.TempDir()}
		h.tcp(name)
		got, err := Open(t.Context(), h.files, &config.Listen{}, every, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "not a unix socket") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// Whatever kind there is: only the metrics are for the network.
	for k := range kinds + 1 {
		if err := k.allowedAt(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}); (err == nil) != (k == KindMetrics) {
			t.Errorf("kind %d at a public address: %v", k, err)
		}
	}
	cfg := config.Listen{Socketmap: &config.Socketmap{Address: "0.0.0.0:0"}}
	if got, err := Open(t.Context(), nil, &cfg, every, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "listen.socketmap: 0.0.0.0:0: ") {
		t.Errorf("%v, %v", got, err)
	}
}

// systemd has a unit for each kind of socket but the metrics'.
func TestEveryKindOfSocketHasAUnit(t *testing.T) {
	units, err := filepath.Glob("../../packaging/systemd/*.socket")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(string(text), "\nFileDescriptorName=")
		name, _, _ = strings.Cut(name, "\n")
		got = append(got, name)
	}
	for k := range kinds {
		if k != KindMetrics {
			want = append(want, k.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("there are units for %q, want %q", got, want)
	}
}

// Names of sockets are read as they are written.
func TestSocketNames(t *testing.T) {
	for _, name := range []string{"pipe", "lmtp", "lmtp-other", "lmtp-a-b", "socketmap", "admin", "metrics"} {
		if d, ok := parseEndpoint(name); !ok || d.String() != name {
			t.Errorf("%s: %+v, %v", name, d, ok)
		}
	}
	if d, _ := parseEndpoint("lmtp"); d.Transport != config.DefaultTransport {
		t.Errorf("lmtp is for %q", d.Transport)
	}
	for _, name := range []string{"", "lmtp-", "pipes", "pipe-x", "mxpolicyd.socket"} {
		if d, ok := parseEndpoint(name); ok {
			t.Errorf("%q: %+v", name, d)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
