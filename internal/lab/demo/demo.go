package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/world"
)

// errUnexpected means that the demo ran and something was not as it should be,
// which the table has told.
var errUnexpected = errors.New("not everything went as it should")

// demo is one run.
type demo struct {
	bin      string
	verbose  bool
	table    *table
	messages []group
	letters  []letter
	asks     []ask

	mxpipe string
	dir    string
	world  *world.World
	daemon *daemon
	parts  content
	sent   int
	before map[string]mx.Counters // of each mail server, by host name
}

// run does everything, and leaves nothing behind. The error is errUnexpected,
// that of ctx, or says what could not be started.
func (d *demo) run(ctx context.Context) (err error) {
	start := time.Now()
	policyd, err := d.find("mxpolicyd")
	if err != nil {
		return err
	}
	if d.mxpipe, err = d.find("mxpipe"); err != nil {
		return err
	}
	if d.dir, err = makeDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()

	d.table.progress("starting an internet on loopback")
	if d.world, err = world.Start(world.Domains()...); err != nil {
		return err
	}
	defer d.world.Stop()
	d.table.progress("starting mxpolicyd")
	if d.daemon, err = startDaemon(ctx, policyd, d.dir, d.world, d.verbose); err != nil {
		return err
	}
	// An interrupted demo has no one left to tell how the daemon ended.
	defer d.daemon.stop()

	d.table.intro(d.world, d.daemon, d.verbose)
	if d.parts, err = newContent(); err != nil {
		return err
	}
	results, err := d.sendAll(ctx)
	if err != nil {
		return err
	}
	misread, err := d.postAll(ctx)
	if err != nil {
		return err
	}
	wrong, err := d.askAll(ctx)
	if err != nil {
		return err
	}
	problems := d.end()
	if misread > 0 {
		problems = append(problems, fmt.Sprintf("%d answers by LMTP", misread))
	}
	if wrong > 0 {
		problems = append(problems, fmt.Sprintf("%d answers to Postfix", wrong))
	}
	return d.table.summary(results, problems, time.Since(start))
}

// find finds a program that was built.
func (d *demo) find(name string) (string, error) {
	path, err := filepath.Abs(filepath.Join(d.bin, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run \"make build\" first, or \"make demo\"", err)
	}
	return path, nil
}

// maxSocket is the longest path that a unix socket has everywhere (unix(7)).
const maxSocket = 100

// makeDir makes the directory that everything lives in.
func makeDir() (string, error) {
	base := os.TempDir()
	if len(base) > maxSocket-len("/mxpipe-demo-1234567890/socketmap.sock") {
		base = "/tmp"
	}
	return os.MkdirTemp(base, "mxpipe-demo-")
}

// sendAll sends the messages in their order.
func (d *demo) sendAll(ctx context.Context) ([]result, error) {
	var results []result
	var last message
	for _, g := range d.messages {
		d.table.heading(g.title)
		for _, m := range g.messages {
			if err := d.fill(&m, &last); err != nil {
				return nil, err
			}
			d.table.progress(m.domain)
			r, err := d.send(ctx, &m)
			if err != nil {
				return nil, err
			}
			d.table.row(&r)
			if d.verbose {
				d.table.log(r.log)
			}
			results = append(results, r)
			last = m
		}
	}
	return results, nil
}

// fill gives a message what can be derived: words, addresses, text.
func (d *demo) fill(m, last *message) error {
	if known, ok := d.world.Domain(m.domain); ok && m.about == "" {
		m.about = known.About
	}
	if m.about == "" {
		return fmt.Errorf("%s is no domain of the lab, and nothing is said about it", m.domain)
	}
	if m.to == nil {
		m.to = []string{"ben"}
	}
	if m.again {
		m.queueID, m.text = last.queueID, last.text
		return nil
	}
	d.sent++
	m.queueID = fmt.Sprintf("DEMO%02d", d.sent)
	m.text = d.parts.message(m)
	return nil
}

// news finds out what came to the mail servers since it was asked last.
func (d *demo) news() (arrivals []arrival, dialled []string) {
	now := map[string]mx.Counters{}
	for host, s := range d.world.Servers() {
		now[host] = s.Counters()
		if now[host].Connections > d.before[host].Connections {
			dialled = append(dialled, host)
		}
		all := s.Messages()
		for _, m := range all[len(all)-(now[host].Messages-d.before[host].Messages):] {
			arrivals = append(arrivals, arrival{host, m})
		}
	}
	d.before = now
	slices.SortFunc(arrivals, func(a, b arrival) int { return strings.Compare(a.host, b.host) })
	slices.Sort(dialled)
	return arrivals, dialled
}

// end stops the daemon and gives what is wrong with the run as a whole.
func (d *demo) end() (problems []string) {
	d.table.progress("stopping mxpolicyd")
	if err := d.daemon.stop(); err != nil {
		problems = append(problems, err.Error())
	}
	for host, s := range d.world.Servers() {
		for _, v := range s.Violations() {
			problems = append(problems, fmt.Sprintf("mxpolicyd broke a rule of SMTP at %s: %s", host, v))
		}
	}
	slices.Sort(problems)
	return problems
}
