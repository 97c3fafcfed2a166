package policyd

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

// postmaster is this host's mail server, which is handed the reports.
type postmaster struct {
	mu   sync.Mutex
	got  map[string][][]byte // by recipient
	stop func(at string) error
}

func (p *postmaster) NewSession(*smtp.Conn) (smtp.Session, error) { return &handover{office: p}, nil }

// handover is one session with the postmaster.
type handover struct {
	office *postmaster
	to     string
}

func (*handover) Reset()                               {}
func (*handover) Logout() error                        { return nil }
func (*handover) Mail(string, *smtp.MailOptions) error { return nil }

func (h *handover) Rcpt(to string, _ *smtp.RcptOptions) error {
	h.to = to
	return h.office.at("RCPT " + to)
}

func (h *handover) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	h.office.mu.Lock()
	h.office.got[h.to] = append(h.office.got[h.to], text)
	h.office.mu.Unlock()
	return h.office.at("taken " + h.to)
}

func (p *postmaster) at(what string) error {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	return stop(what)
}

// does has the postmaster do something at each step.
func (p *postmaster) does(stop func(at string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = stop
}

func nothing(string) error { return nil }

// reportDay is a day in the lab: a daemon in a process of its own, which is
// killed and started again while the clock moves.
type reportDay struct {
	*testing.T
	*running
	client *admin.Client
	file   string
	cmd    *exec.Cmd
	words  *testlog.Log
}

// begin starts the daemon, to which it is a certain time.
func (d *reportDay) begin(at time.Time) {
	d.Helper()
	d.systemd.Forget()
	d.words = testlog.New()
	d.cmd = exec.Command(os.Args[0])
	d.cmd.Env = append(os.Environ(), activatedEnv+"="+d.file, clockEnv+"="+time.Until(at).String())
	d.cmd.Stderr = d.words
	if err := d.cmd.Start(); err != nil {
		d.Fatal(err)
	}
	process := d.cmd.Process
	d.Cleanup(func() { process.Kill() }) // unless it has ended
	d.systemd.Wait(d, "READY=1")
}

// end stops the daemon, by TERM or kill -9.
func (d *reportDay) end(sig os.Signal) {
	d.Helper()
	d.cmd.Process.Signal(sig)
	if err := d.cmd.Wait(); err != nil && sig == syscall.SIGTERM {
		d.Errorf("%v\n%s", err, d.words)
	}
}

// round delivers a message to each domain.
func (d *reportDay) round(domains []string) {
	d.Helper()
	for _, domain := range domains {
		(&operated{running: d.running}).to(domain)
	}
}

// counted waits until each domain has the sessions of so many messages on a
// day.
func (d *reportDay) counted(domains map[string]string, day string, messages int) {
	d.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		l, err := d.client.Reports(d.Context())
		if err != nil {
			d.Fatal(err)
		}
		missing := maps.Clone(domains)
		for _, r := range l.Reports {
			policies := uint64(strings.Count(domains[r.Domain], "; ") + 1)
			if r.Day == day && r.Success+r.Failure == policies*uint64(messages) {
				delete(missing, r.Domain)
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			d.Fatalf("%d messages are not counted for %v\n%s", messages, slices.Sorted(maps.Keys(missing)), d.words)
		}
	}
}

// disk has the daemon's disk be full, or not any more.
func (d *reportDay) disk(full bool) {
	d.Helper()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if full {
		limit.Cur = 0
	}
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		d.Fatal(err)
	}
}

// A day in the lab: more than forty domains, with every result type there is,
// while the daemon is stopped and killed, the clock goes back and forth over
// midnight, and the disk is full; then the reports are sent, while it is killed
// before one is taken, and after another is. Each domain's report comes once,
// and counts what the lab's servers saw.
func TestReportDay(t *testing.T) {
	expected := outlines()
	// What the reports tell of MTA-STS beside the records that decide.
	expected["both.example"] = "tlsa passed; sts passed"
	expected["both-dane-yes.example"] = "tlsa passed; sts certificate-not-trusted failed"
	expected["both-dane-no.example"] = "tlsa certificate-not-trusted failed; sts passed"
	all := append(world.Domains(), moreDomains()...)
	for i := range 10 {
		name := fmt.Sprintf("plain%d.example", i)
		expected[name] = "no-policy-found passed"
		all = append(all, world.Domain{Name: name, Hosts: []world.Host{{Label: "mx", Preference: 10, Behaviour: mx.Modern(tls.Certificate{})}}})
	}
	for i := range all {
		all[i].Zone += "_smtp._tls CNAME _smtp._tls.reports\n_smtp._tls.reports TXT \"v=TLSRPTv1; rua=mailto:reports@" + all[i].Name + "\"\n"
	}
	w, err := world.Start(all...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	office := &postmaster{got: map[string][][]byte{}, stop: nothing}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(office)
	server.Domain, server.MaxLineLength = "mail.client.example", 2000
	server.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-served })

	l := &lab{t: t, dir: t.TempDir(), logged: testlog.New(), port: uint16(w.Port())}
	if err := w.Authority.WriteRoots(l.dir + "/roots.pem"); err != nil {
		t.Fatal(err)
	}
	l.systemd = listenNotices(t, filepath.Join(l.dir, "notify"))
	d := &reportDay{T: t, running: &running{lab: l}, client: admin.NewClient(l.dir + "/admin.sock"), file: filepath.Join(l.dir, "mxpolicyd.yaml")}
	text := (&operated{world: w}).yaml(l, "    conn_reuse_limit: 0") +
		"tlsrpt: {report: {from: tlsrpt@client.example, send: \"" + listener.Addr().String() + "\"}}\n"
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	domains := slices.Sorted(maps.Keys(expected))
	if len(domains) < 40 {
		t.Fatalf("%d domains", len(domains))
	}

	day := time.Now().UTC().Truncate(24 * time.Hour).Add(10 * 24 * time.Hour)
	today, tomorrow := day.Format(time.DateOnly), day.Add(24*time.Hour).Format(time.DateOnly)
	d.begin(day.Add(10 * time.Hour))
	d.round(domains)
	d.counted(expected, today, 1)
	d.end(syscall.SIGTERM)

	d.begin(day.Add(15 * time.Hour))
	d.round(domains)
	d.counted(expected, today, 2)
	d.end(syscall.SIGKILL)

	// What a full disk did not take is there when it has room again.
	d.begin(day.Add(20 * time.Hour))
	d.disk(true)
	d.round(domains)
	d.counted(expected, today, 3)
	d.words.Wait(t, "TLS report counts cannot be written")
	d.disk(false)
	d.round(domains)
	d.counted(expected, today, 4)
	d.end(syscall.SIGKILL)

	// Over midnight, and back.
	d.begin(day.Add(24*time.Hour + time.Minute))
	d.round([]string{"none.example"})
	d.counted(map[string]string{"none.example": ""}, tomorrow, 1)
	d.end(syscall.SIGKILL)
	d.begin(day.Add(23 * time.Hour))
	d.round(domains)
	d.counted(expected, today, 5)
	d.end(syscall.SIGKILL)
	const messages = 5

	// The reports: it is killed when the first of two domains is named, and
	// when the report of the second is taken.
	killAt := func(what string) {
		t.Helper()
		d.begin(day.Add(29 * time.Hour))
		office.does(func(at string) error {
			if at == what {
				d.cmd.Process.Kill()
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		if _, err := d.client.SendReport(t.Context(), ""); err == nil {
			t.Errorf("killed at %q, it sent everything", what)
		}
		d.end(syscall.SIGKILL)
		office.does(nothing)
	}
	killAt("RCPT reports@dane-ee.example")
	killAt("taken reports@plain3.example")
	for range 2 {
		d.begin(day.Add(30 * time.Hour))
		if _, err := d.client.SendReport(t.Context(), ""); err != nil {
			t.Error(err)
		}
		d.end(syscall.SIGTERM)
	}

	office.mu.Lock()
	defer office.mu.Unlock()
	seen := connections(w)
	seen["mx.none.example"]--              // it had a message of the next day
	seen["mx.dane-ta.example"] -= messages // it is dane-hosted.example's too
	for _, domain := range domains {
		list := office.got["reports@"+domain]
		if len(list) != 1 {
			t.Errorf("%s: %d reports", domain, len(list))
			continue
		}
		r := unpack(t, list[0])
		if r == nil || r.Range.Start != day {
			t.Fatalf("%s: %+v", domain, r)
		}
		if got, want := outline(r), inReport(expected[domain], messages); got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
		compare(t, domain, r, seen)
	}
	for to := range office.got {
		if domain := strings.TrimPrefix(to, "reports@"); expected[domain] == "" {
			t.Errorf("a report about %s", domain)
		}
	}
}

// inReport says what a report tells of messages that each fared as an outline
// says: the policies in the report's order, each with its first failure.
func inReport(expected string, messages int) string {
	var all []string
	for one := range strings.SplitSeq(expected, "; ") {
		words := strings.Fields(one)
		success, failure, result := messages, 0, ""
		if len(words) > 2 {
			success, failure, result = 0, messages, " "+words[1]
		}
		all = append(all, fmt.Sprintf("%s %d/%d%s", words[0], success, failure, result))
	}
	order := []string{"tlsa", "sts", "no-p"}
	slices.SortStableFunc(all, func(a, b string) int {
		place := func(s string) int {
			return slices.IndexFunc(order, func(p string) bool { return strings.HasPrefix(s, p) })
		}
		return place(a) - place(b)
	})
	return strings.Join(all, ", ")
}

// connections are those that the lab's servers saw, by host.
func connections(w *world.World) map[string]int {
	seen := map[string]int{}
	for host, s := range w.Servers() {
		seen[host] = s.Counters().Connections
	}
	return seen
}

// compare holds the sessions of a report against the connections that the
// domain's servers saw: as many, or more where a handshake was tried again.
func compare(t *testing.T, domain string, r *tlsreport.Report, seen map[string]int) {
	t.Helper()
	at := 0
	for host, n := range seen {
		if strings.HasSuffix(host, "."+domain) {
			at += n
		}
	}
	if at == 0 {
		return // its hosts are another's, or none was dialled
	}
	var sessions, again uint64
	for _, p := range r.Policies {
		fetched := false
		for _, f := range p.Failures {
			fetched = fetched || f.Receiver == "" && f.Host == ""
			if strings.HasPrefix(f.Reason, "TLS") || f.Result == tlsreport.ValidationFailure {
				again += f.Count
			}
		}
		beside := p.Policy.Type == tlsreport.TypeSTS && r.Policies[0].Policy.Type == tlsreport.TypeTLSA
		if !fetched && !beside {
			sessions += p.Summary.Success + p.Summary.Failure
		}
	}
	if uint64(at) != sessions && (again == 0 || uint64(at) < sessions) {
		t.Errorf("%s: the report has %d sessions, the servers saw %d connections", domain, sessions, at)
	}
}

// unpack reads the report out of its mail.
func unpack(t *testing.T, text []byte) *tlsreport.Report {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if _, err := parts.NextPart(); err != nil {
		t.Fatal(err)
	}
	part, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, part))
	if err != nil {
		t.Fatal(err)
	}
	r, err := tlsreport.Validate(z)
	if err != nil {
		t.Error(err)
	}
	return r
}
