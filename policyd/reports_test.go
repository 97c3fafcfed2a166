package policyd

import (
	"fmt"
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
	// Whose TLSA records decide, and whose MTA-STS policy is told of too.
	want(t, o.to("both.example"), "2.0.0 ")
	want(t, o.to("both-dane-yes.example"), "2.0.0 ")
	both := map[string]string{"both.example": "tlsa 1/0, sts 1/0", "both-dane-yes.example": "tlsa 1/0, sts 0/1 certificate-not-trusted"}
	check := func() {
		t.Helper()
		// Deliveries do not wait until they are counted.
		var l admin.ReportList
		var err error
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			l, err = o.client.Reports(t.Context())
			if err != nil || len(l.Reports) > 3 || time.Now().After(deadline) {
				break
			}
		}
		if err != nil || len(l.Reports) != 4 {
			t.Fatalf("%+v, %v", l, err)
		}
		for domain, want := range both {
			r, err := o.client.Report(t.Context(), domain, "")
			if err != nil || outline(&r) != want {
				t.Errorf("%s: %q, %v; want %q", domain, outline(&r), err, want)
			}
		}
		if r := l.Reports[2]; r.Domain != "dane-ee.example" || r.Success != 1 || r.Failure != 0 {
			t.Errorf("%+v", r)
		}
		if r := l.Reports[3]; r.Domain != "sts-wrong-name.example" || r.Success != 0 || r.Failure != 1 {
			t.Errorf("%+v", r)
		}
		want(t, plain(console.Reports, &l), "", "dane-ee.example: 1 sessions succeeded, 0 failed", "due ")
	}
	check()
	r, err := o.client.Report(t.Context(), "sts-wrong-name.example", "")
	if err != nil || r.Organization != "Example Org" || len(r.Policies) != 1 || r.Policies[0].Policy.Type != tlsreport.TypeSTS ||
		r.Policies[0].Failures[0].Result != tlsreport.CertificateHostMismatch ||
		r.Policies[0].Failures[0].HELO != r.Policies[0].Failures[0].Host {
		t.Errorf("%+v, %v", r, err)
	}
	want(t, plain(console.Report, &r), "report ", "of Example Org", "sts-wrong-name.example: 0 sessions succeeded, 1 failed", "1 times certificate-host-mismatch, mx.sts-wrong-name.example")
	if err := o.end(); err != nil {
		t.Fatal(err)
	}
	o.running = o.daemon(text)
	check()
	if _, err := o.client.SendReport(t.Context(), ""); err == nil || !strings.Contains(err.Error(), tlsreport.ErrNothing.Error()) {
		t.Errorf("yesterday nothing was counted: %v", err)
	}
}

// outline says in a line what a report tells of each policy.
func outline(r *tlsreport.Report) string {
	var all []string
	for _, p := range r.Policies {
		one := fmt.Sprintf("%s %d/%d", p.Policy.Type, p.Summary.Success, p.Summary.Failure)
		for _, f := range p.Failures {
			one += " " + string(f.Result)
		}
		all = append(all, one)
	}
	return strings.Join(all, ", ")
}
