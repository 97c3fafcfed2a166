package socketmap

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

func TestReports(t *testing.T) {
	const (
		modern   = " protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"
		sts      = " policy_type=sts policy_domain=a.example"
		listing  = " mx_host_pattern=*.a.example"
		patterns = " { policy_string = mx: *.a.example } { policy_string = max_age: 86400 }"
		enforced = " { policy_string = version: STSv1 } { policy_string = mode: enforce }" + patterns
		testing_ = " { policy_string = version: STSv1 } { policy_string = mode: testing }" + patterns
	)
	for _, tt := range []struct {
		what string
		scene
		change func(*plan.Plan)
		want   string
	}{
		{"MTA-STS", scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{bare}}, nil,
			"OK secure match=mx1.a.example servername=hostname" + modern + sts + listing + enforced},
		// From 3.10.5 on Postfix goes by the patterns: what may not have mail
		// must not be one.
		{"a host left out", scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{failed, bare}}, nil,
			"OK secure match=mx2.a.example servername=hostname" + modern + sts + " mx_host_pattern=mx2.a.example" + enforced},
		{"testing mode", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{bare}}, nil,
			"OK may" + sts + listing + testing_},
		{"testing mode, an override that says dane", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{bare}},
			func(o *plan.Plan) { o.OwnPolicies = true }, "OK may" + sts + listing + testing_},
		{"testing mode, local_policy encrypted", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: encrypted, hosts: []sort{bare}}, nil,
			"OK encrypt" + sts + listing + testing_},
		{"testing mode, local_policy authenticated", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: authenticated, hosts: []sort{bare}}, nil,
			"OK secure match=mx1.a.example servername=hostname" + sts + testing_},
		// Answers that DANE makes carry nothing, or Postfix refuses them.
		{"DANE in testing mode", scene{signed: true, mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{usable}}, nil, "OK dane-only"},
		{"opportunistic DANE in testing mode", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{bare, usable}}, nil, "OK dane"},
		{"nothing", scene{rules: all, hosts: []sort{bare}}, nil, "NOTFOUND "},
		{"refused", scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{failed}}, nil, "TEMP 4.7.5 mx1.a.example: the TLSA records cannot be looked up: SERVFAIL"},
		{"a name that Postfix refuses", scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{bare}},
			func(o *plan.Plan) { o.Target = target("-a.example") }, "OK secure match=mx1.a.example servername=hostname" + modern},
	} {
		o := tt.plan()
		if o.Policy != nil {
			o.Policy.Policy.MaxAge = 24 * time.Hour
		}
		if tt.change != nil {
			tt.change(o)
		}
		if got := Reply(o, true); got != tt.want {
			t.Errorf("%s:\n%q, want\n%q", tt.what, got, tt.want)
		}
	}
}

// A policy that could not be had is reported, and stops no mail.
func TestReportsOfFailures(t *testing.T) {
	failing := func(state policycache.State, kind mtasts.Failure, err error) policycache.Entry {
		return policycache.Entry{State: state, Err: &mtasts.Error{Failure: kind, Err: err}}
	}
	why := errors.New("why")
	for _, tt := range []struct {
		policycache.Entry
		rules verdict.Rules
		want  string
	}{
		{failing(policycache.Failed, mtasts.FailureFetch, why), all, "OK may policy_type=no-policy-found policy_domain=a.example policy_failure=sts-policy-fetch-error"},
		{failing(policycache.Failed, mtasts.FailureInvalid, why), all, "OK may policy_type=no-policy-found policy_domain=a.example policy_failure=sts-policy-invalid"},
		{failing(policycache.Failed, mtasts.FailureWebPKI, why), all, "OK may policy_type=no-policy-found policy_domain=a.example policy_failure=sts-webpki-invalid"},
		{failing(policycache.NoPolicy, mtasts.FailureRecord, why), all, "OK may policy_type=no-policy-found policy_domain=a.example policy_failure=validation-failure"},
		{failing(policycache.Failed, mtasts.FailureFetch, why), encrypted, "OK encrypt policy_type=no-policy-found policy_domain=a.example policy_failure=sts-policy-fetch-error"},
		// There it would fail every connection.
		{failing(policycache.Failed, mtasts.FailureFetch, why), authenticated, "OK secure match=mx1.a.example servername=hostname"},
		// Whether there is one is unknown: the answer is TEMP.
		{failing(policycache.Failed, mtasts.FailureDNS, why), all, "TEMP 4.4.3 a.example: the MTA-STS record cannot be looked up: why"},
		{failing(policycache.Failed, mtasts.FailureDNS, policycache.ErrPending), all, "TEMP 4.4.3 a.example: the MTA-STS record cannot be looked up: the policy did not arrive in time; the fetch continues"},
		{failing(policycache.Failed, mtasts.FailureFetch, policycache.ErrPending), all, "NOTFOUND "},
		{policycache.Entry{State: policycache.NoPolicy}, all, "NOTFOUND "},
	} {
		o := scene{rules: tt.rules, hosts: []sort{bare}}.plan()
		o.Policy = &tt.Entry
		if got := Reply(o, true); got != tt.want {
			t.Errorf("%v %v: %q, want %q", tt.State, tt.Err, got, tt.want)
		}
		if got := Reply(o, false); strings.Contains(got, "policy_") {
			t.Errorf("%v %v: %q without being asked", tt.State, tt.Err, got)
		}
	}
	// One in force whose refresh fails stays in force.
	o := scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{bare}}.plan()
	o.Policy.Err = &mtasts.Error{Failure: mtasts.FailureFetch, Err: why}
	if got := Reply(o, true); !strings.HasPrefix(got, "OK secure ") || strings.Contains(got, "policy_failure") {
		t.Error(got)
	}
}

// Postfix reads 100,000 bytes; the largest policy has more.
func TestLargestPolicy(t *testing.T) {
	label := strings.Repeat("x", 60)
	var listed []string
	for i := range 1000 {
		listed = append(listed, fmt.Sprintf("mx%d.%s.a.example", i, label))
	}
	for _, mode := range []mtasts.Mode{mtasts.ModeEnforce, mtasts.ModeTesting} {
		o := scene{mode: mode, listed: append(listed, "*.a.example"), rules: all, hosts: []sort{bare, bare}}.plan()
		if got := Reply(o, true); len(got) > maxReply || !strings.Contains(got, " policy_type=sts ") && mode == mtasts.ModeEnforce || strings.Contains(got, "policy_string") {
			t.Errorf("%v: %d bytes: %.200s", mode, len(got), got)
		}
	}
}

// A reason is one printable line of a length that a log can take.
func TestReasons(t *testing.T) {
	o := scene{rules: all, err: &status.Error{Code: status.New(status.Temporary, 4, 3), Text: "no\r\nno\x00\x1b[31m" + strings.Repeat("é", 1000)}}.plan()
	got := Reply(o, false)
	if !strings.HasPrefix(got, "TEMP 4.4.3 no  no??[31m") || len(got) > maxReason+5 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == '�' }) {
		t.Errorf("%q", got)
	}
}
