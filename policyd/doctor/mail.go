package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// mailServer has the configuration of each mail server judged that is here.
func (h Host) mailServer(ctx context.Context, ours mailserver.Daemon) (all []finding.Finding) {
	main, master, err := h.Postfix(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		all = append(all, warn("run \"postfix check\"", "Postfix: cannot read its configuration: %v", err))
	default:
		all = mailserver.Postfix(ours, main, master)
		if limits, ok := h.Limits(mailserver.PostfixPIDFile(main)); ok {
			all = append(all, limits.Problems("Postfix")...)
		}
		for _, c := range mailserver.PostfixCallers(ours, main, master) {
			all = append(all, h.caller(c)...)
		}
	}
	exim, err := h.Exim(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		all = append(all, warn("run \"exim -bV\"", "Exim: cannot read its configuration: %v", err))
	default:
		all = append(all, mailserver.Exim(ours, exim)...)
		if limits, ok := h.Limits(mailserver.EximPIDFile(exim)); ok {
			all = append(all, limits.Problems("Exim")...)
		}
		for _, c := range mailserver.EximCallers(ours, exim) {
			all = append(all, h.caller(c)...)
		}
	}
	all = oneVerdict(all)
	if len(all) == 0 {
		all = append(all, ok("mail server: neither Postfix nor Exim found on this host"))
	}
	return all
}

// oneVerdict leaves out that an entry of a mail server is correct where
// something else is wrong with it.
func oneVerdict(all []finding.Finding) []finding.Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f finding.Finding) bool {
		entry, correct := strings.CutSuffix(f.What, ": correct")
		return correct && slices.ContainsFunc(all, func(other finding.Finding) bool {
			return other.Level != finding.OK && strings.HasPrefix(other.What, entry+": ")
		})
	})
}

// caller finds out whether the socket, and each directory on the way to it,
// lets in whom the mail server calls as.
func (h Host) caller(c mailserver.Caller) []finding.Finding {
	uid, gid, known := h.user(c.User)
	if !known {
		return []finding.Finding{fail("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "+c.User,
			"%s: its user %s does not exist, so all mail is deferred", c.Entry, c.User)}
	}
	if c.Group != "" {
		if gid, known = h.group(c.Group); !known {
			return []finding.Finding{fail("groupadd --system "+c.Group, "%s: its group %s does not exist, so all mail is deferred", c.Entry, c.Group)}
		}
	}
	info, err := os.Stat(c.Socket)
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm()&0o022 == 0 {
		return nil // which was said of the sockets
	}
	who := identity{uid: uid, groups: []int{gid}}
	if c.AllGroups {
		who.groups = append(who.groups, h.groupsOf(c.User)...)
	}
	closed, wants := c.Socket, who.denied(info, 0o2)
	for dir := filepath.Dir(c.Socket); wants < 0; dir = filepath.Dir(dir) {
		// the other was said of the sockets
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o011 != 0 {
			closed, wants = dir, who.denied(info, 0o1)
		}
		if dir == "/" || dir == "." {
			break
		}
	}
	if wants < 0 {
		return nil
	}
	group, _ := h.groupName(wants)
	has := "with groups " + strings.Join(h.groupNames(who.groups), ", ")
	if !c.AllGroups {
		has = "with group " + h.groupNames(who.groups)[0] + " only"
	}
	return []finding.Finding{fail(c.Regroup(group), "%s: runs as %s %s, but %s is open to group %s only, so all mail is deferred", c.Entry, c.User, has, closed, group)}
}

// identity is whom a process runs as.
type identity struct {
	uid    int
	groups []int
}

// denied gives the group that a file or a directory is for, when it keeps the
// process out, and -1 when it does not. bit is what the process must be
// allowed, as for others: 2 to write, 1 to pass.
func (i identity) denied(info fs.FileInfo, bit fs.FileMode) int {
	stat, isUnix := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !isUnix:
		return -1
	case int(stat.Uid) == i.uid:
		mode >>= 6
	case slices.Contains(i.groups, int(stat.Gid)):
		mode >>= 3
	}
	if mode&bit != 0 {
		return -1
	}
	return int(stat.Gid)
}

// OurSide is what a mail server's configuration must agree with, and whether
// systemd holds the daemon's sockets.
func (h Host) OurSide(ctx context.Context, cfg *config.Config) (d mailserver.Daemon, systemd bool) {
	units := h.Units(ctx)
	return ourSide(cfg, units), len(units) > 0
}

// ourSide is what a mail server's configuration must agree with.
func ourSide(cfg *config.Config, units []Unit) mailserver.Daemon {
	d := mailserver.Daemon{
		Transports:     slices.Sorted(maps.Keys(cfg.Transports)),
		MaxMessageSize: cfg.MaxMessageSize,
		MaxDeliveries:  cfg.MaxDeliveries,
		MinTLS:         map[string]verdict.TLSLevel{},
	}
	for name, t := range cfg.Transports {
		d.MinTLS[name] = verdict.TLSNone
		if local := t.MXAuth.Local; local != nil {
			d.MinTLS[name] = local.MinTLS
		}
		if t.Relay != nil {
			d.Relayed = append(d.Relayed, name)
		}
		d.Relays = append(d.Relays, relaysOf(t)...)
		d.Pins = d.Pins || slices.ContainsFunc(t.Overrides, func(o transport.Override) bool { return len(o.Pins) > 0 })
	}
	for _, l := range listeners(&cfg.Listen, units) {
		switch l.key {
		case "pipe":
			d.Pipe = l.path
		case "lmtp":
			d.LMTP = append(d.LMTP, l.path)
		case "socketmap":
			d.Socketmap = append(d.Socketmap, cmp.Or(l.path, l.address))
		}
	}
	return d
}

// relaysOf gives the relays of a transport, in the form that a mail server's
// configuration is held against.
func relaysOf(t *transport.Config) (list []mailserver.Relay) {
	add := func(c *transport.Config, all bool) {
		if r := c.Relay; r != nil {
			list = append(list, mailserver.Relay{Host: r.Name(), Port: int(r.Port), All: all, Login: len(r.Auth) > 0})
		}
	}
	add(t, true)
	for _, o := range t.Overrides {
		if o.Config.Relay != t.Relay {
			add(o.Config, false)
		}
	}
	return list
}

// anywhere is a domain that exists nowhere, for the sake of its next hop.
const anywhere = "doctor.invalid"

// connect tries a mail server with the default transport, under no policy.
func connect(ctx context.Context, cfg *config.Config, server string) finding.Finding {
	one := *cfg.Transports[config.DefaultTransport]
	one.MXAuth, one.Overrides = transport.PolicySet{}, nil
	to := one
	host := "[" + server + "]"
	if name, port, ok := cutPort(server); ok {
		host = "[" + name + "]:" + port
	}
	one.Overrides = []transport.Override{{Match: anywhere, Nexthop: host, Config: &to}}
	alone := *cfg
	alone.Transports = map[string]*transport.Config{config.DefaultTransport: &one}
	e, err := policyd.Explain(ctx, &alone, config.DefaultTransport, &transport.Question{Domain: anywhere, Depth: transport.Connect})
	const mend = "if the server is up, the network or the provider blocks the connection: have it unblocked, or use a relay (overrides with nexthop)"
	switch {
	case err != nil:
		return fail("give host or host:port", "connection to %s: %v", server, err)
	case e.Error != nil && e.Error.Cause != outcome.CauseConn.String():
		return warn("the network is open; what the server says is about this host's address or name, or about itself: ask its postmaster, or try another server",
			"connection to %s: %s %s", server, e.Error.Status, e.Error.Text)
	case e.Error != nil:
		return fail(mend, "connection to %s: %s %s", server, e.Error.Status, e.Error.Text)
	}
	for _, h := range e.Hosts {
		if h.Connection != nil && h.Connection.Error == nil {
			return ok("connection to %s: %s", server, h.Connection.Via)
		}
	}
	return fail(mend, "connection to %s: no host to connect to", server)
}
