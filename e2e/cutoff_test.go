package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	labscript "github.com/mxpipe/mxpipe/internal/lab/script"
)

// writer is a mail server that dies at work: it starts mxpipe, writes so many
// bytes of the message to it, says so on its standard error, and waits. Its
// arguments are the number of bytes, and mxpipe with its arguments; its
// standard input is the message. Without a death it closes mxpipe's standard
// input at the end of its own.
func writer() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	n, err := strconv.Atoi(os.Args[1])
	fail(err)
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdout = os.Stdout
	pipe, err := cmd.StdinPipe()
	fail(err)
	fail(cmd.Start())
	_, err = io.CopyN(pipe, os.Stdin, int64(n))
	fail(err)
	fmt.Fprintln(os.Stderr, "written")
	_, err = io.Copy(pipe, os.Stdin)
	fail(err)
	fail(pipe.Close())
	cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
}

// The mail server is killed while it writes. Its end closes the pipe just as
// the end of the message would; the message must not go out cut off.
func TestCutOffMessageIsNeverDelivered(t *testing.T) {
	t.Parallel()
	const kills, atOnce = 100, 4
	s, domain := remote(t, "mxpipe", modern(t))
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range kills {
		all.Go(func() error {
			// From a few bytes to several buffers; the last ones of each ten
			// write the whole message, and lack only the orderly end.
			size := 100 << (i % 12)
			cut := size / 2
			if i%10 == 9 {
				cut = size
			}
			line, err := killedWriter(t, size, cut, "-f", fmt.Sprintf("kill%d@%s", i, keepDomain), "b@"+domain)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(line, "4.3.0 ") || !strings.Contains(line, "is gone") {
				return fmt.Errorf("killed after %d of %d bytes, mxpipe said %q", cut, size, line)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	// The same way of writing, without a death, does deliver: it was not for
	// another reason that nothing arrived.
	cmd := again("writer", "5", lab(t).mxpipe, "--socket", lab(t).daemon.socket, "-f", "whole@"+keepDomain, "b@"+domain)
	cmd.Stdin = strings.NewReader("Subject: whole\n\nAll of it.\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("2.0.0 mx."+domain)) {
		t.Fatalf("a writer that lives: %v: %s", err, out)
	}
	if list := s.Messages(); len(list) != 1 || list[0].Sender != "whole@"+keepDomain {
		t.Errorf("%d messages were delivered, want the whole one alone", len(list))
	}
}

// orphaned starts mxpipe, "$@", when its parent is dead already and the shell,
// process 1 of a process namespace, has taken it in. The shell in the middle
// holds the only other end of 3 as long as it lives.
const orphaned = `
( ( exec 4>&-; read -r _ <&3; exec "$@" <&6 ) & )
exec 4>&-
read -r _ <&5
`

// A mail server can die before mxpipe has even started. The process that took
// mxpipe in then lives, and may share its session, as in a container; the end
// of the message proves nothing all the same.
func TestOrphanFromTheStart(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "mxpipe", modern(t))
	var ends [3][2]*os.File // of 3, 4; of 5; of 6
	for i := range ends {
		var err error
		if ends[i][0], ends[i][1], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c", orphaned, "sh", lab(t).mxpipe, "--socket", lab(t).daemon.socket, "-f", "a@"+keepDomain, "b@"+domain)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	cmd.ExtraFiles = []*os.File{ends[0][0], ends[0][1], ends[1][0], ends[2][0]}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(ends[2][1], short())
	ends[2][1].Close()
	line, failed := bufio.NewReader(out).ReadString('\n')
	ends[1][1].Close()
	cmd.Wait()
	if err != nil || failed != nil || !strings.HasPrefix(line, "4.3.0 the mail server that started mxpipe is gone") {
		t.Errorf("mxpipe said %q, %v, %v", line, err, failed)
	}
	if list := s.Messages(); len(list) != 0 {
		t.Errorf("%d messages were delivered", len(list))
	}
}

// killedWriter kills the writer when it has written cut of size bytes, and
// gives what mxpipe said.
func killedWriter(t *testing.T, size, cut int, args ...string) (line string, err error) {
	w := lab(t)
	cmd := again("writer", append([]string{strconv.Itoa(cut), w.mxpipe, "--socket", w.daemon.socket}, args...)...)
	message := "Subject: cut off\n\n" + strings.Repeat("0123456789abcdef\n", size/17+1)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	// Pipes of our own, as mxpipe has its standard output for longer than the
	// writer lives.
	said, saying, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer said.Close()
	told, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	cmd.Stdout = saying
	err = cmd.Start()
	saying.Close()
	if err != nil {
		return "", err
	}
	var feed sync.WaitGroup
	feed.Go(func() { io.WriteString(in, message[:cut]) })
	word, err := bufio.NewReader(told).ReadString('\n')
	cmd.Process.Kill()
	feed.Wait()
	cmd.Wait()
	if err != nil || word != "written\n" {
		return "", fmt.Errorf("the writer said %q: %w", word, err)
	}
	said.SetReadDeadline(time.Now().Add(patience))
	out, err := io.ReadAll(said)
	return string(out), err
}

// The daemon is killed at each stage of a delivery. mxpipe says so, and that
// the message is to be tried again.
func TestDaemonKilledAtEachStage(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	const half = size / 2
	text := "Subject: large\n\n" + strings.Repeat("0123456789abcdef\n", size/17)
	// The server offers no PIPELINING, so each command comes after the reply to
	// the one before.
	dialogue := []string{"S: 220 mx ESMTP", "C: EHLO *", "S: 250 mx", "C: MAIL FROM:<*", "S: 250 2.1.0 ok", "C: RCPT TO:<*",
		"S: 250 2.1.5 ok", "C: DATA", "S: 354 go on", fmt.Sprintf("READ %d", half)}
	command := func(verb string) func(labscript.Conversation) bool {
		return func(c labscript.Conversation) bool {
			return len(c.Commands) > 0 && strings.HasPrefix(c.Commands[len(c.Commands)-1], verb)
		}
	}
	for _, c := range []struct {
		name    string
		steps   []string
		reached func(labscript.Conversation) bool
	}{
		{"before the greeting", nil, func(labscript.Conversation) bool { return true }},
		{"after EHLO", dialogue[:2], command("EHLO")},
		{"after MAIL", dialogue[:4], command("MAIL")},
		{"after RCPT", dialogue[:6], command("RCPT")},
		{"after DATA", dialogue[:8], command("DATA")},
		{"half of DATA", dialogue, func(c labscript.Conversation) bool { return len(c.Clear) > half }},
		{"before the final reply", append(slices.Clone(dialogue[:9]), "BODY"), func(c labscript.Conversation) bool { return len(c.Messages) == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := lab(t)
			d := startDaemon(t, settings{})
			domain := w.newDomain("killed")
			address, err := w.host(domain)
			if err != nil {
				t.Fatal(err)
			}
			script, err := labscript.Parse(strings.Join(append(slices.Clone(c.steps), "WAIT forever"), "\n"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := labscript.Start(labscript.Options{Addr: address, Scripts: []labscript.Script{script}, Timeout: 2 * patience})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			call := mxpipe(t, d, strings.NewReader(text), "-f", "a@"+keepDomain, "b@"+domain)
			await(t, "the stage", func() (error, bool) {
				list := s.Conversations()
				return s.Err(), len(list) == 1 && c.reached(list[0])
			}, d.log)
			if err := d.stop(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if r := call.result(t); r.exit != 75 || r.code() != "4.3.2" || !strings.Contains(r.line, "closed the connection") {
				t.Errorf("mxpipe: %s", r)
			}
		})
	}
}
