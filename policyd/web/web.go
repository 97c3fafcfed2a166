// Package web is a page to look at: what mxpolicyd does now and did in the
// last hour, and the way that a message to a domain would take. It is served
// while "mxpolicyd web" runs, by that command and not by the daemon, with what
// the admin socket gives: anyone who may open that may look.
//
// A page on loopback is open to every user of the host and to every web site
// that a browser on it visits. So:
//
//   - It listens on loopback alone.
//   - The address that the command prints holds a token of 128 random bits. It
//     is good once: the first request with it gets a cookie (HttpOnly,
//     SameSite=Strict) and the page; everything else needs that cookie.
//   - Host must be the address that is listened on, so that a name which a
//     stranger points at 127.0.0.1 gets nothing (DNS rebinding).
//   - Changes are by POST with an Origin that is the page's own.
//   - The policy of the page (Content-Security-Policy) allows its own script
//     and style, and nothing else; nothing is loaded from elsewhere, and no
//     referrer is sent.
//   - What strangers wrote (replies, names, certificates) is put into the page
//     as text, never as markup.
package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

//go:embed page
var page embed.FS

// ErrNotLoopback says that the page would be open to others.
var ErrNotLoopback = errors.New("the page is served on loopback alone: 127.0.0.1, ::1 or localhost")

const (
	maxBody     = 4 << 10
	headTime    = 10 * time.Second
	idleTime    = 2 * time.Minute
	maxRequests = 64 // connections at once
)

// policy is the page's Content-Security-Policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Server serves the page to one browser. Make one with Listen.
type Server struct {
	daemon   Daemon
	listener net.Listener
	hosts    map[string]bool
	// the cookie's name has the port: browsers keep one set of cookies for all
	// ports of a host, and there may be several pages
	cookie string
	http   *http.Server

	mu      sync.Mutex
	token   string // "": used
	session string // "": none yet
}

// Listen opens the page at an address such as "127.0.0.1:0".
func Listen(address string, d Daemon, log *slog.Logger) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return nil, ErrNotLoopback
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s := &Server{daemon: d, listener: l, token: random(), cookie: "mxpolicyd-" + port, hosts: map[string]bool{}}
	for _, name := range []string{host, l.Addr().(*net.TCPAddr).IP.String(), "localhost"} {
		s.hosts[net.JoinHostPort(name, port)] = true
	}
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headTime, ReadTimeout: time.Minute, IdleTimeout: idleTime,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Address is what a browser is pointed at. It works once.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.listener.Addr().String() + "/?token=" + s.token
}

// Serve answers until ctx ends; then it closes what is open and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	err := s.http.Serve(newLimited(s.listener, maxRequests))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// handler guards everything, and finds the answer.
func (s *Server) handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the name is a constant
	}
	static := http.FileServerFS(files)
	mux := http.NewServeMux()
	mux.Handle("GET /", static)
	mux.HandleFunc("GET /api/overview", s.overview)
	mux.HandleFunc("GET /api/explain", s.explain)
	mux.HandleFunc("GET /api/history", s.history)
	mux.HandleFunc("GET /api/policies", s.policies)
	mux.HandleFunc("POST /api/suspend", s.suspend)
	mux.HandleFunc("POST /api/resume", s.resume)
	mux.HandleFunc("POST /api/flush", s.flush)
	mux.HandleFunc("POST /api/trace", s.trace)
	mux.HandleFunc("POST /api/untrace", s.untrace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !s.hosts[r.Host] || !s.sameOrigin(r) {
			http.Error(w, "this page is not for you", http.StatusForbidden)
			return
		}
		if token := r.URL.Query().Get("token"); token != "" && r.URL.Path == "/" && r.Method == http.MethodGet {
			s.enter(w, r, token)
			return
		}
		if !s.known(r) {
			http.Error(w, "open the address that mxpolicyd web has printed; it works once", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// enter exchanges the token for the cookie.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, token string) {
	s.mu.Lock()
	good := s.token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
	if good {
		s.token, s.session = "", random()
	}
	session := s.session
	s.mu.Unlock()
	switch {
	case good:
		http.SetCookie(w, &http.Cookie{Name: s.cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	case !s.known(r): // who has the cookie has pressed reload
		http.Error(w, "this address has been used, or is wrong: start mxpolicyd web again", http.StatusForbidden)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// known reports whether a request has the cookie.
func (s *Server) known(r *http.Request) bool {
	c, err := r.Cookie(s.cookie)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && s.session != "" && subtle.ConstantTimeCompare([]byte(c.Value), []byte(s.session)) == 1
}

// sameOrigin refuses what another page sends: an Origin that is not ours, none
// with a change, and what the browser itself calls cross-site, but for the
// first navigation.
func (s *Server) sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return origin == "http://"+r.Host
	}
	if origin != "" && origin != "http://"+r.Host {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "" || site == "same-origin" || site == "none"
}

// answer writes JSON, or why there is none.
func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		value = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(value) // who asked is gone
}

// refuse says what is wrong with a request.
func refuse(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}
