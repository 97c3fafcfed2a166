package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// wholeMatrix is for "make killmatrix"; "make test" has a selection.
var wholeMatrix = flag.Bool("killmatrix", false, "run all of the kill matrix, and not a selection")

// stage is how far a message is when somebody dies.
type stage int

const (
	uploading stage = iota // half-way from the mail server to mxpolicyd
	committed              // mxpolicyd has it and is connected; before MAIL
	addressed              // after MAIL and RCPT
	halfBody               // half-way to the remote server
	// the remote server has all of it and has not replied
	afterDot
	answered // mxpolicyd has answered; the client has not read it
	stages
)

func (s stage) String() string {
	return [...]string{"upload half-way", "before MAIL", "after RCPT", "body half-way", "after the dot", "answer unread"}[s]
}

// killer ends somebody while a message is in every stage.
type killer struct {
	name string
	// kill does it, and lets what is frozen go on. It reports whether nothing
	// waits for the messages' outcome any more, so that nothing may be sent
	// that had not gone out before.
	kill func(t *testing.T, r *killRun) (cancels bool)
	// restart brings back who died, if that does not come by itself.
	restart func(t *testing.T, r *killRun)
	// window says that the remote server can have a message of which no one
	// alive knows: SMTP's own, between the final dot and the reply (RFC 1047).
	window stage
}

const noWindow stage = -1

var killers = []killer{
	{"the mail server is stopped", func(t *testing.T, r *killRun) bool {
		var dying []int
		if !r.way.exim && !r.way.lmtp {
			dying = r.deliveries(t)
		}
		r.sender.stop(t)
		// Postfix waits for its master(8) alone. Until pipe(8) is dead too, an
		// answer that mxpipe reads has somebody to hear it, who dies with it:
		// Postfix's own window, between a delivery and the queue file.
		r.dead(t, dying)
		r.thaw(t)
		return !r.way.exim // whose deliveries go on
	}, func(t *testing.T, r *killRun) { r.sender.start(t) }, noWindow},

	{"the delivering process is killed", func(t *testing.T, r *killRun) bool {
		r.killAll(t, r.deliveries(t))
		r.thaw(t)
		return true
	}, nil, noWindow},

	{"mxpipe is killed", func(t *testing.T, r *killRun) bool {
		r.killAll(t, r.everyClient(t))
		r.thaw(t)
		return true
	}, nil, noWindow},

	{"mxpolicyd is killed", func(t *testing.T, r *killRun) bool {
		if err := r.daemon.stop(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.thaw(t)
		return false
	}, restartDaemon, afterDot},

	{"mxpolicyd is stopped", func(t *testing.T, r *killRun) bool {
		if err := r.daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		r.thaw(t)
		r.daemon.logged(t, `msg=stopping`)
		r.release() // it lets deliveries end
		return false
	}, restartDaemon, noWindow},
}

func restartDaemon(t *testing.T, r *killRun) {
	t.Helper()
	<-r.daemon.done
	r.daemon.told.close()
	if err := r.daemon.start(lab(t), r.settings); err != nil {
		t.Fatal(err)
	}
}

// TestKillMatrix has a message in every stage of its way, and then somebody
// dies. Afterwards everybody is back, and the mail server tries again until its
// queue is empty: each message arrived once and whole, and none bounced. The
// one exception has a name, killer.window.
func TestKillMatrix(t *testing.T) {
	t.Parallel()
	for i, k := range killers {
		for j, way := range killWays {
			if way.lmtp && k.name == "mxpipe is killed" {
				continue // there is none
			}
			// Each killer once, and each way of a mail server.
			if short := [...]int{0, 2, 0, 1, 3}; !*wholeMatrix && j != short[i] {
				continue
			}
			t.Run(k.name+", "+way.name, func(t *testing.T) {
				t.Parallel()
				newKillRun(t, way).run(t, k)
			})
		}
	}
}

// killRun is one mail server and one mxpolicyd with a message in each stage.
type killRun struct {
	way      killWay
	settings settings
	daemon   *daemon
	sender   sender
	letters  [stages]*killLetter
	frozen   []int // processes
}

// killLetter is a message in a stage.
type killLetter struct {
	server   *mx.Server
	gate     chan struct{} // what its remote server waits for
	released bool
	to, id   string
	size     int
}

func newKillRun(t *testing.T, way killWay) *killRun {
	t.Helper()
	r := &killRun{way: way, settings: settings{top: "shutdown_timeout: 60s\n"}}
	r.daemon = startDaemon(t, r.settings)
	r.sender = way.start(t, r.daemon)
	t.Cleanup(func() { r.thaw(t) })
	for s := range stages {
		behaviour := modern(t)
		l := &killLetter{gate: make(chan struct{}), size: 100}
		switch s {
		case committed:
			behaviour.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Hold: l.gate, Times: 1}}
		case addressed:
			// Without it the whole message would be under way.
			behaviour.Keywords &^= mx.Pipelining | mx.Chunking
			behaviour.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Hold: l.gate, Times: 1}}
		case halfBody:
			behaviour.HalfBody = 100 << 10
			behaviour.At = map[mx.Stage]mx.Action{mx.StageBody: {Hold: l.gate, Times: 1}}
			l.size = 8 << 20 // more than the kernel takes in
		case afterDot, answered:
			behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: l.gate, Alone: true, Times: 1}}
		case uploading:
			l.size = 24 << 20
		}
		var domain string
		l.server, domain = remote(t, "mxpipe", behaviour)
		l.to = "b@" + domain
		r.letters[s] = l
	}
	return r
}

// submit hands the message of a stage to the mail server.
func (r *killRun) submit(t *testing.T, s stage) *killLetter {
	t.Helper()
	l := r.letters[s]
	m := note("a@"+keepDomain, l.to)
	m.text = append(m.text, bytes.Repeat([]byte("a line of the message, so and so long\n"), l.size/38)...)
	m.text = append(m.text, "the end\n"...)
	l.id = r.sender.submit(t, m)
	return l
}

// reached waits until a message's remote server has come to a stage.
func (r *killRun) reached(t *testing.T, l *killLetter, at mx.Stage) {
	t.Helper()
	await(t, "the remote server to come to "+at.String(), func() (int, bool) {
		n := l.server.Counters().Stages[at]
		return n, n > 0
	}, r.sender.logFile(), r.daemon.log)
}

// run brings a message into each stage, lets the killer work, and sees to what
// becomes of all that.
func (r *killRun) run(t *testing.T, k killer) {
	// First the one whose client must be told from the others'.
	l := r.submit(t, answered)
	r.reached(t, l, mx.StageFinal)
	client := r.clients(t)[0]
	r.freeze(t, client)
	l.release()
	await(t, "the answer at the client", func() (int, bool) {
		n := unread(t, client)
		return n, n > 0
	}, r.sender.logFile(), r.daemon.log)
	for s, at := range map[stage]mx.Stage{committed: mx.StageGreeting, addressed: mx.StageRCPT, halfBody: mx.StageBody, afterDot: mx.StageFinal} {
		r.reached(t, r.submit(t, s), at)
	}
	before := readSoFar(r.daemon.cmd.Process.Pid)
	r.submit(t, uploading)
	await(t, "the upload to begin", func() (int, bool) {
		n := readSoFar(r.daemon.cmd.Process.Pid) - before
		return n, n > 64<<10
	}, r.sender.logFile(), r.daemon.log)
	r.freeze(t, r.daemon.cmd.Process.Pid)

	if k.kill(t, r) {
		await(t, "the clients to end", func() ([]int, bool) {
			left := r.clients(t)
			return left, r.way.lmtp || len(left) == 0
		}, r.daemon.log)
		for _, s := range []stage{committed, addressed, halfBody} {
			r.daemon.logged(t, `msg=deferred .*queue_id=`+r.letters[s].id)
			if n := r.letters[s].server.Counters().Stages[mx.StageFinal]; n != 0 {
				t.Errorf("%s: sent for no one", s)
			}
		}
	}
	if k.restart != nil {
		k.restart(t, r)
	}
	r.release()
	for s := range stages {
		r.arrived(t, s, k)
	}
}

// arrived waits until the mail server has let a message go, and counts what
// arrived.
func (r *killRun) arrived(t *testing.T, s stage, k killer) {
	t.Helper()
	l := r.letters[s]
	var last time.Time
	await(t, "the end of the message that was "+s.String(), func() ([]attempt, bool) {
		if r.sender.gone(l.id) {
			return nil, true
		}
		if time.Since(last) > time.Second {
			r.sender.flush(t)
			last = time.Now()
		}
		return r.sender.attempts(l.id), false
	}, r.sender.logFile(), r.daemon.log)
	for _, a := range r.sender.attempts(l.id) {
		if a.status == "bounced" {
			t.Errorf("%s: bounced: %+v", s, a)
		}
	}
	list := l.server.Messages()
	if most := map[bool]int{false: 1, true: 2}[s == k.window]; len(list) == 0 || len(list) > most {
		t.Errorf("%s: %d copies arrived\n%s", s, len(list), tail(r.daemon.log))
	}
	for _, m := range list {
		if !bytes.HasSuffix(m.Body, []byte("\r\nthe end\r\n")) || len(m.Body) < l.size {
			t.Errorf("%s: %d bytes arrived, and not the whole message of %d", s, len(m.Body), l.size)
		}
	}
}

func (l *killLetter) release() {
	if !l.released {
		close(l.gate)
		l.released = true
	}
}

// release lets all remote servers go on.
func (r *killRun) release() {
	for _, l := range r.letters {
		l.release()
	}
}

// clients are the processes that speak to mxpolicyd.
func (r *killRun) clients(t *testing.T) []int {
	t.Helper()
	if r.way.lmtp {
		return r.sender.lmtpClients()
	}
	var pids []int
	for _, pid := range processes() {
		if line := cmdline(pid); strings.HasPrefix(line, lab(t).mxpipe+"\x00") && strings.Contains(line, r.daemon.socket) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// everyClient waits until each message has its client, and returns them.
func (r *killRun) everyClient(t *testing.T) []int {
	t.Helper()
	return await(t, "a client for each message", func() ([]int, bool) {
		pids := r.clients(t)
		return pids, len(pids) >= int(stages)
	}, r.daemon.log)
}

// deliveries are the mail server's processes that do so, or run mxpipe.
func (r *killRun) deliveries(t *testing.T) []int {
	t.Helper()
	pids := r.everyClient(t)
	if !r.way.lmtp {
		for i, pid := range pids {
			_, _, pids[i] = stat(pid)
		}
	}
	return pids
}

func (r *killRun) killAll(t *testing.T, pids []int) {
	t.Helper()
	if len(pids) < int(stages) {
		t.Errorf("%d processes to kill, want one for each message", len(pids))
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r.dead(t, pids)
}

// dead waits until processes are.
func (r *killRun) dead(t *testing.T, pids []int) {
	t.Helper()
	await(t, "the killed to be dead", func() ([]int, bool) {
		pids = slices.DeleteFunc(pids, func(pid int) bool {
			_, state, _ := stat(pid)
			return state == "" || state == "Z"
		})
		return pids, len(pids) == 0
	})
}

// freeze stops a process until thaw.
func (r *killRun) freeze(t *testing.T, pid int) {
	t.Helper()
	r.frozen = append(r.frozen, pid)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, fmt.Sprintf("process %d to stop", pid), func() (string, bool) {
		_, state, _ := stat(pid)
		return state, state == "T"
	})
}

// thaw lets those go on that still live.
func (r *killRun) thaw(t *testing.T) {
	t.Helper()
	for _, pid := range r.frozen {
		if _, state, _ := stat(pid); state != "T" {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
			t.Error(err)
		}
	}
	r.frozen = nil
}

// readSoFar is how many bytes a process has read since it started.
func readSoFar(pid int) (n int) {
	for line := range strings.Lines(ofProcess(pid, "io")) {
		fmt.Sscanf(line, "rchar: %d", &n)
	}
	return n
}
