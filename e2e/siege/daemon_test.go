package siege

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// patience is how long what must happen in the end may take.
const patience = 2 * time.Minute

// unitFile is the unit whose limits hold.
const unitFile = "../../packaging/systemd/mxpolicyd.service"

// unit gives a setting of the unit.
func unit(t *testing.T, key string) string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return value
		}
	}
	t.Fatalf("the unit has no %s", key)
	return ""
}

// memoryMax is the unit's bound on memory, in bytes.
func memoryMax(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(unit(t, "MemoryMax"), "G"))
	if err != nil {
		t.Fatal(err)
	}
	return n << 30
}

// daemon is the mxpolicyd that is attacked.
type daemon struct {
	cmd                                  *exec.Cmd
	mxpipe                               string // the other program
	pipe, lmtp, socketmap, admin, metric string // where it listens
	log                                  string
	pings                                atomic.Int64 // for the watchdog
	late                                 atomic.Int64 // of those, too late
}

// programs builds both programs, once for all tests. They lie in a directory
// that TestMain takes away.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "siege"); err != nil {
		return "", err
	}
	for _, program := range []string{"mxpolicyd", "mxpipe"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, program), "../../cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return dir, nil
})

// run runs the tests, and takes the programs away.
type run struct{ *testing.M }

// Run implements leaks.Tests.
func (r run) Run() int {
	defer func() {
		if dir, _ := programs(); dir != "" {
			os.RemoveAll(dir)
		}
	}()
	return r.M.Run()
}

// watchdog is the unit's WatchdogSec; in a short run it is shorter, so that
// there is something to hear.
func watchdog() time.Duration {
	if *long {
		return time.Minute
	}
	return 20 * time.Second
}

func startDaemon(t *testing.T, l *lab) *daemon {
	t.Helper()
	dir := t.TempDir()
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	d := &daemon{
		mxpipe: filepath.Join(built, "mxpipe"), pipe: at("pipe.sock"), lmtp: at("lmtp.sock"), socketmap: at("map.sock"), admin: at("admin.sock"),
		metric: ports.AddressFor(t), log: at("log"),
	}
	config := fmt.Appendf(nil, `hostname: out.siege.example
state_dir: %s
log: {level: warn}
dns: {servers: ["%s"], timeout: 5s}
listen:
  pipe: {path: %s}
  lmtp: [{path: %s, transport: default}]
  socketmap: {path: %s}
  admin: {path: %s}
  metrics: {address: "%s"}
transports:
  default:
    port: %d
    mx_auth: {dnssec: {}, dane: {}, mtasts: {cache: fs, https_port: %d}}
    tls_client: {root_ca: [%s]}
    connect_timeout: 30s
    command_timeout: 30s
    submission_timeout: 30s
    conn_max_idle_time: 8s
    limits: {destination: {concurrency: 20}, source: {rate: 1000/1s}}
`, dir, l.dns.Addr(), d.pipe, d.lmtp, d.socketmap, d.admin, d.metric, l.port, l.web.Addr().Port(), l.roots)
	if err := os.WriteFile(at("mxpolicyd.yaml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.listen(t, at("notify"))
	d.cmd = exec.Command(filepath.Join(built, "mxpolicyd"), "serve", "-c", at("mxpolicyd.yaml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), unit(t, "Environment"), "NOTIFY_SOCKET="+at("notify"), fmt.Sprintf("WATCHDOG_USEC=%d", watchdog().Microseconds()))
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("mxpolicyd: %v\n%s", err, d.tail())
		}
	})
	for deadline := time.Now().Add(patience); !d.answers(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("mxpolicyd does not start\n%s", d.tail())
		}
	}
	return d
}

// answers says whether the last of its sockets is served.
func (d *daemon) answers() bool {
	for _, to := range [][2]string{{"unix", d.pipe}, {"unix", d.lmtp}, {"unix", d.socketmap}, {"unix", d.admin}, {"tcp", d.metric}} {
		conn, err := net.Dial(to[0], to[1])
		if err != nil {
			return false
		}
		conn.Close()
	}
	return true
}

// listen plays systemd: it hears what the daemon says for the watchdog.
func (d *daemon) listen(t *testing.T, path string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 8192)
		last := time.Time{}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if !strings.Contains(string(buf[:n]), "WATCHDOG=1") {
				continue
			}
			d.pings.Add(1)
			if now := time.Now(); !last.IsZero() && now.Sub(last) > watchdog() {
				d.late.Add(1)
			}
			last = time.Now()
		}
	})
	t.Cleanup(func() {
		conn.Close()
		done.Wait()
	})
}

// pinged waits for a ping, and says whether systemd would have killed the
// daemon.
func (d *daemon) pinged(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); d.pings.Load() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was said for the watchdog\n%s", d.tail())
		}
	}
	if d.late.Load() > 0 {
		t.Errorf("the watchdog would have fired\n%s", d.tail())
	}
}

func (d *daemon) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(d.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log)
	return string(text[max(0, len(text)-5000):])
}

// scrape reads the daemon's metrics that the tests know by name.
func (d *daemon) scrape(names ...string) map[string]float64 {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + d.metric + "/metrics")
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	found := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for _, want := range names {
			if name == want {
				found[name], _ = strconv.ParseFloat(value, 64)
			}
		}
	}
	return found
}
