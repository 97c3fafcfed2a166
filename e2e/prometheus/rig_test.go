package prometheus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/internal/wire"
)

// patience is how long anything may take that a test waits for. It only decides
// when a test has failed.
const patience = 90 * time.Second

// rig is the lab's internet, mxpolicyd, and Prometheus.
type rig struct {
	t          *testing.T
	dir        string
	world      *world.World
	mxpolicyd  string // host:port of its metrics
	prometheus string // host:port
}

// configuration is mxpolicyd's. The second transport has limits that hold mail
// back.
const configuration = `hostname: client.example
state_dir: %[1]s/state
shutdown_timeout: 1s
dns: {servers: ["%[2]s"], timeout: 2s, attempts: 1}
tlsrpt: {socket: %[1]s/collector.sock}
listen:
  pipe: {path: %[1]s/pipe.sock, mode: "0600"}
  metrics: {address: "%[3]s"}
mx_auth:
  all: {dnssec: {}, dane: {}, mtasts: {https_port: %[4]d}}
transports:
  default: {mx_auth: all, port: %[5]d, tls_client: {root_ca: %[1]s/roots.pem}}
  narrow:
    mx_auth: all
    port: %[5]d
    tls_client: {root_ca: %[1]s/roots.pem}
    limits: {destination: {rate: 20/1s}}
`

func newRig(t *testing.T) *rig {
	t.Helper()
	for _, program := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: run \"make needs\"", err)
		}
	}
	r := &rig{t: t, dir: t.TempDir()}
	domains := world.Domains()
	for i := range domains {
		domains[i].Zone += "_smtp._tls TXT \"v=TLSRPTv1; rua=mailto:reports@example.com\"\n"
	}
	var err error
	r.world, err = world.Start(domains...)
	r.must(err)
	t.Cleanup(r.world.Stop)
	r.must(r.world.Authority.WriteRoots(r.path("roots.pem")))
	r.collect()
	r.startMxpolicyd()
	r.startPrometheus()
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// collect stands for a TLSRPT collector.
func (r *rig) collect() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path("collector.sock"), Net: "unixgram"})
	r.must(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 1<<16); ; {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	r.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

func (r *rig) startMxpolicyd() {
	r.t.Helper()
	program := r.path("mxpolicyd")
	build := []string{"build", "-ldflags", "-X main.version=7.7.7", "-o", program}
	if raceDetector() {
		build = append(build, "-race")
	}
	if out, err := exec.Command("go", append(build, "../../cmd/mxpolicyd")...).CombinedOutput(); err != nil {
		r.t.Fatalf("go build: %v\n%s", err, out)
	}
	r.mxpolicyd = ports.AddressFor(r.t)
	text := fmt.Sprintf(configuration, r.dir, r.world.Resolver(), r.mxpolicyd, r.world.HTTPSPort(), r.world.Port())
	r.must(os.WriteFile(r.path("mxpolicyd.yaml"), []byte(text), 0o600))
	r.run("mxpolicyd", "http://"+r.mxpolicyd+"/metrics", exec.Command(program, "serve", "-c", r.path("mxpolicyd.yaml")))
}

// raceDetector reports whether the test has the race detector, and so mxpolicyd
// shall.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func (r *rig) startPrometheus() {
	r.t.Helper()
	rules, err := filepath.Abs("../../contrib/prometheus/mxpolicyd.rules.yml")
	r.must(err)
	text := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: mxpolicyd
    static_configs: [{targets: [%q]}]
`, rules, r.mxpolicyd)
	r.must(os.WriteFile(r.path("prometheus.yml"), []byte(text), 0o600))
	r.prometheus = ports.AddressFor(r.t)
	r.run("prometheus", "http://"+r.prometheus+"/-/ready", exec.Command("prometheus",
		"--config.file="+r.path("prometheus.yml"), "--storage.tsdb.path="+r.path("data"), "--web.listen-address="+r.prometheus))
}

// run runs a server until the test ends. It is there when the URL can be got.
func (r *rig) run(name, ready string, cmd *exec.Cmd) {
	r.t.Helper()
	var log bytes.Buffer // read after the end
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.must(cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// How it ends is seen in its log.
		_ = cmd.Wait()
	}()
	r.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-ended
			r.t.Errorf("%s did not end", name)
		}
		text := log.String()
		if strings.Contains(text, "DATA RACE") {
			r.t.Errorf("%s has a data race", name)
		}
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", name, text[max(0, len(text)-5000):])
		}
	})
	r.until(name+" is ready", func() error {
		select {
		case <-ended:
			r.t.Fatalf("%s has ended", name)
		default:
		}
		_, err := get(ready)
		return err
	})
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

// get gets what is at a URL.
func get(url string) (string, error) {
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// send hands a message to mxpolicyd, as mxpipe does, and waits for its answer.
func (r *rig) send(transport, to string) error {
	conn, err := net.Dial("unix", r.path("pipe.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := wire.AppendEnvelope(nil, &wire.Envelope{Sender: "a@client.example", Transport: transport, Recipients: []wire.Recipient{{Address: to}}})
	if err != nil {
		return err
	}
	if _, err := conn.Write(wire.AppendCommit(wire.AppendData(raw, []byte("Subject: a test\n\nHello.\n")))); err != nil {
		return err
	}
	_, err = wire.ReadAnswer(conn)
	return err
}

// sample is one series of a query's result.
type sample struct {
	Metric map[string]string
	Value  [2]any // time and value
}

// String gives the sample as Prometheus writes it.
func (s sample) String() string {
	var labels []string
	for k, v := range s.Metric {
		labels = append(labels, k+"="+v)
	}
	return fmt.Sprintf("{%s} %v", strings.Join(labels, ","), s.Value[1])
}

var errNoData = errors.New("no data")

// query asks Prometheus. No data is an error, and so is nothing but NaN.
func (r *rig) query(expr string) ([]sample, error) {
	text, err := get("http://" + r.prometheus + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct{ Result []sample }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	for _, s := range answer.Data.Result {
		if s.Value[1] != "NaN" {
			return answer.Data.Result, nil
		}
	}
	return nil, errNoData
}
