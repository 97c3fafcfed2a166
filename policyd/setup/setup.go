// Package setup tells a mail server on this host to send its mail, or its
// questions, to mxpolicyd, and takes that back.
//
// What it changes is what contrib/postfix and contrib/exim tell an
// administrator to change by hand, from the very same files: settings of
// main.cf and entries of master.cf by postconf(1), files of Exim's
// configuration and systemd's, and the group that Postfix's user must be in. A
// [Plan] is made of the mail server's configuration as it is, by pure
// functions; its [Plan.Diff] is shown before anything is done. What was there
// before is written into a record beside the configuration of mxpolicyd, from
// which it is undone. A change that somebody has changed again since is left
// alone then, and said.
//
// Nothing is set up that would hold up mail, bounce it, send it where it must
// not go, or let it travel in the clear where it did not before: where package
// doctor/mailserver finds such a mistake in what would come out, or mxpolicyd
// does not listen where it would be called, there is a reason in place of a
// plan.
package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

// Way is how a mail server uses mxpolicyd.
type Way string

// The ways.
const (
	Pipe      Way = "pipe"      // it runs mxpipe for each message
	LMTP      Way = "lmtp"      // it hands messages over on a socket
	Socketmap Way = "socketmap" // Postfix's smtp(8) asks for policies
)

// Kind is what a change is made to.
type Kind string

// The kinds of changes, by what their names and values are.
const (
	MainCF   Kind = "main.cf"   // a setting's name and value
	MasterCF Kind = "master.cf" // "service/type" and the entry in one line
	File     Kind = "file"      // a path and the text
	Member   Kind = "group"     // "group:user" and that user
)

// Change is one thing that is another afterwards. Nil means that it is not
// there.
type Change struct {
	Kind   Kind    `json:"kind"`
	Name   string  `json:"name"`
	Before *string `json:"before"`
	After  *string `json:"after"`

	secret string // what After is the fingerprint of
}

// none reports whether nothing is another.
func (c Change) none() bool { return same(c.Before, c.After) }

func same(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// Step is changes that belong together, and the commands by which they come
// into force.
type Step struct {
	Changes []Change   `json:"changes"`
	Then    [][]string `json:"then"`
}

// Plan is all that is to be done, in its order.
type Plan struct {
	Server string `json:"server"` // "postfix" or "exim"
	Way    Way    `json:"way"`
	Steps  []Step `json:"steps"`
	// Notes are what to know of the result, such as settings that lose effect.
	Notes []finding.Finding `json:"-"`
	// Next is what to do by hand afterwards; empty: nothing.
	Next string `json:"-"`

	password bool // the steps of the relay's password are among them
	left     bool // something of the set-up stays, and the record with it
}

// Undone is the plan that takes this one back.
func (p Plan) Undone() Plan {
	back := Plan{Server: p.Server, Way: p.Way}
	for i := len(p.Steps) - 1; i >= 0; i-- {
		s := Step{Then: p.Steps[i].Then}
		for j := len(p.Steps[i].Changes) - 1; j >= 0; j-- {
			c := p.Steps[i].Changes[j]
			c.Before, c.After = c.After, c.Before
			s.Changes = append(s.Changes, c)
		}
		back.Steps = append(back.Steps, s)
	}
	return back
}

// trimmed leaves out what is no change, and commands for what has none.
func (p Plan) trimmed() Plan {
	var steps []Step
	for _, s := range p.Steps {
		var changes []Change
		for _, c := range s.Changes {
			if !c.none() {
				changes = append(changes, c)
			}
		}
		if changes != nil {
			steps = append(steps, Step{Changes: changes, Then: s.Then})
		}
	}
	p.Steps = steps
	return p
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.trimmed().Steps) == 0 }

// Target is the daemon's side of what is set up.
type Target struct {
	Daemon mailserver.Daemon
	// Mxpipe is the path of mxpipe(1).
	Mxpipe string
	// Config is the path of mxpolicyd.yaml.
	Config string
	// Systemd says that systemd holds the daemon's sockets.
	Systemd bool
	// Groups gives the group whose members alone may use a unix socket, and
	// whether the user is one of them. An empty group: everybody may.
	Groups func(socket, user string) (group string, member bool)
	// Exists reports whether a file is there, and UserExists whether a user is.
	Exists     func(path string) bool
	UserExists func(name string) bool
}

// Refusal is why nothing is set up: what stands in the way, and what removes
// it.
type Refusal struct{ What, Mend string }

// Error implements error.
func (r *Refusal) Error() string {
	if r.Mend == "" {
		return r.What
	}
	return r.What + "\n  fix: " + r.Mend
}

// refuse makes a Refusal.
func refuse(mend, what string, args ...any) error {
	return &Refusal{fmt.Sprintf(what, args...), mend}
}

// ErrNothingToUndo means that there is no record of a set-up.
var ErrNothingToUndo = errors.New("nothing was set up here, so there is nothing to undo")

// Do sets a mail server up by a plan: it writes the record, makes the changes
// and runs the commands. When one of them fails, what was done is taken back.
func (m Machine) Do(ctx context.Context, p Plan) error {
	p = p.trimmed()
	before, err := m.load(p.Server)
	if err != nil && !errors.Is(err, ErrNothingToUndo) {
		return err
	}
	if before.Server != "" && before.Way != p.Way {
		return refuse("mxpolicyd setup "+p.Server+" --undo", "this mail server was set up to use mxpolicyd by %s", before.Way)
	}
	if err := m.save(merged(before, p)); err != nil {
		return err
	}
	done := Plan{Server: p.Server, Way: p.Way}
	for _, s := range p.Steps {
		done.Steps = append(done.Steps, Step{Then: s.Then})
		last := &done.Steps[len(done.Steps)-1]
		for _, c := range s.Changes {
			if err = m.apply(ctx, c); err != nil {
				break
			}
			last.Changes = append(last.Changes, c)
		}
		for _, command := range s.Then {
			if err != nil {
				break
			}
			_, err = m.Run(ctx, command...)
		}
		if err != nil {
			return errors.Join(err, m.takeBack(ctx, done, before))
		}
	}
	return nil
}

// takeBack undoes what was done of a plan that failed, and the record with it.
func (m Machine) takeBack(ctx context.Context, done, before Plan) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, s := range done.Undone().Steps {
		for _, c := range s.Changes {
			errs = append(errs, m.apply(ctx, c))
		}
		for _, command := range s.Then {
			_, _ = m.Run(ctx, command...) // it may be what failed before
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("and not all could be taken back; run mxpolicyd setup %s --undo: %w", done.Server, err)
	}
	if before.Server == "" {
		return m.forget(done.Server)
	}
	return m.save(before)
}

// Undo gives the plan that takes a set-up back, as far as no one has changed
// the same since, and nothing that is left needs it; what stays is in Notes.
func (m Machine) Undo(ctx context.Context, server string) (Plan, error) {
	p, err := m.load(server)
	if p, err = m.withPassword(p, server, err); err != nil {
		return Plan{}, err
	}
	back := p.Undone()
	back.password = p.password
	for i := range back.Steps {
		s := &back.Steps[i]
		for j := range s.Changes {
			c := &s.Changes[j]
			now, err := m.current(ctx, c.Kind, c.Name)
			switch {
			case err != nil:
				return Plan{}, err
			case same(now, c.Before):
			case same(now, c.After):
				c.Before = c.After // it is as it was already
			default:
				back.Notes = append(back.Notes, finding.Finding{
					Level: finding.Warn, What: fmt.Sprintf("%s: %s was changed since, and stays as it is now", c.Kind, c.Name),
					Mend: "it was " + told(c.After) + " before mxpolicyd was set up",
				})
				c.Before = c.After
			}
		}
	}
	if server == "postfix" {
		main, err := m.Run(ctx, "postconf", "-n")
		if err != nil {
			return Plan{}, err
		}
		back.leaveNamed(settings(main))
	}
	return back.trimmed(), nil
}

// told is a value in a sentence.
func told(value *string) string {
	if value == nil {
		return "not there"
	}
	text, more, _ := strings.Cut(*value, "\n")
	if more != "" {
		text += " …"
	}
	return fmt.Sprintf("%q", text)
}

// Finish takes back what Undo gave, and forgets the record, unless something
// stays that another Undo can take back later.
func (m Machine) Finish(ctx context.Context, back Plan) error {
	for _, s := range back.Steps {
		for _, c := range s.Changes {
			if err := m.apply(ctx, c); err != nil {
				return err
			}
		}
		for _, command := range s.Then {
			if _, err := m.Run(ctx, command...); err != nil {
				return err
			}
		}
	}
	if back.password {
		if err := m.forget(PasswordServer); err != nil {
			return err
		}
	}
	if back.left {
		return nil
	}
	return m.forget(back.Server)
}

// merged is the record of a plan that follows another of the same way: of what
// both change, the first knows what was there before.
func merged(before, p Plan) Plan {
	if before.Server == "" {
		return p
	}
	known := map[string]*Change{}
	for _, s := range before.Steps {
		for i := range s.Changes {
			known[string(s.Changes[i].Kind)+" "+s.Changes[i].Name] = &s.Changes[i]
		}
	}
	for _, s := range p.Steps {
		var more []Change
		for _, c := range s.Changes {
			if first := known[string(c.Kind)+" "+c.Name]; first != nil {
				first.After = c.After
				continue
			}
			more = append(more, c)
		}
		if more != nil {
			before.Steps = append(before.Steps, Step{Changes: more, Then: s.Then})
		}
	}
	return before
}
