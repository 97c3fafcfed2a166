package config

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// providers reads the providers by name. One without mx says something of a
// provider that is known anyway: a built-in one, or a registrable domain.
func (d *decoder) providers(v value, c *Config) {
	if v.isNull() {
		return
	}
	v.named("a provider", func(name string, v value) {
		p := provider.Provider{Name: name}
		var own limit.Limit
		before := len(d.mistakes)
		v.block(providerKeys(&p, &own)...)
		switch {
		case len(d.mistakes) > before:
			return
		case len(p.MX) == 0 && !knownProvider(name):
			v.wrong("provider %s has no mx; expected the names of its mail hosts, unless it is a built-in provider (mxpolicyd providers) or a registrable domain", name)
			return
		}
		if len(p.MX) > 0 {
			if _, err := provider.New([]provider.Provider{p}); err != nil {
				v.wrong("%s", strings.TrimPrefix(err.Error(), provider.ErrPattern.Error()+": "))
				return
			}
			c.Providers = append(c.Providers, p)
		}
		if own != (limit.Limit{}) {
			if c.ProviderLimits == nil {
				c.ProviderLimits = map[string]limit.Limit{}
			}
			c.ProviderLimits[name] = own
		}
	})
	slices.SortFunc(c.Providers, func(a, b provider.Provider) int { return cmp.Compare(a.Name, b.Name) })
}

// knownProvider reports whether a name is a provider's without mx: a built-in
// one's, or a registrable domain.
func knownProvider(name string) bool {
	table, err := provider.New(nil)
	if err != nil {
		return false
	}
	if _, builtIn := table.Named(name); builtIn {
		return true
	}
	of := table.Of(name)
	return of.Origin == provider.Registrable && of.Name == name
}

func providerKeys(p *provider.Provider, own *limit.Limit) []key {
	return []key{{"mx", setList(&p.MX, 100, mxPattern())}, {"limits", limitOf(own)}}
}

// mxPattern is a host's name, or with a dot before it every name below it.
func mxPattern() format[string] {
	return format[string]{
		want: "a host's name such as mx.example.org, or .example.org for every name below it",
		read: func(s string) (string, error) {
			if _, err := provider.New([]provider.Provider{{Name: "x", MX: []string{strings.ToLower(s)}}}); err != nil {
				return "", errors.New(quote(s) + " is no name of mail hosts")
			}
			return strings.ToLower(s), nil
		},
	}
}

// replies reads the rules for replies, in their order.
func (d *decoder) replies(v value, c *Config) {
	if v.isNull() {
		return
	}
	if v.node.Kind != yaml.SequenceNode {
		v.notKind("a list of blocks such as - {match: \"listed at\", do: {pause: 1h}}")
		return
	}
	for i := range v.node.Content {
		v := v.item(i)
		var r replyrule.Rule
		before := len(d.mistakes)
		v.block(replyKeys(&r)...)
		if len(d.mistakes) > before {
			continue
		}
		if _, err := replyrule.New([]replyrule.Rule{r}); err != nil {
			v.wrong("%s", strings.TrimPrefix(err.Error(), replyrule.ErrRule.Error()+": "))
			continue
		}
		c.Replies = append(c.Replies, r)
	}
}

func replyKeys(r *replyrule.Rule) []key {
	match := format[string]{want: "a regular expression (RE2) that does not match every reply", read: func(s string) (string, error) {
		if _, err := replyrule.New([]replyrule.Rule{{Match: s}}); err != nil {
			return "", errors.New(quote(s) + " is none")
		}
		return s, nil
	}}
	name := format[string]{want: "the name of a provider, or a registrable domain", read: func(s string) (string, error) {
		if _, err := provider.New([]provider.Provider{{Name: s, MX: []string{".example.org"}}}); err != nil {
			return "", errors.New(quote(s) + " is no such name")
		}
		return s, nil
	}}
	do := format[replyrule.Action]{want: "slow, nothing, or a block such as {pause: 30m}", read: func(s string) (replyrule.Action, error) {
		switch s {
		case replyrule.Slow.String():
			return replyrule.Slow, nil
		case replyrule.Nothing.String():
			return replyrule.Nothing, nil
		}
		return 0, errors.New(quote(s) + " is nothing to do")
	}}
	return []key{
		{"match", set(&r.Match, match)},
		{"provider", set(&r.Provider, name)},
		{"do", func(v value) {
			if v.node.Kind == yaml.MappingNode {
				v.block(replyActionKeys(r)...)
				return
			}
			set(&r.Do, do)(v)
		}},
	}
}

func replyActionKeys(r *replyrule.Rule) []key {
	return []key{
		{"pause", func(v value) {
			set(&r.Pause, duration(time.Second, replyrule.MaxPause))(v)
			r.Do = replyrule.Pause
		}},
		{"scope", set(&r.Scope, oneOf(choice[replyrule.Scope]{"provider", replyrule.Provider}, choice[replyrule.Scope]{"domain", replyrule.Domain},
			choice[replyrule.Scope]{"source_ip", replyrule.SourceIP}))},
	}
}
