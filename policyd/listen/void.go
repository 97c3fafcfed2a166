package listen

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// Void is what listen says of a socket, and what has no effect.
type Void struct {
	Endpoint Endpoint
	Text     string // one line, for the administrator
}

// FindVoid tells which settings of listen have no effect, since systemd holds
// the socket of that name and has its own: once for each socket. held gives the
// addresses that systemd listens at by the names of the sockets. What listen
// says and systemd does alike is not told.
func FindVoid(cfg *config.Listen, held map[string]string) (all []Void) {
	if cfg.Builtin {
		return nil // nothing asked for anything
	}
	told := map[Endpoint]bool{}
	for _, at := range configured(cfg) {
		path, ok := held[at.Endpoint.String()]
		if !ok || told[at.Endpoint] {
			continue
		}
		if differ := at.differs(path); len(differ) > 0 {
			told[at.Endpoint] = true
			all = append(all, Void{at.Endpoint, fmt.Sprintf("listen.%s: %s: systemd holds this socket, at %s, and what listen says has no effect; set it in its socket unit (systemctl edit)",
				at.Kind, strings.Join(differ, ", "), path)})
		}
	}
	return all
}

// differs names what listen wants otherwise than the socket at an address is.
func (a listenAddr) differs(at string) (keys []string) {
	if a.address != "" {
		if a.address != at {
			keys = append(keys, "address "+a.address)
		}
		return keys
	}
	if a.socket.Path != at {
		keys = append(keys, "path "+a.socket.Path)
	}
	info, err := os.Stat(at)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return keys
	}
	if info.Mode().Perm() != a.socket.Mode {
		keys = append(keys, fmt.Sprintf("mode %04o", a.socket.Mode))
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if gid, err := groupID(a.socket.Group); ok && a.socket.Group != "" && err == nil && gid != int(stat.Gid) {
		keys = append(keys, "group "+a.socket.Group)
	}
	return keys
}
