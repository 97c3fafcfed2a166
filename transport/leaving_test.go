package transport

import "testing"

// 421 to one of several recipients is its own affair where the server goes on:
// the others have what the server says to them, and get the message once. Where
// it goes, no host has it, and no recipient is refused.
func TestLeavingForOneRecipient(t *testing.T) {
	t.Parallel()
	const (
		envelope = "C: MAIL *\nC: RCPT TO:<b@*>\nC: RCPT TO:<c@*>\nC: RCPT TO:<d@*>\n"
		replies  = "S: 250 ok\nS: 250 ok\nS: 421 4.3.2 not c\nS: 550 5.1.1 nobody\n"
	)
	hello := func(keywords string) string { return "S: 220 mx\nC: EHLO *\n" + keywords + "S: 250 SIZE\n" }
	for _, tt := range []struct {
		name, dialogue string
		chunking       Chunking
		want           []string
	}{
		{"one flight", hello("S: 250-mx\nS: 250-CHUNKING\nS: 250-PIPELINING\n") + envelope + "BDAT\nC: NOOP\n" + replies + "S: 250 2.0.0 taken\nS: 250 ok\nREST",
			ChunkingPipelined, []string{"2.0.0", "4.3.2 mx.a.example: 421", "5.1.1"}},
		{"waiting BDAT", hello("S: 250-mx\nS: 250-CHUNKING\nS: 250-PIPELINING\n") + envelope + replies + "BDAT\nC: NOOP\nS: 250 2.0.0 taken\nS: 250 ok\nREST",
			ChunkingWaiting, []string{"2.0.0", "4.3.2 mx.a.example: 421", "5.1.1"}},
		{"DATA", hello("S: 250-mx\nS: 250-PIPELINING\n") + envelope + "C: DATA\n" + replies + "S: 354 go\nBODY\nS: 250 2.0.0 taken\nREST",
			ChunkingPipelined, []string{"2.0.0", "4.3.2 mx.a.example: 421", "5.1.1"}},
		{"in sequence", hello("S: 250-mx\n") + "C: MAIL *\nS: 250 ok\nC: RCPT TO:<b@*>\nS: 250 ok\nC: RCPT TO:<c@*>\nS: 421 4.3.2 not c\nC: RCPT TO:<d@*>\nS: 550 5.1.1 nobody\nC: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 taken\nREST",
			ChunkingPipelined, []string{"2.0.0", "4.3.2 mx.a.example: 421", "5.1.1"}},
		{"one flight, and it goes", hello("S: 250-mx\nS: 250-CHUNKING\nS: 250-PIPELINING\n") + envelope + "BDAT\nC: NOOP\nS: 250 ok\nS: 250 ok\nS: 421 4.3.2 closing\nDROP",
			ChunkingPipelined, []string{"4.3.2 mx.a.example: 421", "4.3.2 mx.a.example: 421", "4.3.2 mx.a.example: 421"}},
		{"DATA, and it goes", hello("S: 250-mx\nS: 250-PIPELINING\n") + envelope + "C: DATA\nS: 250 ok\nS: 250 ok\nS: 421 4.3.2 closing\nDROP",
			ChunkingPipelined, []string{"4.3.2 mx.a.example: 421", "4.3.2 mx.a.example: 421", "4.3.2 mx.a.example: 421"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.play("mx.a.example", tt.dialogue)
			l.zone("a.example. MX 10 mx.a.example.")
			l.start(func(c *Config) { c.Chunking = tt.chunking })
			expect(t, l.send("b@a.example", "c@a.example", "d@a.example"), tt.want...)
			if copies := len(server.Conversations()[0].Messages); copies > 1 || copies == 0 && tt.want[0] == "2.0.0" {
				t.Errorf("%d copies", copies)
			}
		})
	}
}
