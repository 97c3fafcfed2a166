package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take that a test waits for. It only decides
// when a test has failed.
const patience = 2 * time.Minute

// chromium is a running browser.
type chromium struct {
	t     *testing.T
	home  string // it has files nowhere else
	cmd   *exec.Cmd
	pipe  *os.File // to it
	ended chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[int]chan message
	tabs    map[string]*tab // by session
}

// message is one of the DevTools protocol: a call, its answer, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// flags have Chromium do what it is told, and nothing of its own: no look-up of
// a name but those that are mapped here, no updates, no crash reports.
var flags = []string{
	"--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
	"--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
	"--disable-domain-reliability", "--disable-extensions", "--disable-default-apps", "--disable-crash-reporter",
	"--disable-breakpad", "--no-pings", "--mute-audio", "--hide-scrollbars",
	"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
	"--password-store=basic", "--use-mock-keychain", "--force-color-profile=srgb", "--lang=en-GB",
	"--host-resolver-rules=MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
}

// startChromium runs a browser until the test ends.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: run \"make needs\"", err)
	}
	home := t.TempDir()
	args := append([]string{"--user-data-dir=" + filepath.Join(home, "profile")}, flags...)
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which wants another user
	}
	c := &chromium{t: t, home: home, cmd: exec.Command(program, append(args, "about:blank")...), ended: make(chan struct{}), waiting: map[int]chan message{}, tabs: map[string]*tab{}}
	calls, toBrowser := pipe(t)
	fromBrowser, answers := pipe(t)
	var log bytes.Buffer // read after the end
	c.pipe, c.cmd.Stderr, c.cmd.ExtraFiles = toBrowser, &log, []*os.File{calls, answers}
	c.cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "TMPDIR="+home, "DBUS_SESSION_BUS_ADDRESS=disabled:", "TZ=UTC")
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = c.cmd.Start()
	calls.Close()
	answers.Close()
	if err != nil {
		toBrowser.Close()
		fromBrowser.Close()
		t.Fatal(err)
	}
	go c.read(fromBrowser)
	t.Cleanup(func() {
		c.stop()
		if text := log.String(); t.Failed() {
			t.Logf("chromium:\n%s", text[max(0, len(text)-3000):])
		}
	})
	return c
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// stop has the browser end, and waits until no process of its is left.
func (c *chromium) stop() {
	// Without an answer it ends by the signal below.
	_ = c.call("", "Browser.close", nil, nil)
	c.pipe.Close()
	group := -c.cmd.Process.Pid
	late := time.AfterFunc(patience, func() { syscall.Kill(group, syscall.SIGKILL) })
	<-c.ended
	// How it ends is no matter: there is nothing that it could lose.
	_ = c.cmd.Wait()
	late.Stop()
	// What it started ends a little later: all of its process group, and the
	// handler of crashes, which leaves that and is told of the home.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := running(-group, c.home)
		switch {
		case len(left) == 0:
			return
		case time.Now().After(deadline):
			c.t.Errorf("processes of Chromium do not end: %v", left)
			return
		}
		// They may have ended since.
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
}

// running lists the processes that have not ended and are of a group, or have a
// directory among their arguments. One that only waits for init has ended.
func running(group int, home string) (left []string) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		panic(err) // the pattern is ours
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent group ...
		_, rest, _ := strings.Cut(string(text), ") ")
		// A process that has ended has no arguments.
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if f := strings.Fields(rest); len(f) > 2 && f[0] != "Z" && (f[2] == strconv.Itoa(group) || strings.Contains(string(args), home)) {
			left = append(left, string(text))
		}
	}
	return left
}

// read gives each message to whom it is for, until the browser has ended.
func (c *chromium) read(from *os.File) {
	defer close(c.ended)
	defer from.Close()
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m struct {
			message
			Params json.RawMessage `json:"params"`
		}
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			continue // none of ours
		}
		c.mu.Lock()
		answer, t := c.waiting[m.ID], c.tabs[m.Session]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m.message
		case t != nil:
			t.note(m.Method, m.Params)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, answer := range c.waiting {
		close(answer)
	}
	c.waiting = nil
}

// call has the browser, or a tab by its session, do something.
func (c *chromium) call(session, method string, params, result any) error {
	answer := make(chan message, 1)
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return fmt.Errorf("%s: Chromium has ended", method)
	}
	c.last++
	m := message{ID: c.last, Session: session, Method: method, Params: params}
	c.waiting[m.ID] = answer
	text, err := json.Marshal(m)
	if err == nil {
		_, err = c.pipe.Write(append(text, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: Chromium has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-late.C:
		return fmt.Errorf("%s: no answer in %v", method, patience)
	}
}
