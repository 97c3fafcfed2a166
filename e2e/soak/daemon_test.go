package soak

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// daemon is the mxpolicyd of the run, as people get it.
type daemon struct {
	cmd     *exec.Cmd
	lmtp    string
	metrics string // address
	log     string
}

const patience = time.Minute

func startDaemon(t *testing.T, l *lab) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{lmtp: filepath.Join(dir, "lmtp.sock"), log: filepath.Join(dir, "log")}
	program := filepath.Join(dir, "mxpolicyd")
	build := exec.Command("go", "build", "-o", program, "../../cmd/mxpolicyd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	d.metrics = ports.AddressFor(t)
	config := filepath.Join(dir, "mxpolicyd.yaml")
	err := os.WriteFile(config, fmt.Appendf(nil, `hostname: out.soak.example
state_dir: %s
log: {level: warn}
dns: {servers: ["%s"], timeout: 5s}
listen:
  lmtp: [{path: %s, transport: default}]
  metrics: {address: "%s"}
transports:
  default:
    port: %d
    mx_auth: {dnssec: {}, dane: {}, mtasts: {cache: fs, https_port: %d}}
    tls_client: {root_ca: [%s]}
    conn_max_idle_count: 2
    conn_max_idle_time: 15s
`, dir, l.dns.Addr(), d.lmtp, d.metrics, l.port, l.web.Addr().Port(), l.roots), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(program, "serve", "-c", config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
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
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if answers("unix", d.lmtp) && answers("tcp", d.metrics) {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("mxpolicyd does not start\n%s", d.tail())
		}
	}
}

// answers says whether somebody listens.
func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log)
	return string(text[max(0, len(text)-5000):])
}

// metric gives the sum of a metric's series.
func (d *daemon) metric(t *testing.T, name string) (sum int64) {
	t.Helper()
	found := false
	d.scrape(t, func(series string, value float64) {
		if is, _, _ := strings.Cut(series, "{"); is == name {
			sum, found = sum+int64(value), true
		}
	})
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// usage asks the daemon itself what it needs.
func (d *daemon) usage(t *testing.T) (resident, goroutines, descriptors int) {
	t.Helper()
	d.scrape(t, func(series string, value float64) {
		switch series {
		case "go_goroutines":
			goroutines = int(value)
		case "process_open_fds":
			descriptors = int(value)
		case "process_resident_memory_bytes":
			resident = int(value) >> 10
		}
	})
	if goroutines == 0 || descriptors == 0 || resident == 0 {
		t.Fatal("the metrics do not tell what the daemon needs")
	}
	return resident, goroutines, descriptors
}

// scrape reads all metrics.
func (d *daemon) scrape(t *testing.T, read func(series string, value float64)) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + d.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if series, value, ok := strings.Cut(lines.Text(), " "); ok && series != "#" {
			n, _ := strconv.ParseFloat(value, 64)
			read(series, n)
		}
	}
}

// client is one LMTP connection.
type client struct {
	*textproto.Conn
	text []byte
}

func dial(path string) (*client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: textproto.NewConn(conn), text: bytes.Repeat([]byte("This is a line of a message of ten kilobytes.\r\n"), 210)}
	if _, _, err = c.ReadResponse(220); err == nil {
		if err = c.PrintfLine("LHLO client.soak.example"); err == nil {
			_, _, err = c.ReadResponse(250)
		}
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

// send sends one message, and gives the reply for its recipient and how long
// that took from the message's end.
func (c *client) send(to string, n int64) (reply string, took time.Duration, err error) {
	fmt.Fprintf(c.W, "MAIL FROM:<a@client.soak.example>\r\nRCPT TO:<%s>\r\nDATA\r\n", to)
	if err := c.W.Flush(); err != nil {
		return "", 0, err
	}
	for _, want := range []int{250, 250, 354} {
		if _, _, err := c.ReadResponse(want); err != nil {
			return "", 0, err
		}
	}
	fmt.Fprintf(c.W, "Received: by client.soak.example id q%d; Sun, 23 Nov 2025 12:00:00 +0000\r\nSubject: soak %d\r\n\r\n", n, n)
	c.W.Write(c.text)
	io.WriteString(c.W, ".\r\n")
	start := time.Now()
	if err := c.W.Flush(); err != nil {
		return "", 0, err
	}
	code, text, err := c.ReadResponse(0)
	if code == 0 {
		return "", 0, err
	}
	return fmt.Sprintf("%d %s", code, text), time.Since(start), nil
}

// quantiles gives the median, the 99th percentile and the greatest.
func quantiles(times []time.Duration) (q [3]time.Duration) {
	if len(times) == 0 {
		return q
	}
	slices.Sort(times)
	return [3]time.Duration{times[len(times)/2], times[len(times)*99/100], times[len(times)-1]}
}
