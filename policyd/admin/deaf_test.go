package admin

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/transport"
)

// talkative is a daemon with much to tell.
type talkative struct{ Daemon }

// Explain waits for ever.
func (talkative) Explain(ctx context.Context, _ string, _ *transport.Question) (*Explanation, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (talkative) Status() Status { return Status{Warnings: []string{strings.Repeat("x", 1<<20)}} }

// Who asks and does not read the answer, or sends half of a request, holds a
// connection for a minute and no longer: the administrator comes in.
func TestDeafClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(talkative{}, Options{Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		l := memnet.Listen()
		var served, deaf sync.WaitGroup
		served.Go(func() { _ = s.Serve(ctx, ctx, l) })
		for i := range maxConnections {
			c := l.Dial()
			defer c.Close()
			request := "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
			if i%2 == 1 {
				request = "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"
			}
			deaf.Go(func() { _, _ = io.WriteString(c, request) })
		}
		deaf.Wait()
		start := time.Now()
		c := l.Dial() // returns when it is accepted
		took := time.Since(start)
		defer c.Close()
		if took > readTime {
			t.Errorf("accepted after %v", took)
		}
		deaf.Go(func() { _, _ = io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n") })
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, answer.Body); err != nil || n < 1<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
		answer.Body.Close()
		deaf.Wait()
		cancel()
		served.Wait()
		s.Wait()
	})
}

// An answer that does not come is given up after three minutes.
func TestAnswerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(talkative{}, Options{Logger: slog.New(slog.DiscardHandler)})
		start := time.Now()
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/explain?domain=example.org", nil))
		if took := time.Since(start); took != 3*time.Minute || w.Code != http.StatusInternalServerError {
			t.Errorf("%d after %v", w.Code, took)
		}
	})
}
