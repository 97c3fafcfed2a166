package setup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// ThisHost is the daemon's side on this host.
func ThisHost(d mailserver.Daemon, config string, systemd bool) Target {
	return Target{
		Daemon: d, Config: config, Systemd: systemd, Mxpipe: findMxpipe(), Groups: groupOf,
		Exists: func(path string) bool {
			_, err := os.Stat(path)
			return err == nil
		},
		UserExists: func(name string) bool {
			_, err := user.Lookup(name)
			return err == nil
		},
	}
}

// findMxpipe finds mxpipe where packages have it, beside this program or in
// PATH; empty: nowhere.
func findMxpipe() string {
	candidates := []string{"/usr/bin/mxpipe"}
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), "mxpipe"))
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	path, err := exec.LookPath("mxpipe")
	if err != nil {
		return ""
	}
	return path
}

// groupOf gives the group that a socket is for, and whether a user is in it.
func groupOf(socket, name string) (group string, member bool) {
	info, err := os.Stat(socket)
	if err != nil {
		return "", false
	}
	stat, isUnix := info.Sys().(*syscall.Stat_t)
	if !isUnix || info.Mode().Perm()&0o002 != 0 {
		return "", false
	}
	gid := strconv.Itoa(int(stat.Gid))
	group = gid
	if g, err := user.LookupGroupId(gid); err == nil {
		group = g.Name
	}
	u, err := user.Lookup(name)
	if err != nil {
		return group, false
	}
	all, err := u.GroupIds()
	return group, err == nil && slices.Contains(all, gid)
}

// eximDir is where Debian's Exim is configured.
const eximDir = "/etc/exim4"

// Plan reads the configuration of a mail server on this host and makes the plan
// for one way.
func (m Machine) Plan(ctx context.Context, server string, way Way, t Target) (Plan, error) {
	if server == "postfix" {
		p, err := m.Postfix(ctx)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			return Plan{}, refuse("", "there is no Postfix here: %v", err)
		}
		if err != nil {
			return Plan{}, err
		}
		return p.Plan(way, t)
	}
	x, err := ReadExim(eximDir)
	if errors.Is(err, fs.ErrNotExist) {
		return Plan{}, refuse("by hand, as contrib/exim/README.md says", "there is no Exim here that is configured as Debian does (%v)", err)
	}
	if err != nil {
		return Plan{}, err
	}
	if _, err := os.Stat("/run/exim4/exim.pid"); err == nil {
		x.Reload = []string{"service", "exim4", "reload"}
	}
	return x.Plan(way, t)
}
