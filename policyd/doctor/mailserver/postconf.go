package mailserver

import (
	"strings"
)

// postfixConfig is a Postfix's configuration.
type postfixConfig struct {
	settings map[string]string
	entries  []entry
}

// routing are the settings by which mail comes to a transport.
var routing = []string{
	"default_transport", "relay_transport", "virtual_transport", "local_transport", "mailbox_transport", "transport_maps",
	"sender_dependent_default_transport_maps", "default_filtered_transport",
}

// postfixDefaults are Postfix's defaults of what is looked at here. Those that
// go by a transport's name have a * instead of it.
var postfixDefaults = map[string]string{
	"compatibility_level": "0", "command_time_limit": "1000s", "default_process_limit": "100", "enable_long_queue_ids": "no",
	"export_environment": "TZ MAIL_CONFIG LANG", "message_size_limit": "10240000", "default_transport": "smtp", "relay_transport": "relay",
	"default_destination_recipient_limit": "50", "lmtp_data_done_timeout": "600s",
	"queue_directory": "/var/spool/postfix", "mail_owner": "postfix",
	"*_time_limit": "$command_time_limit", "*_destination_recipient_limit": "$default_destination_recipient_limit",
}

// parseSettings reads lines of the form "name = value".
func parseSettings(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok {
			settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return settings
}

// value is the value of a setting, or Postfix's default, with the names of
// other settings in it replaced by their values.
func (c postfixConfig) value(name string) string { return c.expand(c.raw(name), 0) }

func (c postfixConfig) raw(name string) string {
	if value, ok := c.settings[name]; ok {
		return value
	}
	if value, ok := postfixDefaults[name]; ok {
		return value
	}
	for pattern, value := range postfixDefaults {
		if suffix, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasSuffix(name, suffix) {
			return value
		}
	}
	return ""
}

// deepest bounds how far settings may refer to each other. Postfix has no
// limit, and no use for more.
const deepest = 8

// expand replaces $name, ${name} and $(name). Conditions in braces stay.
func (c postfixConfig) expand(value string, depth int) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(value, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		var name string
		if closing := map[string]string{"{": "}", "(": ")"}[first(rest)]; closing != "" {
			name, value, ok = strings.Cut(rest[1:], closing)
			if !ok || strings.ContainsAny(name, "?:") {
				b.WriteString("$" + rest)
				return b.String()
			}
		} else {
			end := strings.IndexFunc(rest, func(r rune) bool { return !isNameRune(r) })
			if end < 0 {
				end = len(rest)
			}
			name, value = rest[:end], rest[end:]
		}
		if depth < deepest && name != "" {
			b.WriteString(c.expand(c.raw(name), depth+1))
		}
	}
}

func first(s string) string {
	if s == "" {
		return ""
	}
	return s[:1]
}

func isNameRune(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// entry is a line of master.cf.
type entry struct {
	name, kind                      string
	unprivileged, chroot, processes string // as written: y, n, - or a number
	command                         string
	args                            []string
}

// parseMaster reads lines as "postconf -M" prints them: seven columns, the
// command and its arguments. Lines that begin with a blank go on the one
// before.
func parseMaster(text string) (entries []entry) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if n := len(entries); n > 0 && strings.ContainsAny(line[:1], " \t") {
			entries[n-1].args = append(entries[n-1].args, words...)
			continue
		}
		if len(words) < 8 {
			continue
		}
		entries = append(entries, entry{words[0], words[1], words[3], words[4], words[6], words[7], words[8:]})
	}
	return entries
}

// entry finds the entry of a delivery agent.
func (c postfixConfig) entry(name string) (entry, bool) {
	for _, e := range c.entries {
		if e.name == name && e.kind == "unix" {
			return e, true
		}
	}
	return entry{}, false
}

// chrooted reports whether an entry's process runs in a chroot. A "-" means yes
// only to a Postfix that behaves as before 3.0.
func (c postfixConfig) chrooted(e entry) bool {
	return e.chroot == "y" || e.chroot == "-" && c.value("compatibility_level") == "0"
}

// attribute is what an entry of pipe(8) says in front of argv=.
func (e entry) attribute(name string) (value string, given bool) {
	for _, word := range e.args {
		if strings.HasPrefix(word, "argv=") {
			break
		}
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value, given = v, true
		}
	}
	return value, given
}

// argv is the command line that an entry of pipe(8) runs.
func (e entry) argv() []string {
	for i, word := range e.args {
		if program, ok := strings.CutPrefix(word, "argv="); ok {
			return append([]string{program}, e.args[i+1:]...)
		}
	}
	return nil
}

// option is the value of a setting for one entry: what its -o says, or main.cf.
func (c postfixConfig) option(e entry, name string) string {
	for i, word := range e.args {
		if word != "-o" || i+1 == len(e.args) {
			continue
		}
		if value, ok := strings.CutPrefix(e.args[i+1], name+"="); ok {
			return c.expand(value, 0)
		}
	}
	return c.value(name)
}
