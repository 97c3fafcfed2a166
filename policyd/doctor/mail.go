package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport"
)

// mailServer has the configuration of each mail server judged that is here.
func (h Host) mailServer(ctx context.Context, cfg *config.Config) (all []finding.Finding) {
	main, master, err := h.Postfix(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		all = append(all, warn("run \"postfix check\"", "Postfix: its configuration can not be read: %v", err))
	default:
		all = mailserver.Postfix(ourSide(cfg), main, master)
		for _, c := range mailserver.PostfixCallers(master) {
			all = append(all, h.caller(c)...)
		}
	}
	exim, err := h.Exim(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		all = append(all, warn("run \"exim -bV\"", "Exim: its configuration can not be read: %v", err))
	default:
		all = append(all, mailserver.Exim(ourSide(cfg), exim)...)
		for _, c := range mailserver.EximCallers(ourSide(cfg), exim) {
			all = append(all, h.caller(c)...)
		}
	}
	if len(all) == 0 {
		all = append(all, ok("mail server: there is no Postfix and no Exim here to look at"))
	}
	return all
}

// caller finds out whether the socket lets in whom the mail server calls as.
func (h Host) caller(c mailserver.Caller) []finding.Finding {
	uid, gid, known := h.user(c.User)
	if !known {
		return []finding.Finding{fail("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "+c.User,
			"%s: there is no user %s to call as, so all mail is deferred", c.Entry, c.User)}
	}
	if c.Group != "" {
		if gid, known = h.group(c.Group); !known {
			return []finding.Finding{fail("groupadd --system "+c.Group, "%s: there is no group %s to call as, so all mail is deferred", c.Entry, c.Group)}
		}
	}
	info, err := os.Stat(c.Socket)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil // which was said of the sockets
	}
	stat, isUnix := info.Sys().(*syscall.Stat_t)
	if !isUnix {
		return nil
	}
	allowed := info.Mode().Perm()&0o002 != 0
	switch {
	case int(stat.Uid) == uid:
		allowed = info.Mode().Perm()&0o200 != 0
	case int(stat.Gid) == gid:
		allowed = info.Mode().Perm()&0o020 != 0
	}
	if allowed || info.Mode().Perm()&0o022 == 0 {
		return nil // the latter was said of the sockets
	}
	has, _ := h.groupName(gid)
	wants, _ := h.groupName(int(stat.Gid))
	return []finding.Finding{fail(c.Regroup(wants), "%s: it calls as %s with the group %s alone, and %s is for the group %s, so all mail is deferred", c.Entry, c.User, has, c.Socket, wants)}
}

// ourSide is what a mail server's configuration must agree with.
func ourSide(cfg *config.Config) mailserver.Daemon {
	d := mailserver.Daemon{
		Transports:     slices.Sorted(maps.Keys(cfg.Transports)),
		MaxMessageSize: cfg.MaxMessageSize,
		MaxDeliveries:  cfg.MaxDeliveries,
	}
	if p := cfg.Listen.Pipe; p != nil {
		d.Pipe = p.Path
	}
	for i := range cfg.Listen.LMTP {
		d.LMTP = append(d.LMTP, cfg.Listen.LMTP[i].Path)
	}
	if s := cfg.Listen.Socketmap; s != nil {
		d.Socketmap = cmp.Or(s.Path, s.Address)
	}
	return d
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
	e, err := policyd.Explain(ctx, &alone, config.DefaultTransport, anywhere, transport.Connect)
	const mend = "if it is up, this host's network or provider blocks the way: have it opened, or send by a relay (overrides with nexthop)"
	switch {
	case err != nil:
		return fail("want host or host:port", "connection to %s: %v", server, err)
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
