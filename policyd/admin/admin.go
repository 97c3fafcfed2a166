// Package admin is the administrator's way to a running daemon: HTTP with JSON
// over the unix socket "admin", which only root and the daemon's own user may
// open unless listen.admin says otherwise. mxpolicyd's commands use it, and so
// may anybody's scripts:
//
//	curl --unix-socket /run/mxpolicyd/admin.sock http://mxpolicyd/v1/status
//
// # Requests
//
//	GET    /v1/status                     Status
//	GET    /v1/explain?domain=D           Explanation; transport=T asks for
//	                                      another than "default", connect=true
//	                                      for real connections
//	GET    /v1/cache                      CacheList
//	GET    /v1/cache/DOMAIN               Cached
//	DELETE /v1/cache/DOMAIN               Flushed; the names below it go too
//	DELETE /v1/cache                      Flushed; everything goes
//	GET    /v1/trace                      TraceList
//	PUT    /v1/trace/DOMAIN?for=DURATION  TraceList; 10m unless it is said
//	DELETE /v1/trace/DOMAIN               TraceList; 404 if it was not traced
//	GET    /v1/history?what=W             History; failed=true, since=DURATION,
//	                                      limit=N, summary=true
//	GET    /v1/providers?host=H           ProviderList
//	GET    /v1/reports                    ReportList
//	GET    /v1/reports/DOMAIN?day=DATE    a report of RFC 8460
//	POST   /v1/reports                    ReportList, once they are sent
//	POST   /v1/reports/DOMAIN             the same for one domain
//	GET    /v1/suspension                 SuspendedList
//	PUT    /v1/suspension/TARGET?for=D    SuspendedList; reason=TEXT
//	DELETE /v1/suspension/TARGET          SuspendedList; 404 if it was not
//	                                      suspended
//	GET    /debug/pprof/...               Go's profiler, with listen.admin.pprof
//
// What was asked in vain gets a status from 400 and {"error": "..."}.
//
// # Form
//
// The types of this package are the JSON; docs/admin.md has every key. Keys
// stay what they are; new ones may come, and an unknown one is to be skipped.
// Times are RFC 3339 in UTC; a key that ends with _seconds is a number of
// seconds; a list is never null; a key without a value worth saying is left
// out. Texts that strangers wrote are one line of printable UTF-8.
//
// # What it refuses
//
// A connection serves one request, whose head has ten seconds to come, and at
// most sixteen are open at once. An answer that takes longer than three
// minutes to find is given up.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/address"
)

const (
	// maxConnections bounds the connections that are open at once.
	maxConnections = 16
	// headTime is how long a request's head may take.
	headTime = 10 * time.Second
	// readTime is how long the client may take to read an answer, and to send
	// what is left of its request, of which nobody reads more.
	readTime = time.Minute
	// answerTime is how long an answer may take; profiles, which are told how
	// long to take, apart.
	answerTime = 3 * time.Minute
	// UsualTrace is how long a trace lasts for which no time was given, and
	// longestTrace the most.
	UsualTrace, longestTrace = 10 * time.Minute, 24 * time.Hour
)

// ErrUnknown says that there is no such thing: a transport by that name, a
// trace of that domain. The administrator asked for the wrong one.
var ErrUnknown = errors.New("not found")

// Daemon is what there is to ask, and to tell. Errors are for the
// administrator; one that wraps ErrUnknown is told from others. Methods are
// safe for concurrent use.
type Daemon interface {
	Status() Status
	// Explain explains a domain, as a transport would deliver to it.
	Explain(ctx context.Context, transport string, q *transport.Question) (*Explanation, error)
	// CacheList, Cached and Flush are about what is remembered. Flush with an
	// empty domain forgets all.
	CacheList() (CacheList, error)
	Cached(domain string) (Cached, error)
	Flush(domain string) (Flushed, error)
	// History gives the last deliveries.
	History(q HistoryQuery) History
	// Suspended, Suspend and Resume are about what is stopped by hand. Suspend
	// with 0 lasts until Resume.
	Suspended() SuspendedList
	Suspend(target string, lasts time.Duration, reason string) error
	Resume(target string) error
	// Providers gives the known providers, or that of a host.
	Providers(host string) ProviderList
	// Reports, Report and SendReport are about the daily TLS reports.
	Reports() ([]tlsreport.Listed, error)
	Report(domain string, day time.Time) (*tlsreport.Report, error)
	SendReport(ctx context.Context, domain string) error
}

// Server serves the socket. It is safe for concurrent use.
type Server struct {
	*accept.Loops
	daemon Daemon
	traces *transport.Traces
	log    *slog.Logger
	http   *http.Server
}

// Options are what a Server is made of beside the daemon.
type Options struct {
	Traces *transport.Traces
	PProf  bool // serve Go's profiler
	Logger *slog.Logger
}

// New makes a server.
func New(d Daemon, o Options) *Server {
	s := &Server{Loops: accept.New(maxConnections, o.Logger), daemon: d, traces: o.Traces, log: o.Logger}
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":            func(*http.Request) (any, error) { return s.daemon.Status(), nil },
		"GET /v1/explain":           s.explain,
		"GET /v1/cache":             func(*http.Request) (any, error) { return s.daemon.CacheList() },
		"DELETE /v1/cache":          func(*http.Request) (any, error) { return s.forget("") },
		"GET /v1/cache/{domain}":    s.cached,
		"DELETE /v1/cache/{domain}": s.flush,
		"GET /v1/trace":             func(*http.Request) (any, error) { return s.traced(), nil },
		"PUT /v1/trace/{domain}":    s.trace,
		"DELETE /v1/trace/{domain}": s.untrace,

		"GET /v1/history":                s.history,
		"GET /v1/providers":              s.providers,
		"GET /v1/reports":                s.reports,
		"GET /v1/reports/{domain}":       s.report,
		"POST /v1/reports":               s.sendReport,
		"POST /v1/reports/{domain}":      s.sendReport,
		"GET /v1/suspension":             s.suspended,
		"PUT /v1/suspension/{target}":    s.suspend,
		"DELETE /v1/suspension/{target}": s.resume,
	} {
		mux.HandleFunc(pattern, s.handler(answer))
	}
	mux.HandleFunc("/", s.handler(func(r *http.Request) (any, error) {
		return nil, refusal{http.StatusNotFound, "there is no " + r.URL.Path}
	}))
	if o.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	s.http.SetKeepAlivesEnabled(false)
	return s
}

// Serve answers requests from l until ctx ends, closes l and returns nil; an
// error means that l cannot be served any more. What is being answered then
// is given up, whatever becomes of deliveries.
func (s *Server) Serve(ctx, _ context.Context, l net.Listener) error {
	return s.Loops.Serve(ctx, l, func(conn net.Conn) {
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		// The error is that there is no second connection.
		_ = s.http.Serve(newOne(conn))
	})
}

// one is a listener for one connection. Accept returns once more when that is
// closed.
type one struct {
	net.Conn
	first  chan net.Conn
	closed chan struct{}
}

func newOne(conn net.Conn) *one {
	l := &one{Conn: conn, first: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.first <- &watched{conn, l.closed}
	return l
}

// Accept implements net.Listener.
func (l *one) Accept() (net.Conn, error) {
	select {
	case conn := <-l.first:
		return conn, nil
	default:
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener; the connection is closed by its user.
func (l *one) Close() error { return nil }

// Addr implements net.Listener.
func (l *one) Addr() net.Addr { return l.LocalAddr() }

// watched is a connection that tells when it is closed.
type watched struct {
	net.Conn
	closed chan struct{}
}

// Close implements net.Conn.
func (w *watched) Close() error {
	err := w.Conn.Close()
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return err
}

// refusal is an error with the HTTP status that says it.
type refusal struct {
	status int
	text   string
}

// Error gives the line for people.
func (r refusal) Error() string { return r.text }

// handler writes an answer as JSON.
func (s *Server) handler(answer func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		value, err := answer(r.WithContext(ctx))
		var refused refusal
		switch {
		case err == nil:
			write(w, http.StatusOK, value)
		case errors.As(err, &refused):
			write(w, refused.status, Failure{refused.text})
		case errors.Is(err, ErrUnknown):
			write(w, http.StatusNotFound, Failure{err.Error()})
		default:
			write(w, http.StatusInternalServerError, Failure{err.Error()})
		}
	}
}

// Failure is the answer to a request that was in vain.
type Failure struct {
	Error string `json:"error"`
}

// write answers. Nothing is left to tell when that fails.
func write(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	deadline, c := time.Now().Add(readTime), http.NewResponseController(w)
	_ = errors.Join(c.SetWriteDeadline(deadline), c.SetReadDeadline(deadline))
	w.WriteHeader(status)
	_ = Encode(w, value)
}

// Encode writes a value as this package's JSON, indented, with a line end.
func Encode(w interface{ Write([]byte) (int, error) }, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func (s *Server) explain(r *http.Request) (any, error) {
	query := r.URL.Query()
	q, err := questionOf(query)
	if err != nil {
		return nil, refusal{http.StatusBadRequest, err.Error()}
	}
	return s.daemon.Explain(r.Context(), query.Get("transport"), q)
}

// domainOf reads the domain of a request, as A-labels.
func domainOf(r *http.Request) (string, error) {
	d, err := address.ASCIIDomain(r.PathValue("domain"))
	if err != nil {
		return "", refusal{http.StatusBadRequest, "not a domain name"}
	}
	return d, nil
}

func (s *Server) cached(r *http.Request) (any, error) {
	domain, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	return s.daemon.Cached(domain)
}

func (s *Server) flush(r *http.Request) (any, error) {
	domain, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	return s.forget(domain)
}

// forget forgets a domain, or everything for an empty one.
func (s *Server) forget(domain string) (any, error) {
	s.log.Info("cache flushed", "domain", domain)
	return s.daemon.Flush(domain)
}

func (s *Server) trace(r *http.Request) (any, error) {
	domain, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	lasts := UsualTrace
	if text := r.URL.Query().Get("for"); text != "" {
		if lasts, err = time.ParseDuration(text); err != nil || lasts <= 0 || lasts > longestTrace {
			return nil, refusal{http.StatusBadRequest, "for is a duration of at most 24h, such as 10m"}
		}
	}
	until := time.Now().Add(lasts)
	if err := s.traces.Start(domain, until); err != nil {
		return nil, refusal{http.StatusConflict, err.Error()}
	}
	s.log.Info("tracing", "domain", domain, "until", until.UTC().Format(time.RFC3339))
	return s.traced(), nil
}

func (s *Server) untrace(r *http.Request) (any, error) {
	domain, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	if !s.traces.Stop(domain) {
		return nil, refusal{http.StatusNotFound, domain + " is not traced"}
	}
	s.log.Info("trace stopped", "domain", domain)
	return s.traced(), nil
}
