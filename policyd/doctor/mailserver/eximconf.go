package mailserver

import (
	"strings"
)

// eximConfig is an Exim's configuration.
type eximConfig struct {
	main       map[string]string
	transports []eximTransport
	config     string   // the text of all of it, if it is known
	passwords  []string // hosts that have one in passwd.client
}

// eximTransport is one transport. A switch that is on has the value "true".
type eximTransport struct {
	name    string
	options map[string]string
}

// on reports whether a switch is on.
func (t eximTransport) on(option string) bool { return t.options[option] == "true" }

// list is the value of an option that is a list with colons. Exim expands
// before it splits, so that those in braces part nothing. A doubled colon,
// which stands for one, parts here like two: no element that is looked for has
// any.
func (t eximTransport) list(option string) (elements []string) {
	value, begin, depth := t.options[option], 0, 0
	for i := range len(value) {
		switch value[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ':':
			if depth == 0 {
				elements = append(elements, strings.TrimSpace(value[begin:i]))
				begin = i + 1
			}
		}
	}
	return append(elements, strings.TrimSpace(value[begin:]))
}

// parseTransports reads the output of "exim -bP transports".
func parseTransports(text string) (list []eximTransport) {
	var name string
	var lines strings.Builder
	end := func() {
		if name != "" {
			list = append(list, eximTransport{name, parseOptions(lines.String())})
		}
		lines.Reset()
	}
	for line := range strings.Lines(text) {
		if head, ok := strings.CutSuffix(strings.TrimSpace(line), " transport:"); ok {
			end()
			name = head
			continue
		}
		lines.WriteString(line)
	}
	end()
	return list
}

// parseOptions reads lines of the forms "option = value", "option" and
// "no_option".
func parseOptions(text string) map[string]string {
	options := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		name = strings.TrimSpace(name)
		switch off, negated := strings.CutPrefix(name, "no_"); {
		case name == "":
		case ok:
			options[name] = strings.TrimSpace(value)
		case negated:
			options[off] = "false"
		default:
			options[name] = "true"
		}
	}
	return options
}

// retries reports whether there is a retry rule.
func (c eximConfig) retries() bool {
	_, section, ok := strings.Cut("\n"+c.config, "\nbegin retry")
	if !ok {
		return false
	}
	for line := range strings.Lines(section) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "begin "):
			return false
		case line != "" && !strings.HasPrefix(line, "#"):
			return true
		}
	}
	return false
}
