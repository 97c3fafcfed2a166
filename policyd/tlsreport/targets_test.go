package tlsreport

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestTargets has records as they are, as RFC 8460 §3 allows them, and as an
// attacker writes them: what becomes of each.
func TestTargets(t *testing.T) {
	many := "v=TLSRPTv1; rua="
	for i := range 10_000 {
		many += fmt.Sprintf("mailto:a%d@example.org,", i)
	}
	for _, c := range []struct {
		name    string
		records []string
		want    string // the places, "none" without a record
		skipped int
	}{
		{"mail", []string{"v=TLSRPTv1; rua=mailto:reports@example.com"}, "mail:reports@example.com", 0},
		{"https", []string{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"}, "https://reporting.example.com/v1/tlsrpt", 0},
		{"both", []string{"v=TLSRPTv1;rua=mailto:a@example.org , https://r.example.org/"}, "mail:a@example.org https://r.example.org/", 0},
		{"no blanks, final semicolon", []string{"v=TLSRPTv1;rua=mailto:a@example.org;"}, "mail:a@example.org", 0},
		{"tabs", []string{"v=TLSRPTv1\t;\trua\t=\tmailto:a@example.org"}, "mail:a@example.org", 0},
		{"unknown fields", []string{"v=TLSRPTv1; x=1; rua=mailto:a@example.org; ruf=mailto:b@example.org"}, "mail:a@example.org", 0},
		{"other TXT records", []string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@example.org", "x"}, "mail:a@example.org", 0},
		{"encoded", []string{"v=TLSRPTv1; rua=mailto:a%2Bb@example.org"}, "mail:a+b@example.org", 0},
		{"upper-case scheme", []string{"v=TLSRPTv1; rua=MAILTO:a@example.org"}, "mail:a@example.org", 0},
		{"DMARC's size", []string{"v=TLSRPTv1; rua=mailto:a@example.org!10m"}, "mail:a@example.org(10485760)", 0},
		{"three", []string{"v=TLSRPTv1; rua=mailto:a@example.org,mailto:b@example.org,mailto:c@example.org"}, "mail:a@example.org mail:b@example.org", 1},
		{"two rua fields", []string{"v=TLSRPTv1; rua=mailto:a@example.org; rua=mailto:b@example.org"}, "mail:a@example.org mail:b@example.org", 0},
		{"ten thousand", []string{many}, "mail:a0@example.org mail:a1@example.org", 9998},

		{"no record", nil, "none", 0},
		{"another version", []string{"v=TLSRPTv2; rua=mailto:a@example.org"}, "none", 0},
		{"version not first", []string{"rua=mailto:a@example.org; v=TLSRPTv1"}, "none", 0},
		{"version in lower case", []string{"v=tlsrptv1; rua=mailto:a@example.org"}, "none", 0},
		{"two records", []string{"v=TLSRPTv1; rua=mailto:a@example.org", "v=TLSRPTv1; rua=mailto:b@example.org"}, "none", 0},
		{"no rua", []string{"v=TLSRPTv1; "}, "", 0},
		{"empty rua", []string{"v=TLSRPTv1; rua="}, "", 0},
		{"http", []string{"v=TLSRPTv1; rua=http://r.example.org/"}, "", 1},
		{"ftp", []string{"v=TLSRPTv1; rua=ftp://r.example.org/"}, "", 1},
		{"file", []string{"v=TLSRPTv1; rua=file:///etc/passwd"}, "", 1},
		{"no scheme", []string{"v=TLSRPTv1; rua=a@example.org"}, "", 1},
		{"two addresses in one", []string{"v=TLSRPTv1; rua=mailto:a@example.org%2Cb@example.org"}, "", 1},
		{"headers in mailto", []string{"v=TLSRPTv1; rua=mailto:a@example.org?bcc=b@example.org"}, "mail:a@example.org", 0},
		{"a line end", []string{"v=TLSRPTv1; rua=mailto:a%0D%0ABcc:b@example.org"}, "", 1},
		{"a command's end", []string{"v=TLSRPTv1; rua=mailto:a@example.org%3E%20SIZE=1"}, "", 1},
		{"a local part alone", []string{"v=TLSRPTv1; rua=mailto:root"}, "", 1},
		{"a local host", []string{"v=TLSRPTv1; rua=mailto:root@localhost"}, "", 1},
		{"an address literal", []string{"v=TLSRPTv1; rua=mailto:root@[127.0.0.1]"}, "", 1},
		{"a quoted local part", []string{`v=TLSRPTv1; rua=mailto:"|rm"@example.org`}, "", 1},
		{"a user in the URL", []string{"v=TLSRPTv1; rua=https://u:p@r.example.org/"}, "", 1},
		{"no host", []string{"v=TLSRPTv1; rua=https:///x"}, "", 1},
		{"not ASCII", []string{"v=TLSRPTv1; rua=mailto:ä@example.org"}, "", 1},
		{"too long", []string{"v=TLSRPTv1; rua=https://r.example.org/" + strings.Repeat("x", 2000)}, "", 1},
		{"a size that is none", []string{"v=TLSRPTv1; rua=mailto:a@example.org!-1"}, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets, skipped, ok := Targets(c.records)
			var list []string
			for _, target := range targets {
				one := target.URI
				if target.Mail != "" {
					one = "mail:" + target.Mail
				}
				if target.Max != 0 {
					one += fmt.Sprintf("(%d)", target.Max)
				}
				list = append(list, one)
			}
			got := strings.Join(list, " ")
			if !ok {
				got = "none"
			}
			if got != c.want || skipped != c.skipped {
				t.Errorf("%q, %d skipped; want %q, %d", got, skipped, c.want, c.skipped)
			}
		})
	}
}

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"9.9.9.9": true, "2620:fe::9": true, "::ffff:9.9.9.9": true,
		"127.0.0.1": false, "::1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.0.1": false,
		"169.254.169.254": false, "fe80::1": false, "fd00::1": false, "0.0.0.0": false, "::": false,
		"100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::ffff:127.0.0.1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "192.0.2.1": false, "198.18.0.1": false, "ff02::1": false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if err := (&Carrier{}).control("tcp", "127.0.0.1:443", nil); err == nil {
		t.Error("loopback was dialled")
	}
}

func FuzzTargets(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@example.org,https://r.example.org/!1k")
	f.Fuzz(func(t *testing.T, record string) {
		targets, _, _ := Targets([]string{record})
		if len(targets) > 2 {
			t.Fatalf("%d places", len(targets))
		}
		for _, target := range targets {
			if strings.ContainsAny(target.Mail, "\r\n <>,") {
				t.Fatalf("%q", target.Mail)
			}
			if target.Mail == "" && !strings.HasPrefix(strings.ToLower(target.URI), "https:") {
				t.Fatalf("%q", target.URI)
			}
		}
	})
}
