package policyd

import (
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

// Sessions are counted for the daily reports: connections, not messages, each
// under the policy that decided; the reports' own mail is not. The counts
// outlive a restart.
func TestDailyReports(t *testing.T) {
	o := operate(t, "")
	if _, err := o.client.Reports(t.Context()); err == nil || !strings.Contains(err.Error(), "tlsrpt.report") {
		t.Errorf("without reports: %v", err)
	}
	if err := o.end(); err != nil {
		t.Fatal(err)
	}
	text := o.text + "\ntlsrpt: {report: {from: s@reports.example, organization: Example Org}}\n"
	o.running = o.daemon(text)
	for range 3 {
		want(t, o.to("dane-ee.example"), "2.0.0 ") // over one connection
	}
	want(t, o.to("sts-wrong-name.example"), "4.7.5 ")
	check := func() {
		t.Helper()
		// Deliveries do not wait until they are counted.
		var l admin.ReportList
		var err error
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			l, err = o.client.Reports(t.Context())
			if err != nil || len(l.Reports) > 1 || time.Now().After(deadline) {
				break
			}
		}
		if err != nil || len(l.Reports) != 2 {
			t.Fatalf("%+v, %v", l, err)
		}
		if r := l.Reports[0]; r.Domain != "dane-ee.example" || r.Success != 1 || r.Failure != 0 {
			t.Errorf("%+v", r)
		}
		if r := l.Reports[1]; r.Domain != "sts-wrong-name.example" || r.Success != 0 || r.Failure != 1 {
			t.Errorf("%+v", r)
		}
		want(t, plain(console.Reports, &l), "", "dane-ee.example: 1 sessions succeeded, 0 failed", "due ")
	}
	check()
	r, err := o.client.Report(t.Context(), "sts-wrong-name.example", "")
	if err != nil || r.Organization != "Example Org" || len(r.Policies) != 1 || r.Policies[0].Policy.Type != tlsreport.TypeSTS ||
		r.Policies[0].Failures[0].Result != tlsreport.CertificateHostMismatch {
		t.Errorf("%+v, %v", r, err)
	}
	if err := o.end(); err != nil {
		t.Fatal(err)
	}
	o.running = o.daemon(text)
	check()
	if _, err := o.client.SendReport(t.Context(), ""); err == nil || !strings.Contains(err.Error(), tlsreport.ErrNothing.Error()) {
		t.Errorf("yesterday nothing was counted: %v", err)
	}
}
