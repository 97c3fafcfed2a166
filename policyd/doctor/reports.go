package doctor

import (
	"context"
	"net"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// reportTime bounds the talk with the mail server that sends TLS reports.
const reportTime = 10 * time.Second

// tlsReports asks the mail server that is to send the TLS reports whether it
// would. Nothing is sent, and nothing but the reports waits for it.
func tlsReports(ctx context.Context, cfg *config.Config) []finding.Finding {
	report := cfg.TLSRPT.Report
	if report == nil {
		return nil
	}
	who := "TLS reports by " + report.Send
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", report.Send)
	if err != nil {
		return []finding.Finding{warn("start the mail server, or correct tlsrpt.report.send", "%s: not reached, so reports sent by mail wait for a day and are lost: %v", who, err)}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	client := smtp.NewClient(conn)
	defer client.Close()
	if err = client.Hello(cfg.Hostname); err == nil {
		err = client.Mail(report.From, nil)
	}
	if err != nil {
		return []finding.Finding{warn("have the mail server take mail of this host from "+report.From, "%s: it takes no mail from %s: %v", who, report.From, err)}
	}
	if err := client.Rcpt(report.From, nil); err != nil {
		return []finding.Finding{warn("make "+report.From+" an address that takes mail", "%s: bounces to %s are refused: %v", who, report.From, err)}
	}
	_ = client.Quit()
	return []finding.Finding{ok("%s: taken from %s", who, report.From)}
}
