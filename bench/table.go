package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
)

// tableClient asks as Postfix does: one question, then its answer
// (socketmap_table(5)), by system calls that wait.
type tableClient struct {
	fd    int
	table string // its name
	buf   []byte
	got   [4096]byte
}

func dialTable(socket, table string) (*tableClient, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &tableClient{fd: fd, table: table}, nil
}

// send asks for the policy of the domain that the message is for.
func (c *tableClient) send(m mail) error {
	c.buf = strconv.AppendInt(c.buf[:0], int64(len(c.table)+1+len(m.to)), 10)
	c.buf = append(append(append(append(append(c.buf, ':'), c.table...), ' '), m.to...), ',')
	if _, err := unix.Write(c.fd, c.buf); err != nil {
		return err
	}
	for n := 0; ; {
		more, err := unix.Read(c.fd, c.got[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if more == 0 {
			return io.ErrUnexpectedEOF
		}
		n += more
		switch answer := c.got[:n]; {
		case answer[n-1] != ',' && n < len(c.got):
		case !bytes.Contains(answer, []byte(":OK dane-only,")):
			return fmt.Errorf("the policy of %s is %q", m.to, answer)
		default:
			return nil
		}
	}
}

func (c *tableClient) close() { unix.Close(c.fd) }

// policyServer is a program that answers Postfix.
type policyServer struct {
	program
	name, socket, table string
	pid                 int
	rates               map[string]*speeds // by what is measured
	memory              float64            // bytes for each domain
	whole               int64              // bytes of the process
}

// ask has asker put so many look-ups of domains that are all known, and tells
// how long that took.
func (a *policyServer) ask(b *bench, asker string, at, lookups, domains int) (time.Duration, error) {
	var said bytes.Buffer
	cmd := exec.CommandContext(b.ctx, asker, a.socket, a.table, strconv.Itoa(at), strconv.Itoa(lookups), strconv.Itoa(domains))
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("asker: %w: %s", err, said.Bytes())
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(seconds * float64(time.Second)), err
}

// lookups has asker ask once, and notes the rate and the CPU.
func (a *policyServer) lookups(b *bench, v *speeds, asker string, at, lookups, domains int) error {
	before, err := a.cpu()
	if err != nil {
		return err
	}
	took, err := a.ask(b, asker, at, lookups, domains)
	if err != nil {
		return err
	}
	after, err := a.cpu()
	v.rate = append(v.rate, float64(lookups)/took.Seconds())
	v.cpu = append(v.cpu, (after-before).Seconds()*1e6/float64(lookups))
	return err
}

// meet looks each domain up once, from one on.
func (a *policyServer) meet(b *bench, from, to int) error {
	work := load{at: 20, messages: to - from,
		client: func() (client, error) { return dialTable(a.socket, a.table) },
		mail:   func(i int) mail { return mail{to: internet.Domain("dane", from+i)} }}
	_, err := work.run(b.ctx)
	return err
}

// few and many are how many domains are looked up. A program knows first of
// them before its memory is measured: what it needs to look things up at all is
// then there, and what is added is that of the domains.
const few, first, many = 30, 1000, 10000

// tables measures look-ups of TLS policies.
func (b *bench) tables() error {
	s := b.report.Section("Socketmap: TLS policies for Postfix's smtp(8), over a unix socket, domains with DANE",
		"Each connection waits for its answer, as Postfix's do; all domains are known. The programs are asked in turn, by",
		"the same client in C, with the same DNS behind them. postfix-tlspol is configured as it comes, which logs each",
		"answer (into a file here), and once more without that.")
	asker, err := b.buildC("asker")
	if err != nil {
		return err
	}
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	all := []*policyServer{{program: d, name: "mxpolicyd", socket: d.table, table: "policy", pid: d.pid()}}
	if program, err := b.tlspolProgram(); err != nil {
		s.Notes = append(s.Notes, "postfix-tlspol is left out: "+err.Error())
	} else {
		for _, level := range []string{"info", "warn"} {
			p, err := b.startTlspol(program, level)
			if err != nil {
				return err
			}
			defer p.stop()
			name := "postfix-tlspol"
			if level != "info" {
				name += " that logs nothing"
			}
			all = append(all, &policyServer{program: p, name: name, socket: p.socket, table: "QUERY", pid: p.pid()})
		}
	}
	for _, a := range all {
		a.rates = map[string]*speeds{}
	}
	counts := []int{2, 20, 100}
	for _, domains := range []int{few, many} {
		if err := b.known(all, domains); err != nil {
			return err
		}
		for _, at := range counts {
			if err := b.race(all, asker, at, domains); err != nil {
				return err
			}
		}
	}
	b.tell(s, all, counts)
	return b.misses(s, d)
}

// known has each program look up the domains that it does not know yet, and
// measures what it needs for them.
func (b *bench) known(all []*policyServer, domains int) error {
	from, to := 0, first
	if domains > few {
		from, to = first, domains
	}
	for _, a := range all {
		before, err := measure.MemoryOf(a.pid)
		if err == nil {
			err = a.meet(b, from, to)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		after, err := measure.MemoryOf(a.pid)
		if err != nil {
			return err
		}
		a.memory, a.whole = float64(after.Resident-before.Resident)/float64(to-from), after.Resident
	}
	return nil
}

// race has the programs answer in turn, round by round. The first round warms
// up and is not told.
func (b *bench) race(all []*policyServer, asker string, at, domains int) error {
	what := named(at, domains)
	for round := range b.rounds + 1 {
		for _, a := range all {
			if round == 0 || a.rates[what] == nil {
				a.rates[what] = &speeds{}
			}
			if err := a.lookups(b, a.rates[what], asker, at, b.amount(60000), domains); err != nil {
				return fmt.Errorf("%s, %s: %w", a.name, what, err)
			}
			if round == 0 {
				a.rates[what] = nil
			}
		}
	}
	return nil
}

// named says what is measured.
func named(at, domains int) string { return fmt.Sprintf("%d at once, %d domains", at, domains) }

// tell writes the rows.
func (b *bench) tell(s *report.Section, all []*policyServer, counts []int) {
	ours := all[0]
	for _, domains := range []int{few, many} {
		for _, at := range counts {
			what := named(at, domains)
			for _, a := range all {
				s.Add(a.name+", "+what, "look-ups/s", a.rates[what].rate...)
				s.Add(a.name+", "+what+": CPU of a look-up", "µs", a.rates[what].cpu...)
			}
			for i, a := range all[1:] {
				var goal *report.Goal
				if i == 0 {
					goal = report.AtLeast(1.5)
				}
				s.Reach(goal, what+": look-ups/s, mxpolicyd over "+a.name, "×", ours.rates[what].rate.Over(a.rates[what].rate)...)
			}
		}
	}
	for _, a := range all {
		var goal *report.Goal
		if a == ours {
			goal = report.AtMost(1.2)
		}
		s.Reach(goal, fmt.Sprintf("%s: CPU of a look-up, %d domains over %d, 20 at once", a.name, many, few), "×",
			a.rates[named(20, many)].cpu.Median()/a.rates[named(20, few)].cpu.Median())
	}
	for _, a := range all {
		var goal *report.Goal
		if a == ours && len(all) > 1 {
			goal = report.AtMost(all[1].memory / 1024)
		}
		s.Reach(goal, a.name+": memory for each domain", "KiB", a.memory/1024)
		s.Add(a.name+fmt.Sprintf(": memory of the process with %d domains", many), "MiB", float64(a.whole)/(1<<20))
	}
}

// misses measures look-ups of which one in ten is for a domain that was
// not asked for before: MX, addresses and TLSA records of its hosts, and the
// MTA-STS record are looked up.
func (b *bench) misses(s *report.Section, d *daemon) error {
	next := many
	var v speeds
	for round := range b.rounds + 1 {
		first := next
		work := load{at: 20, messages: b.amount(10000),
			client: func() (client, error) { return dialTable(d.table, "policy") },
			mail: func(i int) mail {
				if i%10 == 0 {
					return mail{to: internet.Domain("dane", first+i/10)}
				}
				return mail{to: internet.Domain("dane", rand.IntN(few))}
			}}
		next += work.messages/10 + 1
		if err := v.add(b, d, work); err != nil {
			return err
		}
		if round == 0 {
			v = speeds{}
		}
	}
	s.Add("mxpolicyd, 10% misses, 20 at once", "look-ups/s", v.rate...)
	s.Add("mxpolicyd, 10% misses, 20 at once: CPU of a look-up", "µs", v.cpu...)
	return nil
}
