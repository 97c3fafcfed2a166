package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/transport/outcome"
)

const (
	chunks = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\n"
	shakes = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS good\nC: EHLO *\n"
)

// beginTLS opens a session, greets the server and shakes hands.
func beginTLS(t *testing.T, dialogue string) *Session {
	t.Helper()
	_, s := begin(t, dialogue)
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

// crypto/tls reads several records at once, and keeps those that nothing asked
// for where neither its buffer nor the kernel shows them.
func TestRepliesInUnopenedRecords(t *testing.T) {
	const envelope = `"250 ok\r\n" "250 ok\r\n" `
	for _, tt := range []struct {
		name, dialogue string
		chunking       Chunking
		want           Ending
	}{
		{"one flight", "S: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nBDAT\nRECORDS " + envelope + `"250 ok\r\n" "550 refused\r\n"` + "\nREST",
			ChunkingPipelined, OutOfStep},
		{"waiting, before the message", "S: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nRECORDS " + envelope + `"250 ok\r\n"` + "\nREST",
			ChunkingWaiting, CutOff},
		{"waiting, after it", "S: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nRECORDS " + envelope + "\nBDAT\n" + `RECORDS "250 ok\r\n" "550 refused\r\n"` + "\nREST",
			ChunkingWaiting, OutOfStep},
		{"DATA", "S: 250-mx\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA\nRECORDS " + envelope + `"354 go\r\n" "250 ok\r\n"` + "\nREST",
			ChunkingOff, CutOff},
		{"in sequence", "S: 250 mx\nC: MAIL *\nRECORDS " + `"250 ok\r\n" "550 late\r\n"` + "\nREST",
			ChunkingOff, CutOff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := beginTLS(t, shakes+tt.dialogue)
			tx := transaction(t, "x\r\n", "b@mx.example")
			tx.Chunking = tt.chunking
			report := send(t, t.Context(), s, tx)
			if report.Ending != tt.want || report.Accepted() > 0 {
				t.Errorf("%v, %v, %v at %v; want %v", codes(report), report.Ending, report.Err, report.Stage, tt.want)
			}
		})
	}
}

// A late reply shows on an idle connection, and a session ticket, which is no
// reply, does not.
func TestStaleUnderTLS(t *testing.T) {
	server, s := begin(t, shakes+"S: 250-mx\nS: 250 CHUNKING\nWAIT late\nRECORDS \"550 late\\r\\n\" \"421 later\\r\\n\"\nMARK said\nREST")
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}); err != nil {
		t.Fatal(err)
	}
	if s.Stale() {
		t.Error("nothing was said yet")
	}
	server.Open("late")
	if err := server.WaitMark(t.Context(), "said"); err != nil {
		t.Fatal(err)
	}
	if !s.Stale() {
		t.Error("a late reply makes no fresh connection")
	}
}

// Replies that contradict each other are those of a server that counts
// differently.
func TestRepliesThatContradict(t *testing.T) {
	for _, tt := range []struct {
		name, replies string
		chunking      Chunking
		want          Ending
	}{
		{"a late refusal taken for MAIL's", `"550 late\r\n250 ok\r\n250 ok\r\n"`, ChunkingPipelined, OutOfStep},
		{"a late 421 taken for MAIL's", `"421 late\r\n250 ok\r\n250 ok\r\n"`, ChunkingPipelined, Closing},
		{"the message accepted for nobody", `"250 ok\r\n550 no\r\n250 ok\r\n"`, ChunkingPipelined, OutOfStep},
		{"the sender refused, and DATA", `"550 no\r\n503 no\r\n354 go\r\n"`, ChunkingOff, OutOfStep},
		{"the sender refused, and a recipient accepted", `"550 no\r\n250 ok\r\n250 ok\r\n"`, ChunkingOff, OutOfStep},
		{"everything refused", `"550 no\r\n503 no\r\n503 no\r\n"`, ChunkingPipelined, Closing},
		{"everything refused, DATA", `"550 no\r\n503 no\r\n503 no\r\n"`, ChunkingOff, Answered},
		{"everything refused, and one more", `"550 no\r\n503 no\r\n503 no\r\n250 ok\r\n"`, ChunkingOff, OutOfStep},
		{"a chunk that was not swallowed", `"250 ok\r\n550 no\r\n503 no\r\n500 what\r\n"`, ChunkingPipelined, OutOfStep},
		{"a chunk that was run, refused", `"250 ok\r\n250 ok\r\n500 what\r\n500 what\r\n"`, ChunkingPipelined, OutOfStep},
	} {
		t.Run(tt.name, func(t *testing.T) {
			last := "BDAT"
			if tt.chunking == ChunkingOff {
				last = "C: DATA"
			}
			_, s := begin(t, chunks+"C: MAIL *\nC: RCPT *\n"+last+"\nRAW "+tt.replies+"\nREST")
			tx := transaction(t, "x\r\n", "b@mx.example")
			tx.Chunking = tt.chunking
			if report := send(t, t.Context(), s, tx); report.Ending != tt.want {
				t.Errorf("%v, %v, %v at %v; want %v", codes(report), report.Ending, report.Err, report.Stage, tt.want)
			}
		})
	}
}

// DESIGN §7: 2yz to NOOP confirms; 500, 502, ten seconds of silence and the
// end leave the 250 as it is; anything else is out of step.
func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         Ending
		confirmation Confirmation
	}{
		{"250", "S: 250 2.0.0 ok\nREST", Answered, Confirmed},
		{"another 2yz", "S: 252 fine\nREST", Answered, Confirmed},
		{"500", "S: 500 5.5.2 what?\nREST", Answered, Unconfirmed},
		{"502", "S: 502 not here\nREST", Answered, Unconfirmed},
		{"the end", "DROP", Closing, Unconfirmed},
		{"reset", "RESET", Closing, Unconfirmed},
		{"the true reply", "S: 550 refused\nREST", OutOfStep, Unconfirmed},
		{"the true reply, temporary", "S: 451 later\nREST", OutOfStep, Unconfirmed},
		{"421", "S: 421 closing\nREST", OutOfStep, Unconfirmed},
		{"501", "S: 501 syntax\nREST", OutOfStep, Unconfirmed},
		{"221", "S: 221 bye\nREST", OutOfStep, Unconfirmed},
		{"354", "S: 354 go\nREST", OutOfStep, Unconfirmed},
		{"garbage", "S: SSH-2.0-x\nREST", OutOfStep, Unconfirmed},
		{"one more than NOOP's", `RAW "250 ok\r\n250 ok\r\n"` + "\nREST", OutOfStep, Unconfirmed},
	} {
		for _, mode := range []struct {
			name, keywords, commands, answers string
			chunking                          Chunking
			sequence                          bool
		}{
			{"one flight", chunks, "C: MAIL *\nC: RCPT *\nBDAT\nC: NOOP\n", "S: 250 ok\nS: 250 ok\nS: 250 taken\n", ChunkingPipelined, false},
			{"waiting", chunks, "C: MAIL *\nC: RCPT *\nS: 250 ok\nS: 250 ok\nBDAT\nC: NOOP\n", "S: 250 taken\n", ChunkingWaiting, false},
			{"in sequence", "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 CHUNKING\n", "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nBDAT\n", "S: 250 taken\nC: NOOP\n", ChunkingWaiting, true},
		} {
			t.Run(mode.name+": "+tt.name, func(t *testing.T) {
				_, s := begin(t, mode.keywords+mode.commands+mode.answers+tt.answer)
				tx := transaction(t, "x\r\n", "b@mx.example")
				tx.Chunking, tx.Confirm = mode.chunking, true
				report := send(t, t.Context(), s, tx)
				if report.Ending != tt.want || report.Confirmation != tt.confirmation {
					t.Errorf("%v, %v, confirmation %d, %v", codes(report), report.Ending, report.Confirmation, report.Err)
				}
				if report.Ending != OutOfStep && report.Final.Code != 250 {
					t.Errorf("the 250 has become %v", report.Final)
				}
			})
		}
	}
}

// A refusal for good that NOOP confirms is believed after QUIT: the true reply
// may have come where NOOP's was due, and NOOP's own be late.
func TestConfirmedRefusal(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         Ending
	}{
		{"refused", "C: QUIT\nS: 221 bye", Closing},
		{"refused, and the end", "C: QUIT\nDROP", Closing},
		{"taken, and NOOP's reply is late", "C: QUIT\nS: 250 what NOOP gets\nREST", OutOfStep},
		{"taken, and what comes is no reply", "C: QUIT\nS: what NOOP gets\nREST", OutOfStep},
	} {
		for _, mode := range []struct {
			name, script string
			chunking     Chunking
		}{
			{"one flight", "C: MAIL *\nC: RCPT *\nBDAT\nC: NOOP\nS: 250 ok\nS: 250 ok\n", ChunkingPipelined},
			{"waiting", "C: MAIL *\nC: RCPT *\nS: 250 ok\nS: 250 ok\nBDAT\nC: NOOP\n", ChunkingWaiting},
		} {
			t.Run(mode.name+": "+tt.name, func(t *testing.T) {
				_, s := begin(t, chunks+mode.script+"S: 550 5.7.1 no\nS: 250 2.0.0 ok\n"+tt.answer)
				tx := transaction(t, "x\r\n", "b@mx.example")
				tx.Chunking, tx.Confirm = mode.chunking, true
				report := send(t, t.Context(), s, tx)
				if report.Ending != tt.want || (tt.want == Closing) != (report.Final.Code == 550) {
					t.Errorf("%v, %v, %v", codes(report), report.Ending, report.Err)
				}
			})
		}
	}
}

// NOOP is said once a connection, and never after DATA.
func TestConfirmOnce(t *testing.T) {
	server, s := begin(t, chunks+`
		C: MAIL *
		C: RCPT *
		BDAT
		C: NOOP
		S: 250 ok
		S: 250 ok
		S: 250 taken
		S: 250 ok
		C: MAIL *
		C: RCPT *
		BDAT
		S: 250 ok
		S: 250 ok
		S: 250 taken
		C: QUIT
		S: 221 bye`)
	for range 2 {
		tx := transaction(t, "x\r\n", "b@mx.example")
		tx.Chunking, tx.Confirm = ChunkingPipelined, true
		if report := send(t, t.Context(), s, tx); report.Final.Code != 250 {
			t.Errorf("%v, %v", codes(report), report.Err)
		}
	}
	finish(t, server, s)
	server, s = begin(t, chunks+"C: MAIL *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 taken\nC: QUIT\nS: 221 bye")
	tx := transaction(t, "x\r\n", "b@mx.example")
	tx.Confirm = true
	if report := send(t, t.Context(), s, tx); report.Final.Code != 250 || report.Confirmation != Unasked {
		t.Errorf("%v, %d", codes(report), report.Confirmation)
	}
	finish(t, server, s)
}

// virtual runs a test whose server is a function, on a clock that costs no
// time. The server's first write is the reply to EHLO.
func virtual(t *testing.T, cfg Config, ehlo string, room int, serve func(*memnet.Conn), test func(*testing.T, *Session)) {
	synctest.Test(t, func(t *testing.T) {
		client, server := memnet.Pipe(room)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			server.Write([]byte("220 mx\r\n"))
			readUntil(server, "\r\n")
			server.Write([]byte(ehlo))
			serve(server)
		}()
		s, err := Open(t.Context(), client, cfg)
		if err == nil {
			err = s.Hello(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		test(t, s)
		s.Close()
		<-done
	})
}

// readUntil reads up to a text that ends what the client says now.
func readUntil(server *memnet.Conn, end string) bool {
	var got []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(got), end); {
		if _, err := server.Read(one); err != nil {
			return false
		}
		got = append(got, one[0])
	}
	return true
}

const bothWays = "250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n"

// Ten seconds of silence after NOOP leave the 250 as it is, and no more than
// ten.
func TestConfirmSilence(t *testing.T) {
	virtual(t, config(), bothWays, 1<<20, func(server *memnet.Conn) {
		readUntil(server, "NOOP\r\n")
		server.Write([]byte("250 ok\r\n250 ok\r\n250 taken\r\n"))
		readUntil(server, "never")
	}, func(t *testing.T, s *Session) {
		tx := transaction(t, "x\r\n", "b@mx.example")
		tx.Chunking, tx.Confirm = ChunkingPipelined, true
		begin := time.Now()
		report := send(t, t.Context(), s, tx)
		if took := time.Since(begin); report.Final.Code != 250 || report.Ending != Closing || report.Confirmation != Unconfirmed || took != 10*time.Second {
			t.Errorf("%v, %v, confirmation %d after %s", codes(report), report.Ending, report.Confirmation, took)
		}
	})
}

// A 250 that comes before the message has left whole is none, and neither is
// one that comes before the server's kernel has it.
func TestAcceptedTooEarly(t *testing.T) {
	const size = 238 << 10
	body := strings.Repeat("0123456789abcdef\r\n", size/18)
	for name, chunking := range map[string]Chunking{"one flight": ChunkingPipelined, "waiting": ChunkingWaiting, "DATA": ChunkingOff} {
		t.Run(name, func(t *testing.T) {
			dialogue := chunks + "C: MAIL *\nC: RCPT *\n"
			switch chunking {
			case ChunkingPipelined:
				dialogue += "READ 4096\nS: 250 ok\nS: 250 ok\nS: 250 taken\n"
			case ChunkingWaiting:
				dialogue += "S: 250 ok\nS: 250 ok\nREAD 4096\nS: 250 taken\n"
			case ChunkingOff:
				dialogue += "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nREAD 4096\nS: 250 taken\n"
			}
			server, s := begin(t, dialogue+"WAIT over\nRESET")
			tx := transaction(t, body, "b@mx.example")
			tx.Chunking = chunking
			report := send(t, t.Context(), s, tx)
			if report.Ending != OutOfStep {
				t.Errorf("%v, %v, %v", codes(report), report.Ending, report.Err)
			}
			server.Open("over")
		})
	}
}

// The context of a delivery ends a chunk that a server takes drop by drop, and
// nothing was accepted.
func TestDrippingReaderEndsWithTheContext(t *testing.T) {
	body := strings.Repeat("0123456789abcdef\r\n", 1<<20/18)
	why := errors.New("time is over")
	for name, chunking := range map[string]Chunking{"one flight": ChunkingPipelined, "waiting": ChunkingWaiting, "DATA": ChunkingOff} {
		t.Run(name, func(t *testing.T) {
			virtual(t, config(), bothWays, 1000, func(server *memnet.Conn) {
				if chunking != ChunkingPipelined {
					readUntil(server, "RCPT TO:<b@mx.example>\r\n")
					server.Write([]byte("250 ok\r\n250 ok\r\n"))
				}
				if chunking == ChunkingOff {
					readUntil(server, "DATA\r\n")
					server.Write([]byte("354 go\r\n"))
				}
				for one := make([]byte, 1); ; time.Sleep(time.Second) {
					if _, err := server.Read(one); err != nil {
						return
					}
				}
			}, func(t *testing.T, s *Session) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 15*time.Minute, why)
				defer cancel()
				tx := transaction(t, body, "b@mx.example")
				tx.Chunking, tx.BeforeFinal = chunking, func() context.Context { return t.Context() }
				begin := time.Now()
				report := send(t, ctx, s, tx)
				if took := time.Since(begin); !errors.Is(report.Err, why) || report.Ending != CutOff || took != 15*time.Minute {
					t.Errorf("%v, %v after %s", report.Ending, report.Err, took)
				}
			})
		})
	}
}

// A server that drips its replies, each in its time, is waited for until the
// later of the delivery's time and submission_timeout after the last byte.
func TestDrippingRepliesEndInAll(t *testing.T) {
	for name, own := range map[string]time.Duration{"the delivery's time": 15 * time.Minute, "submission_timeout": time.Minute} {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			cfg.CommandTimeout, cfg.SubmissionTimeout = 5*time.Minute, 12*time.Minute
			virtual(t, cfg, bothWays, 1<<20, func(server *memnet.Conn) {
				readUntil(server, "LAST\r\nx\r\n")
				for {
					if _, err := server.Write([]byte("250 ok\r\n")); err != nil {
						return
					}
					time.Sleep(4 * time.Minute)
				}
			}, func(t *testing.T, s *Session) {
				ctx, cancel := context.WithTimeout(t.Context(), own)
				defer cancel()
				tx := transaction(t, "x\r\n")
				for range 100 {
					tx.Recipients = append(tx.Recipients, Recipient{Address: addr(t, "b@mx.example")})
				}
				tx.Chunking, tx.BeforeFinal = ChunkingPipelined, func() context.Context { return t.Context() }
				begin := time.Now()
				report := send(t, ctx, s, tx)
				if took := time.Since(begin); report.Ending != Lost || !errors.Is(report.Err, os.ErrDeadlineExceeded) || took != max(own, 12*time.Minute) {
					t.Errorf("%v, %v after %s", report.Ending, report.Err, took)
				}
			})
		})
	}
}

// After 421 to one recipient the server may go on: what is due is read.
func TestLeavingForOneRecipient(t *testing.T) {
	envelope := "C: MAIL *\nC: RCPT *\nC: RCPT *\nC: RCPT *\n"
	for _, tt := range []struct {
		name, dialogue string
		chunking       Chunking
		want           []int // MAIL, RCPT.., DATA, final
		ending         Ending
	}{
		{"goes on, one flight", envelope + "BDAT\n" + `RAW "250 ok\r\n250 ok\r\n421 not him\r\n550 nobody\r\n250 taken\r\n"` + "\nREST",
			ChunkingPipelined, []int{250, 250, 421, 550, 0, 250}, Closing},
		{"goes on, waiting", envelope + `RAW "250 ok\r\n421 not him\r\n250 ok\r\n550 nobody\r\n"` + "\nBDAT\nS: 250 taken\nREST",
			ChunkingWaiting, []int{250, 421, 250, 550, 0, 250}, Closing},
		{"goes on, DATA", envelope + "C: DATA\n" + `RAW "250 ok\r\n250 ok\r\n550 nobody\r\n421 not him\r\n354 go\r\n"` + "\nBODY\nS: 250 taken\nREST",
			ChunkingOff, []int{250, 250, 550, 421, 354, 250}, Closing},
		{"goes, one flight", envelope + "BDAT\n" + `RAW "250 ok\r\n250 ok\r\n421 closing\r\n"` + "\nDROP",
			ChunkingPipelined, []int{250, 250, 421, 0, 0, 0}, Closing},
		{"goes, DATA", envelope + "C: DATA\n" + `RAW "250 ok\r\n250 ok\r\n421 closing\r\n"` + "\nDROP",
			ChunkingOff, []int{250, 250, 421, 0, 0, 0}, Closing},
		{"goes on, and then goes", envelope + "BDAT\n" + `RAW "250 ok\r\n250 ok\r\n421 not him\r\n550 nobody\r\n"` + "\nDROP",
			ChunkingPipelined, []int{0, 0, 0, 0, 0, 0}, Lost},
		{"one reply too many", envelope + "BDAT\n" + `RAW "250 ok\r\n250 ok\r\n421 not him\r\n550 nobody\r\n250 taken\r\n250 more\r\n"` + "\nREST",
			ChunkingPipelined, []int{0, 0, 0, 0, 0, 0}, OutOfStep},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, s := begin(t, chunks+tt.dialogue)
			tx := transaction(t, "x\r\n", "b@mx.example", "c@mx.example", "d@mx.example")
			tx.Chunking = tt.chunking
			report := send(t, t.Context(), s, tx)
			if got := codes(report); !equal(got, tt.want) || report.Ending != tt.ending {
				t.Errorf("%v, %v, %v; want %v, %v", got, report.Ending, report.Err, tt.want, tt.ending)
			}
		})
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// The end of a connection before any reply to the transaction is told from
// silence, and from an end that came later.
func TestEnded(t *testing.T) {
	flight := "C: MAIL *\nC: RCPT *\nBDAT\n"
	for _, tt := range []struct {
		name, dialogue string
		want           Ending
		stage          outcome.Stage
	}{
		{"closed", flight + "DROP", Ended, outcome.Final},
		{"reset", flight + "RESET", Ended, outcome.Final},
		{"half of MAIL's reply", flight + `RAW "250 "` + "\nDROP", Lost, outcome.Final},
		{"MAIL's reply", flight + "S: 250 ok\nDROP", Lost, outcome.Final},
		{"garbage", flight + "S: what?\nDROP", Lost, outcome.Final},
		{"silence", flight + "WAIT over\nDROP", Lost, outcome.Final},
	} {
		for name, hello := range map[string]string{"plain": chunks, "TLS": shakes + "S: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\n"} {
			t.Run(tt.name+" "+name, func(t *testing.T) {
				server, conn := play(t, hello+tt.dialogue)
				s, err := Open(t.Context(), conn, config())
				if err == nil {
					err = s.Hello(t.Context())
				}
				if err == nil && name == "TLS" {
					err = s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true})
				}
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if tt.name == "silence" {
					s.cfg.CommandTimeout = 100 * time.Millisecond
				}
				tx := transaction(t, "x\r\n", "b@mx.example")
				tx.Chunking = ChunkingPipelined
				report := send(t, t.Context(), s, tx)
				if report.Ending != tt.want || report.Stage != tt.stage {
					t.Errorf("%v, %v at %v; want %v", report.Ending, report.Err, report.Stage, tt.want)
				}
				server.Open("over")
			})
		}
	}
}

// Lines that are no replies gain a server no time: greeting, EHLO and HELO have
// command_timeout each, and ten seconds from the last such line.
func TestJunkGainsNoTime(t *testing.T) {
	for _, tt := range []struct {
		name           string
		said           string // before it goes on with junk
		pause, timeout time.Duration
		want           time.Duration
	}{
		{"greeting", "", 2 * time.Second, 3 * time.Second, 3 * time.Second},
		{"greeting, inside", "220-mx\r\n", 2 * time.Second, 3 * time.Second, 3 * time.Second},
		{"EHLO", "220 mx\r\n", 2 * time.Second, 3 * time.Second, 3 * time.Second},
		{"EHLO, inside", "220 mx\r\n250-mx\r\n", 2 * time.Second, 3 * time.Second, 3 * time.Second},
		{"HELO", "220 mx\r\n502 what?\r\n", 2 * time.Second, 3 * time.Second, 3 * time.Second},
		{"not SMTP", "", time.Hour, 5 * time.Minute, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := memnet.Pipe(1 << 20)
				done := make(chan struct{})
				go func() {
					defer close(done)
					for reply := range strings.SplitAfterSeq(tt.said, "0 mx\r\n") {
						server.Write([]byte(reply))
						if strings.HasSuffix(reply, " mx\r\n") {
							readUntil(server, "\r\n")
						}
					}
					for range 9 {
						if _, err := server.Write([]byte("what is this\r\n")); err != nil {
							return
						}
						time.Sleep(tt.pause)
					}
				}()
				cfg := config()
				cfg.CommandTimeout = tt.timeout
				begin := time.Now()
				s, err := Open(t.Context(), client, cfg)
				if err == nil {
					begin = time.Now()
					err = s.Hello(t.Context())
					s.Close()
				}
				if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != tt.want {
					t.Errorf("%v after %s, want %s", err, took, tt.want)
				}
				<-done
			})
		})
	}
}
