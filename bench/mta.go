package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
)

// errNoPostfix is why the comparisons with Postfix may be left out.
var errNoPostfix = errors.New("left out: it takes root, and Postfix with smtp-source")

// havePostfix says whether a Postfix of our own can be run.
func havePostfix() error {
	for _, program := range []string{"postfix", "postsuper", "smtp-source"} {
		if _, err := exec.LookPath(program); err != nil {
			return errNoPostfix
		}
	}
	if os.Getuid() != 0 {
		return errNoPostfix
	}
	return nil
}

// runner is one of several ways for mail out of Postfix.
type runner struct {
	name    string
	postfix *postfix
	others  []int // processes whose CPU counts, too
	domain  string
	rate    measure.Sample
	cpu     measure.Sample
}

// compare has the runners deliver as many messages in turn, round by round.
// The first round warms up and is not told.
func (b *bench) compare(runners []*runner, messages, size int) error {
	for round := range b.rounds + 1 {
		for _, r := range runners {
			if err := r.postfix.submit(messages, size, r.domain); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			race, err := b.release(r.postfix, messages, r.others...)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if round == 0 {
				continue
			}
			r.rate = append(r.rate, float64(messages)/race.took.Seconds())
			r.cpu = append(r.cpu, race.cpu.Seconds()*1e6/float64(messages))
		}
	}
	return nil
}

// pipes compares pipe(8) with mxpipe and pipe(8) with a program that only
// reads.
func (b *bench) pipes() error {
	messages := b.amount(2000)
	s := b.report.Section(fmt.Sprintf("Postfix pipe(8): mxpipe → mxpolicyd → remote server by TLS, against a C program that only reads; %d messages of 10 KB", messages),
		"From the release of the queue until the last message is delivered. CPU is that of Postfix and all of its",
		"processes, mxpipe among them, and of mxpolicyd; the remote server's comes on top, on the same processors.")
	if err := havePostfix(); err != nil {
		s.Notes = append(s.Notes, err.Error())
		return nil
	}
	programs, err := b.buildBaselines()
	if err != nil {
		return err
	}
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	const entry = "%s unix - n n - - pipe\n  flags=q user=nobody null_sender=\n  argv=%s\n"
	mxpipe := filepath.Join(b.bin, "mxpipe") + " --socket " + d.pipe +
		" --queue-id ${queue_id} --size ${size} --nexthop ${nexthop} -f ${sender} -- ${recipient}"
	p, err := b.startPostfix("default_transport = mxpipe\ntransport_maps = inline:{drain.bench=drain:, empty.bench=empty:}\n",
		fmt.Sprintf(entry, "mxpipe", mxpipe)+fmt.Sprintf(entry, "drain", programs.drain)+fmt.Sprintf(entry, "empty", programs.empty))
	if err != nil {
		return err
	}
	defer p.stop()
	a := &runner{name: "mxpipe", postfix: p, others: []int{d.pid()}, domain: internet.Domain("shared", 1)}
	c := &runner{name: "C program", postfix: p, others: []int{d.pid()}, domain: "drain.bench"}
	e := &runner{name: "empty Go program", postfix: p, others: []int{d.pid()}, domain: "empty.bench"}
	all := []*runner{a, c, e}
	if err := b.compare(all, messages, 10<<10); err != nil {
		return err
	}
	for _, r := range all {
		s.Add(r.name, "messages/s", r.rate...)
		s.Add(r.name+": CPU of a message", "µs", r.cpu...)
	}
	s.Reach(report.AtLeast(0.9), "messages/s, mxpipe over the C program", "×", a.rate.Over(c.rate)...)
	s.Add("messages/s, an empty Go program over the C program", "×", e.rate.Over(c.rate)...)
	s.Add("messages/s, mxpipe over an empty Go program", "×", a.rate.Over(e.rate)...)
	s.Add("CPU of a message, mxpipe over the C program", "×", a.cpu.Over(c.cpu)...)
	return nil
}

// mtas compares lmtp(8) to mxpolicyd with Postfix's own smtp(8).
func (b *bench) mtas() error {
	s := b.report.Section("Postfix lmtp(8) → mxpolicyd → remote server, against Postfix smtp(8) → the same server; TLS, 20 at once",
		"smtp(8) by default makes a connection for each message; with smtp_tls_connection_reuse and",
		"smtp_connection_cache_destinations it keeps them. From the release of the queue until the last message is",
		"delivered. CPU is that of Postfix and all of its processes, and of mxpolicyd.")
	if err := havePostfix(); err != nil {
		s.Notes = append(s.Notes, err.Error())
		return nil
	}
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	server := fmt.Sprintf("[127.0.0.1]:%d", b.sinks.main.Port())
	var instances []*postfix
	for _, config := range []string{
		"default_transport = lmtp:unix:" + d.lmtp("default") + "\n",
		"default_transport = smtp:" + server + "\n",
		"default_transport = smtp:" + server + "\nsmtp_tls_connection_reuse = yes\nsmtp_connection_cache_destinations = " + server + "\nsmtp_connection_reuse_count_limit = 0\n",
	} {
		p, err := b.startPostfix(config, "")
		if err != nil {
			return err
		}
		defer p.stop()
		instances = append(instances, p)
	}
	for _, size := range []int{10 << 10, 100 << 10} {
		messages := b.amount(1000)
		if size > 10<<10 {
			messages = b.amount(400)
		}
		kb := fmt.Sprintf("%d KB", size>>10)
		lmtp := &runner{name: "lmtp(8) → mxpolicyd", postfix: instances[0], others: []int{d.pid()}, domain: internet.Domain("shared", 1)}
		smtp := &runner{name: "smtp(8)", postfix: instances[1], domain: lmtp.domain}
		cached := &runner{name: "smtp(8) that keeps connections", postfix: instances[2], domain: lmtp.domain}
		all := []*runner{lmtp, smtp, cached}
		if err := b.compare(all, messages, size); err != nil {
			return err
		}
		for _, r := range all {
			s.Add(kb+", "+r.name, "messages/s", r.rate...)
			s.Add(kb+", "+r.name+": CPU of a message", "µs", r.cpu...)
		}
		s.Reach(report.AtLeast(2), kb+": messages/s, mxpolicyd over smtp(8)", "×", lmtp.rate.Over(smtp.rate)...)
		s.Add(kb+": messages/s, mxpolicyd over smtp(8) that keeps connections", "×", lmtp.rate.Over(cached.rate)...)
		s.Add(kb+": CPU of a message, mxpolicyd over smtp(8)", "×", lmtp.cpu.Over(smtp.cpu)...)
	}
	return nil
}
