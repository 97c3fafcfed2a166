package sts

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Fault is a way to meet a request for a policy.
type Fault uint8

// The faults.
const (
	Normal      Fault = iota // the policy
	NoHandshake              // the TLS handshake fails
	// 302 to a place on the same host where the policy is
	Redirect
	NotFound    // 404, with the policy as its body
	ServerError // 500
	Silent      // the request is read and never answered
	HalfBody    // half of the policy, then nothing more
	// half of the policy, then the connection is closed
	CutBody
	CutHeader // the connection is closed within the header
	// more than 64 KiB, announced: the policy and extension fields after it
	Oversize
	Endless    // a body that never ends
	HugeHeader // a megabyte of header fields before the policy
	HTML       // the policy as text/html
	// the policy compressed, whatever the client accepts
	Gzip
	NotHTTP // something that is not HTTP
)

// redirected is where a redirect leads to.
const redirected = "/elsewhere/"

// serve answers a request. It returns when done is closed, or the client has
// gone.
func (s *site) serve(w http.ResponseWriter, r *http.Request, done <-chan struct{}) {
	wait := func() {
		select {
		case <-r.Context().Done():
		case <-done:
		}
	}
	kind := s.ContentType
	if kind == "" {
		kind = "text/plain"
	}
	w.Header().Set("Content-Type", kind)
	status := s.Status
	if status == 0 {
		status = http.StatusOK
	}
	if strings.HasPrefix(r.URL.Path, redirected) {
		s.body(w, status, s.Policy)
		return
	}
	half := s.Policy[:len(s.Policy)/2]
	switch s.Fault {
	case Redirect:
		http.Redirect(w, r, redirected+"mta-sts.txt", http.StatusFound)
	case NotFound:
		s.body(w, http.StatusNotFound, s.Policy)
	case ServerError:
		s.body(w, http.StatusInternalServerError, "no policy today\r\n")
	case Silent:
		wait()
		raw(w, "") // a handler that only returns says 200
	case HalfBody:
		w.Header().Set("Content-Length", strconv.Itoa(len(s.Policy)))
		s.body(w, status, half)
		// The client sees what there is; an error means that it has gone.
		_ = http.NewResponseController(w).Flush()
		wait()
	case CutBody:
		raw(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "+strconv.Itoa(len(s.Policy))+"\r\n\r\n"+half)
	case CutHeader:
		raw(w, "HTTP/1.1 200 OK\r\nContent-Ty")
	case NotHTTP:
		raw(w, "220 mail.example ESMTP\r\n")
	case Oversize:
		text := s.Policy + strings.Repeat("x-padding: sixty-four bytes of it, over and over, to the very end\r\n", 1000)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		s.body(w, status, text)
	case Endless:
		s.body(w, status, s.Policy)
		for {
			if _, err := io.WriteString(w, "x-padding: on and on\r\n"); err != nil {
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	case HugeHeader:
		for i := range 1000 {
			w.Header().Set("X-Padding-"+strconv.Itoa(i), strings.Repeat("x", 1000))
		}
		s.body(w, status, s.Policy)
	case HTML:
		w.Header().Set("Content-Type", "text/html")
		s.body(w, status, s.Policy)
	case Gzip:
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		packed := gzip.NewWriter(w)
		// A client that went away is no concern of the server.
		_, _ = io.WriteString(packed, s.Policy)
		_ = packed.Close()
	default:
		s.body(w, status, s.Policy)
	}
}

// body sends a status and a body. A client that went away is no concern of the
// server.
func (s *site) body(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// raw sends bytes that no library would, and closes the connection.
func raw(w http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
}
