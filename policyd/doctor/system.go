package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// commandTime bounds a program that is asked.
const commandTime = 10 * time.Second

// System gives the machine that the program runs on; the daemon, if it runs, is
// asked by client.
func System(client *admin.Client) Host {
	return Host{
		Etc: "/etc", Signed: ".", Slow: 100 * time.Millisecond, Now: time.Now(), Built: built(), UID: os.Getuid(),
		Synchronised: synchronised,
		Roots:        x509.SystemCertPool,
		Interfaces: func() ([]netip.Addr, error) {
			self, err := route.ThisHost()
			return self.Interfaces, err
		},
		Listening:  func() (map[string]bool, error) { return listening("/proc/net/unix") },
		Units:      Units,
		Filesystem: filesystem,
		Postfix:    postfix,
		Exim:       exim,
		Limits: func(pidFile string) (mailserver.Limits, bool) {
			pid, err := os.ReadFile(pidFile)
			if err != nil {
				return mailserver.Limits{}, false
			}
			limits, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/limits")
			if err != nil {
				return mailserver.Limits{}, false
			}
			return parseLimits(string(limits))
		},
		Daemon: func(ctx context.Context) (int, bool) {
			if s, err := client.Status(ctx); err == nil {
				return s.UID, true
			}
			u, err := user.Lookup(config.ServiceUser)
			if err != nil {
				return -1, false
			}
			uid, err := strconv.Atoi(u.Uid)
			if err != nil {
				return -1, false
			}
			return uid, false
		},
	}
}

// parseLimits reads the limits from a process's /proc/PID/limits.
func parseLimits(text string) (l mailserver.Limits, ok bool) {
	addressSpace, ok1 := parseLimit(text, "Max address space")
	data, ok2 := parseLimit(text, "Max data size")
	return mailserver.Limits{AddressSpace: addressSpace, Data: data}, ok1 && ok2
}

// parseLimit reads one soft limit.
func parseLimit(text, name string) (limit uint64, ok bool) {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		f := strings.Fields(rest)
		if len(f) > 0 && f[0] == "unlimited" {
			return math.MaxUint64, true
		}
		if len(f) > 0 {
			limit, err := strconv.ParseUint(f[0], 10, 64)
			return limit, err == nil
		}
	}
	return 0, false
}

// built is when the program's source was committed.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value)
			return t
		}
	}
	return time.Time{}
}

// synchronised asks the kernel whether anybody keeps its clock right.
func synchronised() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}

// listening reads the unix sockets of /proc/net/unix that listen: those with
// __SO_ACCEPTCON among their flags.
func listening(file string) (map[string]bool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	paths := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		const acceptcon = 1 << 16
		if flags, err := strconv.ParseUint(f[3], 16, 32); err == nil && flags&acceptcon != 0 {
			paths[f[7]] = true
		}
	}
	return paths, nil
}

// Units asks systemctl(1) for the daemon's sockets; none where no systemd runs.
func Units(ctx context.Context) []Unit {
	program, err := find("systemctl")
	if err != nil {
		return nil
	}
	out, err := run(ctx, program, "show", "--property=FileDescriptorName,Listen,ActiveState", "mxpolicyd*.socket")
	if err != nil {
		return nil // no systemd runs here
	}
	return parseUnits(out)
}

// parseUnits reads what "systemctl show" prints: a block for each unit, with a
// line "Listen=ADDRESS (Stream)" for each of its sockets.
func parseUnits(text string) (all []Unit) {
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var u Unit
		active := false
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "FileDescriptorName":
				u.Name = value
			case "Listen":
				at, _, _ := strings.Cut(value, " (")
				u.Listen = append(u.Listen, at)
			case "ActiveState":
				active = value == "active"
			}
		}
		if active && u.Name != "" {
			all = append(all, u)
		}
	}
	return all
}

// filesystem asks the kernel.
func filesystem(path string) (Filesystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Filesystem{}, err
	}
	return Filesystem{ReadOnly: s.Flags&unix.ST_RDONLY != 0, Free: int64(s.Bavail) * int64(s.Bsize)}, nil
}

// postfix asks postconf(1).
func postfix(ctx context.Context) (main, master string, err error) {
	program, err := find("postconf")
	if err != nil {
		return "", "", err
	}
	if main, err = run(ctx, program); err == nil {
		master, err = run(ctx, program, "-M")
	}
	return main, master, err
}

// exim asks exim(8), by the name that Debian gives it or by its own. Only root
// is shown the whole configuration.
func exim(ctx context.Context) (out mailserver.EximOutput, err error) {
	program, err := find("exim4")
	if err != nil {
		if program, err = find("exim"); err != nil {
			return out, err
		}
	}
	if out.Main, err = run(ctx, program, "-bP"); err == nil {
		out.Transports, err = run(ctx, program, "-bP", "transports")
	}
	if err == nil {
		out.Config, _ = run(ctx, program, "-bP", "config")
		out.Passwords = passwordKeys("/etc/exim4/passwd.client")
	}
	return out, err
}

// passwordKeys gives the hosts that Debian's exim4_passwd_client(5) has a
// password for.
func passwordKeys(file string) (keys []string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if key, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			keys = append(keys, key)
		}
	}
	return keys
}

// find looks for a program, also where an ordinary user's PATH does not lead.
// The error is fs.ErrNotExist.
func find(name string) (string, error) {
	if program, err := exec.LookPath(name); err == nil {
		return program, nil
	}
	program := "/usr/sbin/" + name
	if _, err := os.Stat(program); err != nil {
		return "", fs.ErrNotExist
	}
	return program, nil
}

// run gives what a program prints.
func run(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// cutPort parts "host:port"; ok is false when there is no port. IPv6 addresses
// with a port have brackets.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
		return s, "", false
	}
	return strings.Trim(s[:i], "[]"), s[i+1:], true
}
