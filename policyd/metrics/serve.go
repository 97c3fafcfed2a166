package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// scrapeTime bounds each part of an exchange with a scraper.
	scrapeTime = 30 * time.Second
	// maxScrapes is how many are served at once.
	maxScrapes = 10
)

// Server serves the metrics over HTTP, at /metrics. Who reaches it can read how
// much mail goes which way, and nothing else; its connections are bounded
// (conns.go), and idle ones closed.
type Server struct {
	http.Server
	closing sync.WaitGroup
}

// NewServer makes a front end for one socket.
func (m *Metrics) NewServer(log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime,
		EnableOpenMetrics: true, // for who asks for it, as Prometheus does
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "mxpolicyd: the metrics are at /metrics")
	})
	open := &conns{open: map[net.Conn]*conn{}}
	return &Server{Server: http.Server{
		Handler: open.answering(mux), ConnState: open.changed, ConnContext: open.named,
		ReadHeaderTimeout: scrapeTime, ReadTimeout: scrapeTime, WriteTimeout: 2 * scrapeTime, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Serve serves l until taking ends, closes it and returns nil; an error means
// that l cannot be served any more. A scrape under way then has a while to
// end; deliveries is of no interest here.
func (s *Server) Serve(taking, _ context.Context, l net.Listener) error {
	s.closing.Add(1)
	end := context.AfterFunc(taking, func() {
		defer s.closing.Done()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	})
	err := s.Server.Serve(l)
	if end() {
		s.closing.Done()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("metrics: %w", err)
}

// Wait returns when nothing is served any more.
func (s *Server) Wait() { s.closing.Wait() }

// Alive reports nothing: a daemon that delivers is not restarted because
// no one can see it.
func (s *Server) Alive(context.Context) error { return nil }
