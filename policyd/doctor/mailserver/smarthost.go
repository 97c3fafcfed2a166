package mailserver

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// eximRouter is one router, with its options as they are written.
type eximRouter struct {
	name    string
	options map[string]string
	nexthop string // what it sets r_nexthop to
}

// routers reads the routers' section of the configuration.
func (c eximConfig) routers() (list []eximRouter) {
	_, section, _ := strings.Cut("\n"+c.config, "\nbegin routers")
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "begin ") {
			break
		}
		if name, ok := strings.CutSuffix(line, ":"); ok && !strings.ContainsAny(name, " \t=#") && name != "" {
			list = append(list, eximRouter{name: name, options: map[string]string{}})
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if name, value = strings.TrimSpace(name), strings.TrimSpace(value); !ok || len(list) == 0 {
			continue
		}
		r := &list[len(list)-1]
		r.options[name] = value
		if variable, set, ok := strings.Cut(value, "="); ok && name == "set" && strings.TrimSpace(variable) == "r_nexthop" {
			r.nexthop = strings.TrimSpace(set)
		}
	}
	return list
}

// macro is what a macro stands for, as Debian's update-exim4.conf(8) defines
// them.
func (c eximConfig) macro(name string) (value string, defined bool) {
	for line := range strings.Lines(c.config) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.TrimSpace(left) == name {
			return strings.TrimSpace(right), true
		}
	}
	return "", false
}

// smarthost checks that mail goes no further than Debian's
// dc_eximconfig_configtype lets it.
func (c eximConfig) smarthost(d Daemon, r *report) {
	const mend = "use the router of contrib/exim (mxpolicyd setup exim)"
	_, local := c.macro("DCconfig_local")
	_, smarthost := c.macro("DCconfig_smarthost")
	_, satellite := c.macro("DCconfig_satellite")
	if !local && !smarthost && !satellite {
		return
	}
	used := c.used(d)
	for _, router := range c.routers() {
		i := slices.IndexFunc(used, func(t eximTransport) bool { return t.name == router.options["transport"] })
		if i < 0 || router.options["driver"] == "manualroute" {
			continue
		}
		switch {
		case local:
			r.fail(mend, "dc_eximconfig_configtype is local, which sends nothing to other hosts, but the router %s does", router.name)
		case used[i].options["driver"] == "lmtp":
			r.fail("use the pipe transport, or leave the mail to Exim's own router", "the router %s sends directly to the recipients' domains by LMTP, but dc_eximconfig_configtype wants the smarthost", router.name)
		case router.nexthop == "":
			r.fail(mend, "the router %s sends directly to the recipients' domains, but dc_eximconfig_configtype wants the smarthost", router.name)
		default:
			c.password(d, router, r)
		}
	}
}

// password tells of a smarthost that wants a password, which mxpolicyd.yaml
// does not have.
func (c eximConfig) password(d Daemon, router eximRouter, r *report) {
	hosts, _ := c.macro("DCsmarthost")
	host, port := Smarthost(hosts)
	if d.HasLogin(host, port) {
		return
	}
	for _, key := range c.passwords {
		if matched, err := path.Match(strings.ToLower(key), strings.ToLower(host)); err == nil && matched {
			r.fail(write("exim", host, port, port == 465)+"; or leave mail to Exim's own smtp transport: remove the router "+router.name,
				"the smarthost %s requires a password (%s in passwd.client), which mxpolicyd does not have, so the smarthost refuses all mail", host, key)
			return
		}
	}
}

// Smarthost reads the first host of a list as Debian's dc_smarthost has it:
// "host::port; other".
func Smarthost(list string) (host string, port int) {
	first, _, _ := strings.Cut(strings.ReplaceAll(list, "::", "\x00"), ";")
	first, _, _ = strings.Cut(first, ":")
	host, number, given := strings.Cut(strings.TrimSpace(first), "\x00")
	port = 25
	if n, err := strconv.Atoi(strings.TrimSpace(number)); given && err == nil {
		port = n
	}
	return strings.ToLower(strings.TrimSpace(host)), port
}
