package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/admin"
)

// rig is the lab's internet, a mxpolicyd that delivers to it, and "mxpolicyd
// web".
type rig struct {
	t       *testing.T
	dir     string
	program string
	world   *world.World
	daemon  *process
	admin   *admin.Client
}

// configuration is mxpolicyd's. Replies of the provider bulky.example that ask
// for a rest are obeyed, as those of large receivers are.
const configuration = `hostname: client.example
state_dir: %[1]s/state
shutdown_timeout: 1s
history: {keep: true}
dns: {servers: ["%[2]s"], timeout: 5s, attempts: 2}
listen:
  pipe: {path: %[1]s/pipe.sock, mode: "0600"}
  admin: {path: %[1]s/admin.sock, mode: "0600"}
mx_auth:
  all: {dnssec: {}, dane: {}, mtasts: {https_port: %[3]d}}
providers:
  bulky: {mx: [.bulky.example]}
replies:
  - {match: "too many messages", do: {pause: 30m}}
transports:
  default:
    mx_auth: all
    port: %[4]d
    tls_client: {root_ca: %[1]s/roots.pem}
    limits: {destination: {concurrency: 10}, all: {rate: 500/1s}}
  newsletter:
    mx_auth: all
    port: %[4]d
    tls_client: {root_ca: %[1]s/roots.pem}
    limits: {destination: {rate: 2/1h}}
`

// newRig starts the lab and mxpolicyd, which remembers the hour that was.
func newRig(t *testing.T, hour []byte) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	var err error
	r.world, err = world.Start(domains()...)
	r.must(err)
	t.Cleanup(r.world.Stop)
	r.must(r.world.Authority.WriteRoots(r.path("roots.pem")))
	r.must(os.Mkdir(r.path("state"), 0o700))
	r.must(os.WriteFile(r.path("state/history"), hour, 0o600))
	r.program = r.path("mxpolicyd")
	build := []string{"build", "-ldflags", "-X main.version=1.0.0", "-o", r.program}
	if raceDetector() {
		build = append(build, "-race")
	}
	if out, err := exec.Command("go", append(build, "../../cmd/mxpolicyd")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	text := fmt.Sprintf(configuration, r.dir, r.world.Resolver(), r.world.HTTPSPort(), r.world.Port())
	r.must(os.WriteFile(r.path("mxpolicyd.yaml"), []byte(text), 0o600))
	r.admin = admin.NewClient(r.path("admin.sock"))
	r.startDaemon()
	return r
}

// domains are those of the lab that the page is looked at with, and two
// that a large provider has the mail of.
func domains() []world.Domain {
	wanted := []string{
		"dane-ee.example", "dane-wrong.example", "sts.example", "sts-wrong-name.example", "both.example", "none.example",
		"plain.example", "all-down.example", "users.example", "down.example",
	}
	all := slices.DeleteFunc(world.Domains(), func(d world.Domain) bool { return !slices.Contains(wanted, d.Name) })
	all = append(all, world.Domain{Name: "bulky.example", About: "a provider", Signing: dnssec.Unsigned, Hosts: []world.Host{{Label: "mx1", Preference: 10, Behaviour: mx.Modern(noCertificate)}}})
	for _, name := range []string{"shop.example", "club.example"} {
		all = append(all, world.Domain{Name: name, About: "its mail is with bulky.example", Signing: dnssec.Unsigned, Zone: "@ MX 10 mx1.bulky.example.\n"})
	}
	return all
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// startDaemon starts mxpolicyd, and waits until it answers.
func (r *rig) startDaemon() {
	r.t.Helper()
	r.daemon = r.start("serve", "-c", r.path("mxpolicyd.yaml"))
	r.until("mxpolicyd answers", func() error {
		select {
		case <-r.daemon.ended:
			r.t.Fatalf("mxpolicyd has ended:\n%s", r.daemon.log.String())
		default:
		}
		_, err := r.admin.Status(r.t.Context())
		return err
	})
}

// startPage starts "mxpolicyd web", and gives the address that it prints.
func (r *rig) startPage() (address string, p *process) {
	r.t.Helper()
	p = r.start("web", "-c", r.path("mxpolicyd.yaml"))
	select {
	case address = <-p.firstLine:
	case <-time.After(patience):
		r.t.Fatal("mxpolicyd web prints no address")
	}
	if !strings.HasPrefix(address, "http://127.0.0.1:") {
		r.t.Fatalf("mxpolicyd web prints %q", address)
	}
	return address, p
}

// process is a running mxpolicyd.
type process struct {
	cmd       *exec.Cmd
	log       bytes.Buffer // standard error; read after the end
	firstLine chan string  // of standard output
	ended     chan struct{}
}

// start runs mxpolicyd until the test ends, or stop.
func (r *rig) start(args ...string) *process {
	r.t.Helper()
	p := &process{cmd: exec.Command(r.program, args...), firstLine: make(chan string, 1), ended: make(chan struct{})}
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	r.must(err)
	r.must(p.cmd.Start())
	go func() {
		defer close(p.ended)
		lines := bufio.NewReader(out)
		line, _ := lines.ReadString('\n')
		p.firstLine <- strings.TrimSpace(line)
		// There is nothing more to read, and how it ends is seen in its log.
		_, _ = io.Copy(io.Discard, lines)
		_ = p.cmd.Wait()
	}()
	r.t.Cleanup(func() {
		r.stop(p)
		text := p.log.String()
		if strings.Contains(text, "DATA RACE") {
			r.t.Errorf("mxpolicyd %s has a data race", args[0])
		}
		if r.t.Failed() {
			r.t.Logf("mxpolicyd %s:\n%s", args[0], text[max(0, len(text)-3000):])
		}
	})
	return p
}

func (r *rig) stop(p *process) {
	// It may have ended.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
		r.t.Errorf("%v did not end", p.cmd.Args)
	}
}

// raceDetector reports whether the test has the race detector, and so mxpolicyd
// shall.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// until waits until ask is content.
func (r *rig) until(what string, ask func() error) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %s in vain until %s: %v", patience, what, err)
		}
	}
}

// send hands a message over, as mxpipe does, and gives the code of the answer.
func (r *rig) send(transport, to string) (code string) {
	r.t.Helper()
	conn, err := net.Dial("unix", r.path("pipe.sock"))
	r.must(err)
	defer conn.Close()
	r.must(conn.SetDeadline(time.Now().Add(patience)))
	raw, err := wire.AppendEnvelope(nil, &wire.Envelope{Sender: "a@client.example", QueueID: "4c" + strings.ToUpper(to[:2]), Transport: transport, Recipients: []wire.Recipient{{Address: to}}})
	r.must(err)
	_, err = conn.Write(wire.AppendCommit(wire.AppendData(raw, []byte("Subject: a test\n\nHello.\n"))))
	r.must(err)
	a, err := wire.ReadAnswer(conn)
	r.must(err)
	return a.Code
}

// says runs a command of mxpolicyd, and gives its exit status and what it
// prints, in one line.
func (r *rig) says(command string) (status int, text string) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), r.program, append(strings.Fields(command), "-c", r.path("mxpolicyd.yaml"))...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.Join(strings.Fields(string(out)), " ")
}

// status asks the daemon.
func (r *rig) status() admin.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	s, err := r.admin.Status(ctx)
	r.must(err)
	return s
}

// line writes JSON with a newline.
func line(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // the type is ours
	}
	return append(text, '\n')
}
