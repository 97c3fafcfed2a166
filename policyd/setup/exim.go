package setup

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mxpipe/mxpipe/contrib"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// Exim is Debian's Exim as it is configured.
type Exim struct {
	// Dir is the directory of its configuration, /etc/exim4.
	Dir string
	// Settings are those of update-exim4.conf.conf(5), Passwords the keys of
	// passwd.client.
	Settings  map[string]string
	Passwords []string
	// Files are the texts of what is changed, by path, as far as they are
	// there; Main is the text of the main section.
	Files map[string]string
	Main  string
	// Own says that there is an exim4.conf, so that Debian's parts count for
	// nothing.
	Own bool
	// Reload has a running Exim read its configuration; empty: none runs.
	Reload []string
}

// eximParts are the files of contrib/exim/conf.d, in the order of sections.
var eximParts = []string{"main/50_mxpipe", "router/180_mxpipe", "transport/30_mxpipe", "transport/30_mxpolicyd_lmtp"}

// template is Debian's configuration in one file.
const template = "exim4.conf.template"

// ReadExim reads the configuration of Debian's Exim in a directory. The error
// is fs.ErrNotExist where there is none.
func ReadExim(dir string) (x Exim, err error) {
	x = Exim{Dir: dir, Settings: map[string]string{}, Files: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(dir, "update-exim4.conf.conf"))
	if err != nil {
		return x, err
	}
	for name, value := range settings(uncommented(string(text))) {
		x.Settings[name] = strings.ToLower(strings.Trim(value, `'"`))
	}
	if _, err := os.Stat(filepath.Join(dir, "exim4.conf")); err == nil {
		x.Own = true
	}
	names := append([]string{template}, eximParts...)
	for _, name := range names {
		file := filepath.Join(dir, "conf.d", name)
		if name == template {
			file = filepath.Join(dir, name)
		}
		if text, err := os.ReadFile(file); err == nil {
			x.Files[file] = string(text)
		}
	}
	x.Main, _, _ = strings.Cut(x.Files[filepath.Join(dir, template)], "\nbegin acl")
	if x.split() {
		x.Main = ""
		parts, _ := filepath.Glob(filepath.Join(dir, "conf.d/main/*"))
		for _, file := range parts {
			if path.Base(file) != path.Base(eximParts[0]) {
				text, _ := os.ReadFile(file)
				x.Main += string(text) + "\n"
			}
		}
	}
	passwords, _ := os.ReadFile(filepath.Join(dir, "passwd.client"))
	for line := range strings.Lines(string(passwords)) {
		if key, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key[:min(1, len(key))] != "#" {
			x.Passwords = append(x.Passwords, key)
		}
	}
	return x, nil
}

// split reports whether the configuration is made of the files in conf.d.
func (x Exim) split() bool { return x.Settings["dc_use_split_config"] == "true" }

// Plan makes the plan for one way.
func (x Exim) Plan(way Way, t Target) (Plan, error) {
	if err := x.possible(way, t); err != nil {
		return Plan{}, err
	}
	parts := []string{"main/50_mxpipe", "router/180_mxpipe", "transport/30_mxpipe"}
	if way == LMTP {
		parts = []string{"router/180_mxpipe", "transport/30_mxpolicyd_lmtp"}
	} else if autoThaw.MatchString(x.Main) {
		parts = parts[1:] // Exim takes no option twice
	}
	s := Step{Then: [][]string{{"update-exim4.conf"}}}
	if x.Reload != nil {
		s.Then = append(s.Then, x.Reload)
	}
	var whole string
	file := filepath.Join(x.Dir, template)
	if !x.split() {
		whole = x.Files[file]
	}
	for _, name := range parts {
		text := x.part(name, way, t)
		if x.split() {
			s.Changes = append(s.Changes, x.file(filepath.Join(x.Dir, "conf.d", name), text))
			continue
		}
		var err error
		if whole, err = insert(whole, name, text); err != nil {
			return Plan{}, err
		}
	}
	if !x.split() {
		s.Changes = []Change{x.file(file, whole)}
	}
	return Plan{Server: "exim", Way: way, Steps: []Step{s}}.trimmed(), nil
}

// file is the change of a file.
func (x Exim) file(name, text string) Change {
	c := Change{Kind: File, Name: name, After: &text}
	if before, there := x.Files[name]; there {
		c.Before = &before
	}
	return c
}

// autoThaw finds the option that contrib's main part sets.
var autoThaw = regexp.MustCompile(`(?m)^\s*auto_thaw\s*=`)

// possible says what stands in the way.
func (x Exim) possible(way Way, t Target) error {
	kind := x.Settings["dc_eximconfig_configtype"]
	smarthost := kind == "smarthost" || kind == "satellite"
	const byHand = "by hand, as contrib/exim/README.md says"
	switch {
	case way == Socketmap:
		return refuse("--way pipe or lmtp", "Exim asks for no policies")
	case way != Pipe && way != LMTP:
		return refuse("--way pipe or lmtp", "Exim does not know the way %q to mxpolicyd", way)
	case x.Own:
		return refuse(byHand, "Exim's configuration is %s, which is your own", filepath.Join(x.Dir, "exim4.conf"))
	case kind == "local":
		return refuse("dpkg-reconfigure exim4-config, if it shall send mail to other hosts", "Exim is configured to send no mail to other hosts (dc_eximconfig_configtype is local)")
	case kind != "internet" && !smarthost:
		return refuse(byHand, "dc_eximconfig_configtype is %q, so the configuration is your own", kind)
	case smarthost && way == LMTP:
		return refuse("--way pipe", "all mail goes to the smarthost %s, and LMTP has no place for it", x.Settings["dc_smarthost"])
	case !t.UserExists("mxpipe"):
		return refuse("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin mxpipe", "there is no user mxpipe to call as")
	case way == LMTP && len(t.Daemon.LMTP) == 0:
		return refuse("systemctl enable --now mxpolicyd-lmtp.socket, or listen: {lmtp: {}} in "+t.Config, "mxpolicyd has no socket for LMTP")
	case way == Pipe && t.Daemon.Pipe == "":
		return refuse("listen: {pipe: {}} in "+t.Config, "mxpolicyd has no socket for mxpipe")
	case way == Pipe && t.Mxpipe == "":
		return refuse("install mxpipe as /usr/bin/mxpipe", "there is no mxpipe that Exim could run")
	}
	if smarthost {
		host, port := mailserver.Smarthost(x.Settings["dc_smarthost"])
		for _, key := range x.Passwords {
			if matched, err := path.Match(strings.ToLower(key), host); err == nil && matched && !t.Daemon.HasLogin(host, port) {
				return refuse(mailserver.WriteRelay("exim", host, port)+"; or leave its mail to Exim's own smtp transport",
					"the smarthost %s wants a password (passwd.client), which mxpolicyd does not have", host)
			}
		}
	}
	return nil
}

// part is a file of contrib/exim/conf.d, for this host.
func (x Exim) part(name string, way Way, t Target) string {
	text, err := contrib.Files.ReadFile("exim/conf.d/" + name)
	if err != nil {
		panic(err) // it is part of the program
	}
	own := []string{"/usr/bin/mxpipe ", t.Mxpipe + " "}
	if t.Daemon.Pipe != defaultPipe {
		own[1] += "--socket " + t.Daemon.Pipe + " "
	}
	whole := string(text)
	if way == LMTP {
		// it has no place for a next hop
		whole, _, _ = strings.Cut(whole, "\n.ifdef DCconfig_smarthost")
		own = []string{"transport = mxpipe\n", "transport = mxpolicyd_lmtp\n", "/run/mxpolicyd/lmtp.sock", t.Daemon.LMTP[0]}
	}
	return strings.NewReplacer(own...).Replace(whole)
}

// banner is the line above and below Debian's headings.
const banner = "#####################################################\n"

// block is a part as Debian's template has its own.
func block(name, text string) string {
	return banner + "### " + name + "\n" + banner + text + banner + "### end " + name + "\n" + banner
}

// insert puts a part where it belongs in Debian's template, in place of an
// older one.
func insert(whole, name, text string) (string, error) {
	begin, end := banner+"### "+name+"\n", "### end "+name+"\n"+banner
	if i := strings.Index(whole, begin); i >= 0 {
		j := strings.Index(whole[i:], end)
		if j < 0 {
			return "", refuse("remove the rest of it", "%s has a part %s without an end", template, name)
		}
		return whole[:i] + block(name, text) + whole[i+j+len(end):], nil
	}
	section, _, _ := strings.Cut(name, "/")
	anchor := map[string]string{
		"main":      "begin acl\n",
		"router":    "### router/200_exim4-config_primary\n",
		"transport": "begin transports\n",
	}[section]
	i := strings.Index("\n"+whole, "\n"+anchor)
	if i < 0 {
		return "", refuse("put the parts of contrib/exim where its README.md says", "%s has no line %q", template, strings.TrimSpace(anchor))
	}
	switch section {
	case "router": // in front of the heading's own banner
		i -= len(banner)
		if i < 0 || !strings.HasPrefix(whole[i:], banner) {
			i += len(banner)
		}
	case "transport":
		i += len(anchor)
	}
	return whole[:i] + block(name, text) + "\n" + whole[i:], nil
}
