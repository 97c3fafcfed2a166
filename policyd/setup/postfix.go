package setup

import (
	"context"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/contrib"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// Postfix is a Postfix as it is.
type Postfix struct {
	// Settings are the values of main.cf or Postfix's defaults, Written those
	// that are in main.cf, by name.
	Settings, Written map[string]string
	Master            string // what "postconf -M" prints
	QueueDirectory    string
	User              string // of its delivery agents
	Running           bool
}

// Postfix reads the configuration of the Postfix on this host.
func (m Machine) Postfix(ctx context.Context) (p Postfix, err error) {
	all, err := m.Run(ctx, "postconf")
	if err != nil {
		return p, err
	}
	written, err := m.Run(ctx, "postconf", "-n")
	if err != nil {
		return p, err
	}
	if p.Master, err = m.Run(ctx, "postconf", "-M"); err != nil {
		return p, err
	}
	values, err := m.Run(ctx, "postconf", "-hx", "queue_directory", "mail_owner")
	if err != nil {
		return p, err
	}
	p.Settings, p.Written = settings(all), settings(written)
	if lines := strings.Split(values, "\n"); len(lines) >= 2 {
		p.QueueDirectory, p.User = lines[0], lines[1]
	}
	_, stopped := m.Run(ctx, "postfix", "status")
	p.Running = stopped == nil
	return p, nil
}

// settings reads lines of the form "name = value".
func settings(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return all
}

// setting is one of them; nil when it is not there.
func setting(text, name string) *string {
	value, ok := settings(text)[name]
	if !ok {
		return nil
	}
	return &value
}

// entryOf finds the entry of "service/type" in what "postconf -M" prints, or in
// a file of contrib, as one line with single blanks; nil when it is not there.
func entryOf(master, name string) *string {
	var found []string
	for line := range strings.Lines(master) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0][0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if found != nil {
				found = append(found, words...)
			}
		case found != nil:
			return joined(found)
		case len(words) > 7 && words[0]+"/"+words[1] == name:
			found = words
		}
	}
	if found == nil {
		return nil
	}
	return joined(found)
}

func joined(words []string) *string {
	line := strings.Join(words, " ")
	return &line
}

// Plan makes the plan for one way.
func (p Postfix) Plan(way Way, t Target) (Plan, error) {
	plan := Plan{Server: "postfix", Way: way}
	var err error
	switch way {
	case Pipe:
		plan.Steps, err = p.pipe(t)
	case LMTP:
		plan.Steps, err = p.lmtp(t)
	case Socketmap:
		plan.Steps, err = p.socketmap(t)
	default:
		err = refuse("--way pipe, lmtp or socketmap", "Postfix does not know the way %q to mxpolicyd", way)
	}
	if err != nil {
		return Plan{}, err
	}
	if p.Running {
		last := &plan.Steps[len(plan.Steps)-1]
		last.Then = append(last.Then, []string{"postfix", "reload"})
	}
	if plan.Notes, err = p.judge(plan, t); err != nil {
		return Plan{}, err
	}
	return plan.trimmed(), nil
}

// judge has the doctor look at what Postfix would be like. A mistake that would
// hold up mail or send it astray is a refusal.
func (p Postfix) judge(plan Plan, t Target) (notes []finding.Finding, err error) {
	values, master := map[string]string{}, p.Master
	for name, value := range p.Settings {
		values[name] = value
	}
	d := t.Daemon
	for _, s := range plan.Steps {
		for _, c := range s.Changes {
			switch {
			case c.Kind == MainCF:
				values[c.Name] = *c.After
			case c.Kind == MasterCF:
				master = without(master, c.Name) + *c.After + "\n"
			case c.Kind == File:
				d.Socketmap = []string{tcpAddress}
			}
		}
	}
	var main strings.Builder
	for name, value := range values {
		main.WriteString(name + " = " + value + "\n")
	}
	for _, f := range mailserver.Postfix(d, main.String(), master) {
		switch f.Level {
		case finding.Fail:
			return nil, refuse(f.Mend, "%s", f.What)
		case finding.Warn:
			notes = append(notes, f)
		}
	}
	return notes, nil
}

// without leaves an entry out.
func without(master, name string) string {
	var b strings.Builder
	skip := false
	for line := range strings.Lines(master) {
		if words := strings.Fields(line); len(words) > 1 && line[0] != ' ' && line[0] != '\t' {
			skip = words[0]+"/"+words[1] == name
		}
		if !skip {
			b.WriteString(line)
		}
	}
	return b.String()
}

// set is the change of a setting.
func (p Postfix) set(name, value string) Change {
	c := Change{Kind: MainCF, Name: name, After: &value}
	if before, written := p.Written[name]; written {
		c.Before = &before
	}
	if p.Settings[name] == value {
		c.After = c.Before // it is so already, be it by default
	}
	return c
}

// entry is the change of an entry.
func (p Postfix) entry(name, line string) Change {
	return Change{Kind: MasterCF, Name: name, Before: entryOf(p.Master, name), After: &line}
}

// shipped reads a file of contrib/postfix.
func shipped(name string) string {
	text, err := contrib.Files.ReadFile("postfix/" + name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return string(text)
}

// pipe has Postfix run mxpipe.
func (p Postfix) pipe(t Target) ([]Step, error) {
	if t.Daemon.Pipe == "" {
		return nil, refuse("listen: {pipe: {}} in "+t.Config, "mxpolicyd has no socket for mxpipe")
	}
	if t.Mxpipe == "" {
		return nil, refuse("install mxpipe as /usr/bin/mxpipe", "there is no mxpipe that Postfix could run")
	}
	if !t.UserExists("mxpipe") {
		return nil, refuse("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin mxpipe", "there is no user mxpipe to run mxpipe as")
	}
	line := strings.Replace(*entryOf(shipped("master.cf.mxpipe"), "mxpipe/unix"), "/usr/bin/mxpipe", t.Mxpipe, 1)
	if t.Daemon.Pipe != defaultPipe {
		line = strings.Replace(line, " --queue-id", " --socket "+t.Daemon.Pipe+" --queue-id", 1)
	}
	s := Step{Changes: []Change{p.entry("mxpipe/unix", line)}}
	for name, value := range sorted(settings(uncommented(shipped("main.cf.mxpipe")))) {
		if name == "export_environment" {
			value = p.exported()
		}
		s.Changes = append(s.Changes, p.set(name, value))
	}
	s.Changes = append(s.Changes, p.set("enable_long_queue_ids", "yes"), p.set("default_transport", "mxpipe"))
	return []Step{s}, nil
}

// defaultPipe is where mxpipe calls unless it is told otherwise.
const defaultPipe = "/run/mxpolicyd/pipe.sock"

// exported is export_environment with what mxpipe needs in it.
func (p Postfix) exported() string {
	const needed = "GOTRACEBACK=crash"
	value := p.Settings["export_environment"]
	if slices.Contains(strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' }), needed) {
		return value
	}
	return strings.TrimSpace(value + " " + needed)
}

// lmtp has Postfix hand messages over.
func (p Postfix) lmtp(t Target) ([]Step, error) {
	if len(t.Daemon.LMTP) == 0 {
		return nil, refuse("systemctl enable --now mxpolicyd-lmtp.socket, or listen: {lmtp: {}} in "+t.Config, "mxpolicyd has no socket for LMTP")
	}
	socket := t.Daemon.LMTP[0]
	if slices.Contains(t.Daemon.LMTP, "/run/mxpolicyd/lmtp.sock") {
		socket = "/run/mxpolicyd/lmtp.sock"
	}
	s := Step{Changes: []Change{p.entry("mxlmtp/unix", *entryOf(shipped("master.cf.lmtp"), "mxlmtp/unix"))}}
	for name, value := range sorted(settings(uncommented(shipped("main.cf.lmtp")))) {
		s.Changes = append(s.Changes, p.set(name, value))
	}
	s.Changes = append(s.Changes, p.set("enable_long_queue_ids", "yes"), p.set("default_transport", "mxlmtp:unix:"+socket))
	return append(p.membership(t, socket), s), nil
}

// membership puts Postfix's user into the group that a socket is for.
func (p Postfix) membership(t Target, socket string) []Step {
	group, member := t.Groups(socket, p.User)
	if group == "" || member {
		return nil
	}
	return []Step{{Changes: []Change{{Kind: Member, Name: group + ":" + p.User, After: &p.User}}}}
}

// uncommented leaves out lines that begin with #.
func uncommented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}
