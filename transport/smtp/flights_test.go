package smtp

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/outcome"
)

// serve starts a modern server and opens a TLS session with it.
func serve(t *testing.T, change func(*mx.Behaviour)) (*mx.Server, *Session) {
	t.Helper()
	authority, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(ca.For("mx.example"))
	if err != nil {
		t.Fatal(err)
	}
	habits := mx.Modern(cert)
	change(&habits)
	server, err := mx.Start(mx.Options{Behaviour: habits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), conn, config())
	if err == nil {
		err = s.Hello(t.Context())
	}
	if err == nil && s.Extensions().StartTLS {
		err = s.StartTLS(t.Context(), &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return server, s
}

// The number of flights is the number of round trips a message costs.
func TestFlights(t *testing.T) {
	small := strings.Repeat("0123456789abcdef\r\n", 10<<10/18)
	tests := []struct {
		name     string
		keywords mx.Keyword
		tls      bool
		chunking Chunking
		want     int
	}{
		{"CHUNKING and PIPELINING", mx.AllKeywords, true, ChunkingPipelined, 1},
		{"CHUNKING and PIPELINING, plaintext", mx.AllKeywords, false, ChunkingPipelined, 1},
		{"CHUNKING and PIPELINING, waiting", mx.AllKeywords, true, ChunkingWaiting, 2},
		{"PIPELINING", mx.AllKeywords &^ mx.Chunking, true, ChunkingPipelined, 2},
		{"PIPELINING, chunking off", mx.AllKeywords, true, ChunkingOff, 2},
		{"CHUNKING", mx.AllKeywords &^ mx.Pipelining, true, ChunkingPipelined, 4},
		{"neither", mx.Size, true, ChunkingPipelined, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, s := serve(t, func(h *mx.Behaviour) {
				h.Keywords = tt.keywords
				if !tt.tls {
					h.TLS.Mode = mx.TLSNone
				}
			})
			for n := range 3 {
				body := fmt.Sprintf("N: %d\r\n\r\n.dot\r\n%s", n, small)
				tx := transaction(t, body, "a@mx.example", "b@mx.example")
				tx.Chunking = tt.chunking
				report := send(t, t.Context(), s, tx)
				if report.Final.Code != 250 || report.Ending != Answered {
					t.Fatalf("message %d: %v, %v at %v", n, codes(report), report.Err, report.Stage)
				}
				messages, err := server.Wait(t.Context(), n+1)
				if err != nil {
					t.Fatal(err)
				}
				if m := messages[n]; m.Flights != tt.want || !bytes.Equal(m.Body, []byte(body)) || len(m.Recipients) != 2 || (m.TLS != nil) != tt.tls {
					t.Errorf("message %d took %d flights, %d bytes, want %d flights, %d bytes", n, m.Flights, len(m.Body), tt.want, len(body))
				}
			}
			s.Quit(t.Context())
			if v := server.Violations(); len(v) > 0 {
				t.Errorf("rules broken: %v", v)
			}
		})
	}
}

// Neither side blocks the other: a server that writes much while it reads
// little, and a message larger than all buffers.
func TestLargeMessages(t *testing.T) {
	body := strings.Repeat("0123456789abcdef\r\n", 5<<20/18)
	for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking, mx.Size} {
		server, s := serve(t, func(h *mx.Behaviour) { h.Keywords = keywords })
		// However busy the host is.
		s.cfg.CommandTimeout, s.cfg.SubmissionTimeout = time.Minute, time.Minute
		tx := transaction(t, body, "a@mx.example")
		tx.Chunking = ChunkingWaiting
		for i := range 200 {
			tx.Recipients = append(tx.Recipients, Recipient{Address: addr(t, fmt.Sprintf("nosuch%d@mx.example", i))})
		}
		report := send(t, t.Context(), s, tx)
		if report.Final.Code != 250 || report.Ending != Answered {
			t.Fatalf("%v, %v at %v", report.Final, report.Err, report.Stage)
		}
		messages, err := server.Wait(t.Context(), 1)
		if err != nil || string(messages[0].Body) != body {
			t.Errorf("%d bytes arrived, want %d; %v", len(messages[0].Body), len(body), err)
		}
	}
}

// Replies belong to their commands whatever the mixture, and the connection
// stays usable where it can.
func TestPipelinedRefusals(t *testing.T) {
	rules := []mx.Rule{{Local: "no*", Reply: "550 5.1.1 no such user"}, {Local: "later*", Reply: "450 4.2.0 later"}}
	tests := []struct {
		name     string
		chunking Chunking
		change   func(*mx.Behaviour)
		to       []string
		want     []int // MAIL, RCPT.., DATA, final
		broken   bool
	}{
		{"some refused, BDAT", ChunkingPipelined, nil, []string{"no1@x", "a@x", "later@x", "b@x"}, []int{250, 550, 250, 450, 250, 0, 250}, false},
		{"some refused, DATA", ChunkingOff, nil, []string{"no1@x", "a@x", "later@x", "b@x"}, []int{250, 550, 250, 450, 250, 354, 250}, false},
		{"all refused, BDAT (RFC 3030 §4.2)", ChunkingPipelined, nil, []string{"no1@x", "no2@x"}, []int{250, 550, 550, 0, 554}, true},
		{"all refused, DATA (RFC 2920 §3.1)", ChunkingOff, nil, []string{"no1@x", "no2@x"}, []int{250, 550, 550, 554, 0}, false},
		{"all refused, BDAT waiting", ChunkingWaiting, nil, []string{"no1@x", "no2@x"}, []int{250, 550, 550, 0, 0}, false},
		// QUIT has to show that the 554 is the last word
		{"message refused, BDAT", ChunkingPipelined, func(h *mx.Behaviour) {
			h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Reply: "554 5.7.1 spam"}}
		}, []string{"a@x"}, []int{250, 250, 0, 554}, true},
		{"421 at the second recipient", ChunkingPipelined, func(h *mx.Behaviour) {
			h.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Reply: "421 4.3.2 closing", Skip: 1}}
		}, []string{"a@x", "b@x", "c@x"}, []int{250, 250, 421, 0, 0, 0}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, s := serve(t, func(h *mx.Behaviour) {
				h.Recipients = rules
				if tt.change != nil {
					tt.change(h)
				}
			})
			tx := transaction(t, "A: b\r\n\r\nx\r\n", tt.to...)
			tx.Chunking = tt.chunking
			report := send(t, t.Context(), s, tx)
			if got := codes(report); fmt.Sprint(got) != fmt.Sprint(tt.want) || report.Ending.ConnUsable() == tt.broken || report.Err != nil {
				t.Errorf("%v, %v, %v at %v; want %v, broken %v", got, report.Ending, report.Err, report.Stage, tt.want, tt.broken)
			}
			if v := server.Violations(); len(v) > 0 {
				t.Errorf("rules broken: %v", v)
			}
		})
	}
}

// A server whose replies outnumber the commands cannot be trusted any more.
func TestMoreRepliesThanCommands(t *testing.T) {
	server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 PIPELINING\nC: MAIL FROM:<*>\nC: RCPT TO:<*>\nC: DATA\n"+
		`RAW "250 ok\r\n250 ok\r\n354 go\r\n"`+"\nBODY\n"+`RAW "250 ok\r\n250 ok again\r\n"`+"\nREST")
	report := send(t, t.Context(), s, transaction(t, "x\r\n", "b@mx.example"))
	if report.Ending != OutOfStep {
		t.Errorf("%v, %v; no success that is not beyond doubt", codes(report), report.Ending)
	}
	s.Close()
	judge(t, server)
}

// A server that refuses in the middle of the message is heard, and what it
// says counts only as a refusal.
func TestEarlyReply(t *testing.T) {
	body := strings.Repeat("x\r\n", 10<<20)
	for _, tt := range []struct {
		name, reply, extensions string
		want                    Ending
	}{
		{"refused", "552 5.3.4 too big", "250 mx", Early},
		{"accepted", "250 2.0.0 ok", "250 mx", OutOfStep},
		{"refused, BDAT", "552 5.3.4 too big", "250-mx\nS: 250 CHUNKING", Early},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := "C: DATA\nS: 354 go\nREAD 100\n"
			if strings.Contains(tt.extensions, "CHUNKING") {
				data = "C: BDAT * LAST\nREAD 100\n"
			}
			server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: "+tt.extensions+"\nC: MAIL FROM:<*>\nS: 250 ok\nC: RCPT TO:<*>\nS: 250 ok\n"+data+"S: "+tt.reply+"\nWAIT end\nREST")
			tx := transaction(t, body, "b@mx.example")
			tx.Chunking = ChunkingWaiting
			report := send(t, t.Context(), s, tx)
			if report.Ending != tt.want || tt.want == Early && report.Final.Text() != tt.reply {
				t.Errorf("%q, %v, %v at %v", report.Final.Text(), report.Ending, report.Err, report.Stage)
			}
			server.Open("end")
		})
	}
}

// What the server can have seen decides whether the transaction may be run
// again over another connection.
func TestUnseen(t *testing.T) {
	for _, tt := range []struct {
		name, extensions, dialogue string
		chunking                   Chunking
		unseen                     bool
		stage                      outcome.Stage
	}{
		{"closed before MAIL", "250 mx", "DROP", ChunkingOff, true, outcome.MAIL},
		{"closed after MAIL", "250 mx", "C: MAIL *\nDROP", ChunkingOff, true, outcome.MAIL},
		{"closed after MAIL's reply", "250 mx", "C: MAIL *\nS: 250 ok\nDROP", ChunkingOff, true, outcome.RCPT},
		{"closed after RCPT's reply", "250 mx", "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nRESET", ChunkingOff, true, outcome.DATA},
		{"closed after the end of the data", "250 mx", "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nDROP", ChunkingOff, false, outcome.Final},
		{"chunk read, and reset", "250-mx\nS: 250 CHUNKING", "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nBDAT\nRESET", ChunkingWaiting, false, outcome.Final},
		{"pipelined, closed before", "250-mx\nS: 250 PIPELINING", "DROP", ChunkingOff, true, outcome.MAIL},
		{"pipelined, half of MAIL's reply", "250-mx\nS: 250 PIPELINING", "C: MAIL *\nC: RCPT *\nC: DATA\nRAW \"250 \"\nDROP", ChunkingOff, true, outcome.MAIL},
		{"one flight, read and reset", "250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING", "C: MAIL *\nC: RCPT *\nBDAT\nRESET", ChunkingPipelined, false, outcome.Final},
		{"one flight, read and closed", "250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING", "C: MAIL *\nC: RCPT *\nBDAT\nDROP", ChunkingPipelined, false, outcome.Final},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, s := begin(t, "S: 220 mx\nC: EHLO *\nS: "+tt.extensions+"\n"+tt.dialogue)
			tx := transaction(t, "x\r\n", "b@mx.example")
			tx.Chunking = tt.chunking
			report := send(t, t.Context(), s, tx)
			if report.Err == nil || report.Ending.SafeToRetry() != tt.unseen || report.Stage != tt.stage {
				t.Errorf("%v, %v at %v; want unseen %v at %v", report.Ending, report.Err, report.Stage, tt.unseen, tt.stage)
			}
		})
	}
}

// A connection that had died before one flight was sent proves by the
// kernel's counters that the message went nowhere.
func TestUnseenOneFlight(t *testing.T) {
	for _, how := range []string{"RESET", "DROP"} {
		server, s := begin(t, "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\n"+how)
		if c, err := server.Wait(t.Context(), 1); err != nil || c.Err != nil {
			t.Fatal(err, c.Err)
		}
		tx := transaction(t, "x\r\n", "b@mx.example")
		tx.Chunking = ChunkingPipelined
		report := send(t, t.Context(), s, tx)
		if report.Err == nil || !report.Ending.SafeToRetry() {
			t.Errorf("%s: %v, %v at %v", how, report.Ending, report.Err, report.Stage)
		}
	}
}
