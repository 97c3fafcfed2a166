package transport

import (
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
)

// A faultStage is what comes before the fault: what server and client say up to
// the point at which the server's reply is due.
type faultStage struct {
	before   string // the dialogue so far
	positive string // the reply that would be due
	// the other replies to the flight, after one that is none to go on with
	rest     string
	chunking Chunking // of the client
	large    bool     // the message is larger than what the kernels hold
	pooled   bool     // the client keeps idle connections
	second   bool     // the fault meets the second message over the connection
	enforced bool     // the domain has an MTA-STS policy, enforced
	tls      bool     // the fault meets a connection under TLS
}

const (
	hello    = "S: 220 mx\nC: EHLO *\n"
	starttls = hello + "S: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n"
	secured  = starttls + "S: 220 go\nTLS good\nC: EHLO *\n"
	// sequence is a transaction of a server without PIPELINING up to the end
	// of the message.
	sequence = "S: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\n"
	oneByOne = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\n"
	farewell = "S: 250 2.0.0 taken\nC: QUIT\nS: 221 bye\nEND"
	burst    = hello + "S: 250-mx\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA\n"
	bdat     = hello + "S: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\n"
)

// stages are named after the reply that is due.
var stages = map[string]faultStage{
	"greeting":   {positive: "220 mx"},
	"ehlo":       {before: hello, positive: "250 mx"},
	"helo":       {before: hello + "S: 502 what?\nC: HELO *\n", positive: "250 mx"},
	"starttls":   {before: starttls, positive: "220 go"},
	"starttls!":  {before: starttls, positive: "220 go", enforced: true},
	"handshake":  {before: starttls + "S: 220 go\n"},
	"handshake!": {before: starttls + "S: 220 go\n", enforced: true},
	"ehlo2":      {before: secured, positive: "250 mx", tls: true},
	"ehlo2!":     {before: secured, positive: "250 mx", tls: true, enforced: true},
	"mail":       {before: hello + "S: 250 mx\nC: MAIL *\n", positive: "250 ok"},
	"rcpt":       {before: hello + "S: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\n", positive: "250 ok"},
	"data":       {before: hello + "S: 250 mx\n" + strings.TrimSuffix(oneByOne, "S: 354 go\nBODY\n"), positive: "354 go"},
	"flight":     {before: burst, positive: "250 ok", rest: "S: 503 no MAIL\nS: 503 no RCPT\n"},
	"body":       {before: hello + "S: 250 mx\n" + strings.TrimSuffix(oneByOne, "BODY\n") + "READ 1000\n", positive: "250 ok", large: true},
	"dot":        {before: hello + sequence, positive: "250 taken"},
	"tlsdot":     {before: secured + sequence, positive: "250 taken", tls: true},
	"bdat":       {before: bdat + "BDAT\nC: NOOP\n", positive: "250 ok", rest: "S: 503 no MAIL\nS: 503 no RCPT\nS: 250 noop\n"},
	"last":       {before: bdat + "BDAT\nC: NOOP\nS: 250 ok\nS: 250 ok\n", positive: "250 taken", rest: "S: 250 noop\n"},
	"chunk":      {before: bdat + "S: 250 ok\nS: 250 ok\nBDAT\nC: NOOP\n", positive: "250 taken", rest: "S: 250 noop\n", chunking: ChunkingWaiting},
	"rset":       {before: hello + "S: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 550 5.1.1 nobody\nC: RSET\n", positive: "250 ok"},
	"quit":       {before: hello + sequence + "S: 250 2.0.0 taken\nC: QUIT\n", positive: "221 bye"},
	"idle":       {before: hello + sequence + "S: 250 2.0.0 taken\nWAIT idle\n", positive: "250 ok", pooled: true, second: true},
	"tlsidle":    {before: secured + sequence + "S: 250 2.0.0 taken\nWAIT idle\n", positive: "250 ok", pooled: true, second: true, tls: true},
	"warm":       {before: hello + sequence + "S: 250 2.0.0 taken\nC: MAIL *\n", positive: "250 ok", pooled: true, second: true},
	"tcp":        {},
	"mx":         {},
	"address":    {},
	"tlsa":       {},
}

// faults are what the server does in place of the reply that is due.
var faults = map[string]string{
	"silence":   "",
	"abandoned": "MARK reached",
	"half":      `RAW "250 ha"`,
	"drip":      `DRIP 40ms "250-drop by drop "`,
	"cut":       "RAW \"250 ha\"\nDROP",
	"close":     "DROP",
	"bye":       "# closes in good order, under TLS with close_notify",
	"reset":     "RESET",
	"alert":     "RAW \"\\x15\\x03\\x03\\x00\\x02\\x02\\x28\"\nDROP",
	"line":      `ENDLESS "x"`,
	"lines":     `ENDLESS "\r\n"`,
	"reply":     `ENDLESS "250-more\r\n"`,
	"unknown":   "S: 999 what?",
	"mixed":     `RAW "250-ok\r\n550 no\r\n"`,
	"garbage":   "S: SSH-2.0-OpenSSH_9.2p1",
	"binary":    `RAW "\x00\x01\xfe\xff\r\n"`,
	"nulcode":   `RAW "4\x0050 no\r\n"`,
	"wrong":     "S: 334 dXNlcg",
	"421":       "S: 421 4.3.2 going down",
	"later":     "S: 451 4.3.0 later",
	"no":        "S: 550 5.7.1 not from you",
	"latin":     `RAW "450 4.2.1 sp\xe4ter \xff\xfe\r\n"`,
	"nul":       `RAW "450 4.2.1 a\x00b\x1b[31mc\rd\r\n"`,
	"huge":      "RAW \"" + strings.Repeat("450-4.2.1 "+strings.Repeat("later ", 331)+"\\r\\n", 99) + "450 4.2.1 much later\\r\\n\"",
	"lf":        `RAW "450 4.2.1 later\n"`,
	"tlsalert":  "TLSALERT",
	"truncated": "RAW \"\\x16\\x03\\x03\\x40\\x00\\x02\\x00\\x00\\x76\\x03\\x03\"\nDROP",
	"oldtls":    "TLS old fails",
	"bomb":      "TLS bomb fails",
	"names":     "TLS names\nC: EHLO *\nS: 250 mx\n" + oneByOne + farewell,
}

// dnsFaults are those of a resolver.
var dnsFaults = map[string]labdns.Fault{
	"servfail": labdns.ServFail, "bogus": labdns.Bogus, "refused": labdns.Refused, "notimp": labdns.NotImp,
	"formerr": labdns.FormErr, "garbage": labdns.Garbage, "lying": labdns.LyingCount, "referral": labdns.Referral,
	"silence": labdns.Silent, "wrongid": labdns.WrongID, "wrongquestion": labdns.WrongQuestion, "notresponse": labdns.NotResponse,
}

// isReply tells the faults that are one whole reply, after which the others
// of the flight are due.
func isReply(fault string) bool {
	switch fault {
	case "wrong", "later", "no", "latin", "nul", "huge", "lf":
		return true
	}
	return false
}

// dialogues writes down what the server plays on its connections.
func (c *cell) dialogues() []string {
	s := stages[c.stage]
	text := s.before
	if !strings.Contains(faults[c.fault], "TLS") && strings.HasPrefix(c.stage, "handshake") {
		// of the ClientHello: what comes before it is an attack
		text += "READ 5\n"
	}
	switch {
	case c.fault == "twice" && c.stage == "flight":
		// The recipient's and DATA's own replies are one too late.
		text += `RAW "250 ok\r\n250 late\r\n250 ok\r\n354 go\r\n"` + "\n"
	case c.fault == "twice" && c.stage == "bdat":
		// The refusal of the message comes where nothing waits for a reply.
		text += `RAW "250 ok\r\n250 late\r\n250 ok\r\n554 5.6.0 no\r\n"` + "\n"
	case c.fault == "leaves":
		text += `RAW "` + s.positive + `\r\n421 4.3.2 one message each\r\n"` + "\n"
	case c.fault == "twice" && s.rest != "":
		text += `RAW "` + s.positive + `\r\n` + s.positive + `\r\n250 noop\r\n"` + "\n"
	case c.fault == "twice":
		text += `RAW "` + s.positive + `\r\n` + s.positive + `\r\n"` + "\n"
	case c.fault == "stray":
		text += `RAW "\r\nwhat?\r\n` + s.positive[:3] + `-mx\r\n` + s.positive + `\r\nand more\r\n"` + "\n"
	case c.fault == "big":
		text += `REPEAT 99 "250-` + strings.Repeat("X", 1996) + `\r\n"` + "\nS: 250 HELP\n" + oneByOne + farewell
	case c.fault == "bigger":
		text += `REPEAT 100 "250-X\r\n"` + "\nS: 250 HELP\n"
	case strings.HasPrefix(c.stage, "handshake") && c.fault == "half":
		text += `RAW "\x16\x03\x03"` + "\n"
	case strings.HasPrefix(c.stage, "handshake") && c.fault == "drip":
		// a record of 16 KiB, in a month of Sundays
		text += `DRIP 40ms "\x16\x03\x03\x40\x00"` + "\n"
	default:
		text += faults[c.fault] + "\n"
	}
	if isReply(c.fault) {
		text += s.rest
	}
	if c.idle() && !c.leaves(text) {
		text += "MARK said\n"
	}
	if c.idle() && strings.Contains(text, "ENDLESS") {
		text = strings.Replace(text, "ENDLESS", "MARK said\nENDLESS", 1)
	}
	if c.fault == "stray" {
		text += map[string]string{"greeting": "C: EHLO *\nS: 250 mx\n"}[c.stage] + oneByOne + farewell
	}
	if (c.fault == "no" || c.fault == "mixed") && c.stage == "ehlo" {
		text += "C: HELO *\nS: 550 5.7.1 not from you\n"
	}
	return c.ending(text)
}

// idle tells whether the fault meets a connection that nothing talks over.
func (c *cell) idle() bool { return strings.HasSuffix(stages[c.stage].before, "WAIT idle\n") }

// leaves tells whether a dialogue's last step ends it.
func (c *cell) leaves(text string) bool {
	switch c.fault {
	case "drip", "line", "lines", "reply", "bye", "names", "big", "stray":
		return true
	}
	return strings.HasSuffix(text, "DROP\n") || strings.HasSuffix(text, "RESET\n")
}

// ending adds what the client does afterwards.
func (c *cell) ending(text string) []string {
	after := "END"
	switch s := stages[c.stage]; {
	case c.leaves(text):
		after = ""
	case s.large:
		// it does not even read what is left of the body
		after = "WAIT over\nREST"
	case s.second && c.end == "rset":
		after = "C: RSET\nS: 250 ok\nREST"
	case strings.HasPrefix(c.stage, "handshake"), s.second:
		after = "REST" // an alert, or a goodbye
	case c.end == "quit":
		after = "C: QUIT\nS: 221 bye\nEND"
	case c.end == "rset":
		after = "C: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye\nEND"
	case c.end == "clear":
		return []string{text + oneByOne + farewell}
	}
	list := []string{text + after}
	if strings.HasPrefix(c.stage, "handshake") && c.fault != "abandoned" && c.fault != "names" {
		// Each plainer hello meets the same; the last of four, without SNI, is
		// for hosts of which no policy asks for TLS.
		hellos := 4
		if stages[c.stage].enforced {
			hellos = 3
		}
		list = slices.Repeat(list, hellos)
	}
	switch {
	case c.end == "plain":
		list = append(list, hello+sequence+farewell)
	case c.end == "again" && stages[c.stage].tls:
		list = append(list, secured+sequence+"S: 250 2.0.0 taken\nREST")
	case c.end == "again":
		list = append(list, hello+sequence+"S: 250 2.0.0 taken\nREST")
	}
	return list
}
