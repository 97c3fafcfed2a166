package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// duty is what a socket is for.
type duty uint8

const (
	forMail  duty = iota // what may use it may send mail
	forAsks              // what may use it may ask for policies
	forAdmin             // what may use it rules the daemon
)

// listener is a socket that the daemon answers at, or should.
type listener struct {
	key     string // below listen
	path    string // of a unix socket
	address string // host:port otherwise
	duty    duty
}

// Unit is a socket unit of systemd's that is active.
type Unit struct {
	Name   string   // FileDescriptorName=, by which the daemon knows it
	Listen []string // paths, and host:port
}

// duties says what the sockets of each name are for, and which key of listen
// they come before.
func duties(name string) (key string, d duty, known bool) {
	switch {
	case name == "pipe", name == "lmtp":
		return name, forMail, true
	case strings.HasPrefix(name, "lmtp-"):
		return "lmtp", forMail, true
	case name == "socketmap":
		return name, forAsks, true
	case name == "admin":
		return name, forAdmin, true
	}
	return "", 0, false
}

// listeners gives the sockets that should be there: those that systemd holds,
// and those that the configuration names and systemd does not hold.
func listeners(l *config.Listen, units []Unit) (all []listener) {
	held := map[string]bool{}
	for _, u := range units {
		key, d, known := duties(u.Name)
		for _, at := range u.Listen {
			switch {
			case !known:
			case strings.HasPrefix(at, "/"):
				all = append(all, listener{key: key, path: at, duty: d})
			default:
				all = append(all, listener{key: key, address: at, duty: d})
			}
		}
		held[u.Name] = true
	}
	if l.Builtin && len(units) > 0 {
		return all
	}
	add := func(name, key, path, address string, d duty) {
		if !held[name] && (path != "" || address != "") {
			all = append(all, listener{key: key, path: path, address: address, duty: d})
		}
	}
	if l.Builtin { // systemd may hold these all the same
		for _, given := range []struct {
			key string
			d   duty
		}{{"lmtp", forMail}, {"socketmap", forAsks}} {
			path := config.DefaultSocketDir + "/" + given.key + ".sock"
			if _, err := os.Lstat(path); err == nil {
				add(given.key, given.key, path, "", given.d)
			}
		}
	}
	if l.Pipe != nil {
		add("pipe", "pipe", l.Pipe.Path, "", forMail)
	}
	for i := range l.LMTP {
		name := "lmtp"
		if t := l.LMTP[i].Transport; t != config.DefaultTransport {
			name += "-" + t
		}
		add(name, "lmtp", l.LMTP[i].Path, "", forMail)
	}
	if l.Socketmap != nil {
		add("socketmap", "socketmap", l.Socketmap.Path, l.Socketmap.Address, forAsks)
	}
	if l.Admin != nil {
		add("admin", "admin", l.Admin.Path, "", forAdmin)
	}
	return all
}

// sockets looks at the sockets and at who may use them.
func (h Host) sockets(cfg *config.Config, units []Unit, running bool) (all []finding.Finding) {
	listening, err := h.Listening()
	if err != nil {
		all = append(all, warn("mount /proc", "sockets: cannot tell what is listening: %v", err))
	}
	for _, l := range listeners(&cfg.Listen, units) {
		if l.path == "" {
			all = append(all, h.address(l))
			continue
		}
		all = append(all, h.socket(l, listening, running)...)
	}
	if m := cfg.Listen.Metrics; m != "" && !loopback(m) {
		all = append(all, warn("set listen: {metrics: {address: 127.0.0.1:9461}}, or use a firewall", "metrics %s: not a loopback address, so anyone who reaches it can read them", m))
	}
	return all
}

func loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// start is the mend for what is not there.
const start = "systemctl enable --now mxpolicyd.socket, or mxpolicyd serve; then check its log"

// address finds out whether anybody listens at a TCP address.
func (h Host) address(l listener) finding.Finding {
	conn, err := net.DialTimeout("tcp", l.address, commandTime)
	if err != nil {
		return fail(start, "socket %s: nothing listens: daemon not running", l.address)
	}
	conn.Close()
	return ok("socket %s: open to every user of this host", l.address)
}

func (h Host) socket(l listener, listening map[string]bool, running bool) []finding.Finding {
	who := "socket " + l.path
	info, err := os.Lstat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && running:
		return []finding.Finding{fail("restart mxpolicyd, or correct listen."+l.key, "%s: does not exist although mxpolicyd is running", who)}
	case errors.Is(err, fs.ErrNotExist):
		return []finding.Finding{fail(start, "%s: does not exist: daemon not running", who)}
	case err != nil:
		return []finding.Finding{fail("run doctor as root", "%s: %v", who, err)}
	case info.Mode().Type() != fs.ModeSocket:
		return []finding.Finding{fail("rm "+l.path+", then restart mxpolicyd", "%s: a file that is not a socket, so mxpolicyd does not start", who)}
	case listening != nil && !listening[l.path]:
		return []finding.Finding{fail(start, "%s: nothing listens: daemon not running", who)}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if found := h.judgeAccess(l, info.Mode().Perm(), stat); found != nil {
		return found
	}
	return h.reachable(l, h.users(info.Mode().Perm(), stat))
}

// users says who may use a socket.
func (h Host) users(mode fs.FileMode, stat *syscall.Stat_t) string {
	users := "root"
	if owner := h.userName(int(stat.Uid)); owner != "root" && mode&0o200 != 0 {
		users += ", " + owner
	}
	if mode&0o020 != 0 {
		group, members := h.groupName(int(stat.Gid))
		users += ", group " + group
		if len(members) > 0 {
			users += " (" + strings.Join(members[:min(len(members), 5)], ", ") + ")"
		}
	}
	return users
}

// judgeAccess judges a socket's mode and group.
func (h Host) judgeAccess(l listener, mode fs.FileMode, stat *syscall.Stat_t) []finding.Finding {
	who := fmt.Sprintf("socket %s: mode %04o", l.path, mode)
	group, members := h.groupName(int(stat.Gid))
	setting := fmt.Sprintf("set listen: {%s: {mode: \"0660\", group: mxpipe}}, or SocketMode= and SocketGroup= of its .socket unit", l.key)
	switch l.duty {
	case forAdmin:
		if mode&0o022 != 0 {
			return []finding.Finding{warn("set listen: {admin: {mode: \"0600\"}}, or SocketMode=0600 of mxpolicyd-admin.socket", "%s lets users other than root control the daemon (%s)", who, h.users(mode, stat))}
		}
		return nil
	case forMail:
		if mode&0o002 != 0 {
			return []finding.Finding{fail(setting, "%s lets every user of this host send mail with any sender", who)}
		}
	}
	switch {
	case mode&0o022 == 0:
		return []finding.Finding{fail(setting, "%s allows only %s, so the mail server's user cannot use it", who, h.users(mode, stat))}
	case mode&0o002 == 0 && stat.Gid == 0:
		return []finding.Finding{fail(setting, "%s opens it to group %s, which a mail server's user should not be in", who, group)}
	case mode&0o002 == 0 && len(members) == 0:
		return []finding.Finding{fail("add the mail server's user to it (usermod -a -G "+group+" USER), then restart the mail server", "%s opens it to group %s, which has no members", who, group)}
	}
	return nil
}

// reachable finds directories on the way to a socket that its users cannot
// pass.
func (h Host) reachable(l listener, users string) []finding.Finding {
	if l.duty != forAdmin {
		for dir := filepath.Dir(l.path); ; dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			if err == nil && info.Mode().Perm()&0o001 == 0 && info.Mode().Perm()&0o010 == 0 {
				return []finding.Finding{fail("chmod 755 "+dir, "socket %s: directory %s (mode %04o) lets no one through", l.path, dir, info.Mode().Perm())}
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return []finding.Finding{ok("socket %s: open to %s", l.path, users)}
}
