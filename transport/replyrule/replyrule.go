// Package replyrule finds what a remote server's reply asks for beyond its
// code: a receiver that throttles an address of ours, or has put it on a list,
// says so in words. A rule names the reply by a regular expression and says
// what is done with the mail that comes after: wait for a while, go on more
// slowly, or nothing.
//
// A rule never changes the result of the message that met the reply: its code
// decides that. Only failures (4xx and 5xx) are looked at.
//
// The configured rules come first, in their order, then the built-in ones
// (builtin.txt): those of the host's provider before those for any host. The
// first that matches counts, so that {do: nothing} switches a later one off.
//
// What is matched is the reply's code and its lines, joined by spaces, cut at
// 600 bytes: that and RE2, which takes time linear in both, bound the cost.
package replyrule

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MaxText is how much of a reply is looked at, in bytes.
const MaxText = 600

// MaxPause bounds a rule's pause.
const MaxPause = 7 * 24 * time.Hour

// Action is what a rule does. The zero Action does nothing.
type Action uint8

// The actions.
const (
	Nothing Action = iota
	Slow           // halve the concurrency, then creep back
	Pause          // send nothing for Rule.Pause
)

var actionWords = [...]string{"nothing", "slow", "pause"}

// String is the word of the configuration.
func (a Action) String() string { return actionWords[a] }

// Scope is whom the action holds for. The zero Scope is the provider.
type Scope uint8

// The scopes.
const (
	Provider Scope = iota // all mail to the host's provider
	Domain                // mail for the recipient's domain
	// mail from the source address that was used, to the provider
	SourceIP
)

var scopeWords = [...]string{"provider", "domain", "source_ip"}

// String is the word of the configuration.
func (s Scope) String() string { return scopeWords[s] }

// ParseScope reads the word of the configuration.
func ParseScope(word string) (Scope, bool) {
	for i, w := range scopeWords {
		if w == word {
			return Scope(i), true
		}
	}
	return 0, false
}

// Rule is one rule.
type Rule struct {
	// Match is a regular expression in the syntax of RE2, matched anywhere in
	// "421 4.7.0 Text of all lines".
	Match string
	// Provider restricts the rule to a provider's hosts; empty: any host.
	Provider string
	Do       Action
	Pause    time.Duration // with Do == Pause
	Scope    Scope
}

// String is the rule as status and explain show it: "pause 30m for
// source_ip".
func (r *Rule) String() string {
	switch r.Do {
	case Pause:
		return "pause " + briefly(r.Pause) + " for " + r.Scope.String()
	case Slow:
		return "slow for " + r.Scope.String()
	default:
		return "nothing"
	}
}

// briefly writes 30m for Go's 30m0s, and 1h for 1h0m0s.
func briefly(d time.Duration) string {
	s := d.String()
	if d%time.Minute == 0 {
		s = strings.TrimSuffix(s, "0s")
	}
	if d%time.Hour == 0 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ErrRule is wrapped by what New says of a rule that cannot be.
var ErrRule = errors.New("no rule")

//go:embed builtin.txt
var builtin string

// Rules are compiled rules. They never change and are safe for concurrent use.
type Rules struct {
	configured []compiled
	builtin    map[string][]compiled // by provider; "*" for any host
}

type compiled struct {
	rule Rule
	re   *regexp.Regexp
}

// New compiles the configured rules, in their order, and the built-in ones.
// An error wraps ErrRule and names the expression.
func New(configured []Rule) (*Rules, error) {
	r := &Rules{builtin: map[string][]compiled{}}
	for _, rule := range configured {
		c, err := compile(rule)
		if err != nil {
			return nil, err
		}
		r.configured = append(r.configured, c)
	}
	list, err := parse(builtin)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		key := d.rule.Provider
		if key == "" {
			key = anyHost
		}
		r.builtin[key] = append(r.builtin[key], d.compiled)
	}
	return r, nil
}

const anyHost = "*"

// Find gives the first rule for a reply of one of a provider's hosts: code is
// the reply's, text its lines joined by spaces. nil: no rule matches, or one
// that says nothing.
func (r *Rules) Find(provider string, code int, text string) *Rule {
	if code < 400 || code > 599 {
		return nil
	}
	said := strconv.Itoa(code) + " " + text
	if len(said) > MaxText {
		said = said[:MaxText]
	}
	for i := range r.configured {
		c := &r.configured[i]
		if (c.rule.Provider == "" || c.rule.Provider == provider) && c.re.MatchString(said) {
			return c.action()
		}
	}
	for _, key := range [...]string{provider, anyHost} {
		list := r.builtin[key]
		for i := range list {
			if list[i].re.MatchString(said) {
				return list[i].action()
			}
		}
	}
	return nil
}

func (c *compiled) action() *Rule {
	if c.rule.Do == Nothing {
		return nil
	}
	return &c.rule
}

func compile(rule Rule) (compiled, error) {
	re, err := regexp.Compile(rule.Match)
	switch {
	case err != nil:
		return compiled{}, fmt.Errorf("%w: %w", ErrRule, err)
	case rule.Match == "" || re.MatchString(""):
		return compiled{}, fmt.Errorf("%w: %q matches every reply", ErrRule, rule.Match)
	case rule.Do == Pause && (rule.Pause <= 0 || rule.Pause > MaxPause):
		return compiled{}, fmt.Errorf("%w: a pause of %v: more than 0 and at most 168h", ErrRule, rule.Pause)
	}
	return compiled{rule: rule, re: re}, nil
}

// documented is a built-in rule with its samples.
type documented struct {
	compiled
	samples []string
}

// parse reads builtin.txt.
func parse(text string) ([]documented, error) {
	var list []documented
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if sample, ok := strings.CutPrefix(line, "= "); ok && len(list) > 0 {
			last := &list[len(list)-1]
			last.samples = append(last.samples, sample)
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, err := parseRule(line)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, line)
		}
		c, err := compile(rule)
		if err != nil {
			return nil, err
		}
		list = append(list, documented{compiled: c})
	}
	return list, nil
}

// parseRule reads "PROVIDER ACTION [SCOPE] : EXPRESSION".
func parseRule(line string) (rule Rule, err error) {
	head, match, ok := strings.Cut(line, " : ")
	words := strings.Fields(head)
	if !ok || len(words) < 2 || len(words) > 3 {
		return rule, ErrRule
	}
	rule.Match = "(?i)" + match
	if words[0] != anyHost {
		rule.Provider = words[0]
	}
	action, pause, _ := strings.Cut(words[1], "=")
	switch {
	case action == "slow":
		rule.Do = Slow
	case action == "nothing":
	case action == "pause":
		rule.Do = Pause
		if rule.Pause, err = time.ParseDuration(pause); err != nil {
			return rule, fmt.Errorf("%w: %w", ErrRule, err)
		}
	default:
		return rule, ErrRule
	}
	if len(words) == 3 {
		if rule.Scope, ok = ParseScope(words[2]); !ok {
			return rule, ErrRule
		}
	}
	return rule, nil
}
