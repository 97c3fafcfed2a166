package tlsreport

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

// Message makes the mail that carries a report (RFC 8460 §5.3): a
// multipart/report with a few words for people and the compressed report. The
// lines end in CRLF. TLS-Required: No lets it reach a domain whose TLS is what
// the report complains of (RFC 8460 §3, RFC 8689 §3).
func (r *Report) Message(from, to string, sender Sender, gz []byte, now time.Time) []byte {
	var b bytes.Buffer
	boundary := "report-" + strings.Map(func(c rune) rune {
		if c == '.' || c == '@' {
			return '-'
		}
		return c
	}, r.ID)
	if len(boundary) > 70 {
		boundary = boundary[:70] // RFC 2046 §5.1.1
	}
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	p("From: %s", from)
	p("To: %s", to)
	p("Date: %s", now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	p("Message-ID: <%s>", r.ID)
	p("Subject: Report Domain: %s", r.domain)
	p(" Submitter: %s", sender.Hostname)
	p(" Report-ID: <%s>", r.ID)
	p("TLS-Report-Domain: %s", r.domain)
	p("TLS-Report-Submitter: %s", sender.Hostname)
	p("TLS-Required: No")
	p("Auto-Submitted: auto-generated")
	p("MIME-Version: 1.0")
	p("Content-Type: multipart/report; report-type=\"tlsrpt\";")
	p(" boundary=\"%s\"", boundary)
	p("")
	p("--%s", boundary)
	p("Content-Type: text/plain; charset=us-ascii")
	p("Content-Transfer-Encoding: 7bit")
	p("")
	success, failure := r.sums()
	p("This is an aggregate TLS report from %s", sender.Hostname)
	p("about %s on %s (UTC):", r.domain, r.Range.Start.Format(time.DateOnly))
	p("%d sessions succeeded, %d failed.", success, failure)
	p("")
	p("--%s", boundary)
	name := r.FileName(sender.Hostname) + ".json.gz"
	p("Content-Type: application/tlsrpt+gzip;")
	p(" name=\"%s\"", name)
	p("Content-Transfer-Encoding: base64")
	p("Content-Disposition: attachment;")
	p(" filename=\"%s\"", name)
	p("")
	text := base64.StdEncoding.EncodeToString(gz)
	for len(text) > 76 {
		p("%s", text[:76])
		text = text[76:]
	}
	p("%s", text)
	p("")
	p("--%s--", boundary)
	return b.Bytes()
}

func (r *Report) sums() (success, failure uint64) {
	for _, p := range r.Policies {
		success += p.Summary.Success
		failure += p.Summary.Failure
	}
	return success, failure
}
