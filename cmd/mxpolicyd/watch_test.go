package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/transport"
)

// idler is a daemon with nothing to do.
type idler struct{}

func (idler) Status() admin.Status { return admin.Status{Version: "idler", Started: time.Now()} }
func (idler) Explain(context.Context, string, *transport.Question) (*admin.Explanation, error) {
	return nil, errors.New("it is too tired")
}
func (idler) CacheList() (admin.CacheList, error)                 { return admin.CacheList{}, nil }
func (idler) History(admin.HistoryQuery) admin.History            { return admin.History{} }
func (idler) Reports() ([]tlsreport.Listed, error)                { return nil, nil }
func (idler) Report(string, time.Time) (*tlsreport.Report, error) { return nil, nil }
func (idler) SendReport(context.Context, string) error            { return nil }
func (idler) Providers(string) admin.ProviderList                 { return admin.ProviderList{} }
func (idler) Suspended() admin.SuspendedList                      { return admin.SuspendedList{} }
func (idler) Suspend(string, time.Duration, string) error         { return nil }
func (idler) Resume(string) error                                 { return nil }
func (idler) Cached(string) (admin.Cached, error)                 { return admin.Cached{}, nil }
func (idler) Flush(string) (admin.Flushed, error)                 { return admin.Flushed{}, nil }

// until is a writer that tells when it has been written to often enough.
type until struct {
	mu    sync.Mutex
	text  bytes.Buffer
	left  int
	reach func()
}

func (u *until) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.left--; u.left == 0 {
		u.reach()
	}
	return u.text.Write(p)
}

// serveAdmin answers at an admin socket for a daemon, until end is called.
func serveAdmin(t *testing.T, socket string, d admin.Daemon) (end func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := admin.New(d, admin.Options{Traces: &transport.Traces{}, Logger: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, context.Background(), l) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Wait()
	})
}

// status --watch goes on until it is interrupted, also while the daemon is
// restarted; what the daemon says is wrong ends a command.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	config := file(t, "hostname: client.example\nlisten: {admin: {path: "+socket+"}}\n")
	serve := func() (end func()) { return serveAdmin(t, socket, idler{}) }
	end := serve()
	defer func() { end() }()
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	out := &until{left: 1}
	out.reach = func() { // the daemon goes, is missed, comes back
		end()
		out.left, out.reach = 1, func() {
			end = serve()
			out.left, out.reach = 1, interrupt
		}
	}
	var errs bytes.Buffer
	c := command()
	c.SetArgs([]string{"status", "--watch", "-c", config})
	c.SetOut(out)
	c.SetErr(&errs)
	cmd, err := c.ExecuteContextC(ctx)
	if status := statusOf(cmd, err); status != 0 {
		t.Errorf("exit status %d, %s", status, &errs)
	}
	text := out.text.String()
	if strings.Count(text, "mxpolicyd idler: ") != 2 || strings.Count(text, "not running") != 1 {
		t.Error(text)
	}

	if got := shell("explain", "-c", config, "a.example"); got.status != 2 || !strings.Contains(got.err, "too tired") {
		t.Errorf("%+v", got)
	}
	if got := shell("cache", "flush", "--all", "-c", config); got.status != 0 || got.out != "flushed: 0 MTA-STS policies, 0 DNS answers\n" {
		t.Errorf("%+v", got)
	}
}
