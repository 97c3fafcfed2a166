package tlsreport

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

var updatePage = flag.Bool("update", false, "write docs/tlsrpt-records.md anew")

const recordsPage = "../../docs/tlsrpt-records.md"

// hostile is a record at _smtp._tls, and what a report to its domain comes to.
type hostile struct {
	name    string
	records []string // none, and fails: the look-up does
	fails   bool
	// the addresses that a host has, the one of each look-up; without: 9.9.9.9
	hosts map[string][]string
	want  string
}

func rua(places string) []string { return []string{"v=TLSRPTv1; rua=" + places} }

func hostiles() []hostile {
	return []hostile{
		{name: "one address", records: rua("mailto:a@example.org"), want: "mail to a@example.org"},
		{name: "one URL", records: rua("https://r.example.org/v1"), want: "POST /v1 at 9.9.9.9:443: sent"},
		{name: "both", records: rua("mailto:a@example.org,https://r.example.org/v1"), want: "mail to a@example.org; POST /v1 at 9.9.9.9:443: sent"},
		{name: "ten thousand addresses", records: rua(strings.Repeat("mailto:a@example.org,mailto:b@example.org,", 5000)), want: "mail to a@example.org; mail to b@example.org"},
		{name: "ten thousand other addresses", records: rua(numbered("mailto:a%d@example.org", 10_000)), want: "mail to a0@example.org; mail to a1@example.org"},
		{name: "the same address twice", records: rua("mailto:a@example.org,mailto:a@example.org"), want: "mail to a@example.org"},
		{name: "an address at a victim", records: rua("mailto:a@victim.example"), want: "mail to a@victim.example"},
		{name: "no record", want: "nothing"},
		{name: "a look-up that fails", fails: true, want: "nothing; tried again"},
		{name: "two records", records: append(rua("mailto:a@example.org"), rua("mailto:b@example.org")...), want: "nothing"},
		{name: "other TXT records beside it", records: append(rua("mailto:a@example.org"), "v=spf1 -all", "x"), want: "mail to a@example.org"},
		{name: "another version", records: []string{"v=TLSRPTv2; rua=mailto:a@example.org"}, want: "nothing"},
		{name: "a version of any length", records: []string{"v=TLSRPTv1" + strings.Repeat("1", 60_000) + "; rua=mailto:a@example.org"}, want: "nothing"},
		{name: "a record of semicolons", records: []string{"v=TLSRPTv1" + strings.Repeat(";", 60_000)}, want: "nothing"},

		{name: "CRLF in an address", records: rua("mailto:a%0D%0ARCPT%20TO:b@example.org"), want: "nothing"},
		{name: "a raw CRLF", records: rua("mailto:a@example.org\r\nBcc: b@example.org"), want: "nothing"},
		{name: "a NUL in an address", records: rua("mailto:a%00@example.org"), want: "nothing"},
		{name: "an end of the command in an address", records: rua("mailto:a@example.org%3E%20SIZE=1"), want: "nothing"},
		{name: "two addresses in one", records: rua("mailto:a@example.org%2Cb@example.org"), want: "nothing"},
		{name: "header fields in mailto:", records: rua("mailto:a@example.org?bcc=b@example.org&subject=x"), want: "mail to a@example.org"},
		{name: "percent-escapes", records: rua("mailto:a%2Bb@example.org"), want: "mail to a+b@example.org"},
		{name: "percent-escapes twice", records: rua("mailto:a%252Cb@example.org"), want: "mail to a%2Cb@example.org"},
		{name: "a broken percent-escape", records: rua("mailto:a%4@example.org"), want: "nothing"},
		{name: "a display name", records: rua("mailto:A%20%3Ca@example.org%3E"), want: "nothing"},
		{name: "a route", records: rua("mailto:@relay.example:a@example.org"), want: "nothing"},
		{name: "a local user", records: rua("mailto:root@localhost"), want: "nothing"},
		{name: "an address literal", records: rua("mailto:root@[127.0.0.1]"), want: "nothing"},
		{name: "an address without brackets", records: rua("mailto:root@127.0.0.1"), want: "nothing"},
		{name: "a program as local part", records: rua(`mailto:%22|rm%22@example.org`), want: "nothing"},
		{name: "a size as DMARC has it", records: rua("mailto:a@example.org!10m"), want: "mail to a@example.org"},
		{name: "a size that no report has", records: rua("mailto:a@example.org!1"), want: "nothing; refused"},

		{name: "loopback", records: rua("https://127.0.0.1/"), want: "nothing; refused"},
		{name: "loopback of IPv6", records: rua("https://[::1]/"), want: "nothing; refused"},
		{name: "loopback, IPv6-mapped", records: rua("https://[::ffff:127.0.0.1]/"), want: "nothing; refused"},
		{name: "a private network", records: rua("https://10.1.2.3/"), want: "nothing; refused"},
		{name: "the address of a cloud's metadata", records: rua("https://169.254.169.254/latest"), want: "nothing; refused"},
		{name: "a link-local address with a zone", records: rua("https://[fe80::1%25lo]/"), want: "nothing; refused"},
		{name: "NAT64 of a private address", records: rua("https://[64:ff9b::a01:203]/"), want: "nothing; refused"},
		{name: "6to4 of loopback", records: rua("https://[2002:7f00:1::]/"), want: "nothing; refused"},
		{name: "loopback as a number", records: rua("https://2130706433/"), hosts: map[string][]string{"2130706433": {"127.0.0.1"}}, want: "nothing; refused"},
		{name: "loopback in short", records: rua("https://127.1/"), hosts: map[string][]string{"127.1": {"127.0.0.1"}}, want: "nothing; refused"},
		{name: "a name that leads to loopback", records: rua("https://localhost/"), hosts: map[string][]string{"localhost": {"127.0.0.1"}}, want: "nothing; refused"},
		{name: "a name with a public and a private address", records: rua("https://r.example.org/"), hosts: map[string][]string{"r.example.org": {"10.1.2.3 9.9.9.9"}}, want: "POST / at 9.9.9.9:443: sent"},
		{name: "a name that has another address at each look (DNS rebinding)", records: rua("https://r.example.org/"), hosts: map[string][]string{"r.example.org": {"9.9.9.9", "127.0.0.1"}}, want: "POST / at 9.9.9.9:443: sent"},
		{name: "a name with a thousand private addresses", records: rua("https://r.example.org/"), hosts: map[string][]string{"r.example.org": {strings.Repeat("10.1.2.3 ", 1000)}}, want: "nothing; refused"},
		{name: "a network that allow_private names", records: rua("https://10.9.8.7/"), want: "POST / at 10.9.8.7:443: sent"},
		{name: "a redirect to loopback", records: rua("https://r.example.org/redirect"), want: "POST /redirect at 9.9.9.9:443: refused"},
		{name: "an answer without end", records: rua("https://r.example.org/endless"), want: "POST /endless at 9.9.9.9:443: sent"},
		{name: "a header of a megabyte", records: rua("https://r.example.org/header"), want: "POST /header at 9.9.9.9:443: waiting"},
		{name: "400", records: rua("https://r.example.org/400"), want: "POST /400 at 9.9.9.9:443: refused"},
		{name: "503", records: rua("https://r.example.org/503"), want: "POST /503 at 9.9.9.9:443: waiting"},
		{name: "the certificate of another", records: rua("https://other.example.org/"), want: "nothing; waiting"},
		{name: "a user in the URL", records: rua("https://u:p@r.example.org/"), want: "nothing"},
		{name: "a fragment", records: rua("https://r.example.org/#x"), want: "nothing"},
		{name: "another port", records: rua("https://r.example.org:8443/"), want: "POST / at 9.9.9.9:8443: sent"},
		{name: "the port of another service", records: rua("https://r.example.org:25/"), want: "nothing"},
		{name: "a port that is none", records: rua("https://r.example.org:99999/"), want: "nothing"},
		{name: "no host", records: rua("https:///x"), want: "nothing"},
		{name: "http:", records: rua("http://r.example.org/"), want: "nothing"},
		{name: "a file", records: rua("file:///etc/passwd"), want: "nothing"},
		{name: "a URL of 2,000 bytes", records: rua("https://r.example.org/" + strings.Repeat("x", 2000)), want: "nothing"},
		{name: "letters beyond ASCII", records: rua("https://r.exämple.org/"), want: "nothing"},
	}
}

func numbered(form string, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(form, i)
	}
	return strings.Join(all, ",")
}

// done is what was seen of reports.
type done struct {
	mu   sync.Mutex
	list []string
	last string // that was dialled
}

func (d *done) add(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, what)
}

// session is a mail server's, which takes everything.
type session struct{ done *done }

func (s *session) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (*session) Reset()                                        {}
func (*session) Logout() error                                 { return nil }
func (*session) Mail(string, *smtp.MailOptions) error          { return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error   { s.done.add("mail to " + to); return nil }
func (*session) Data(r io.Reader) error                        { _, err := io.Copy(io.Discard, r); return err }

// answers is a resolver for one row.
type answers struct{ row *hostile }

func (a answers) TXT(context.Context, string) ([]string, error) {
	if a.row.fails {
		return nil, errors.New("SERVFAIL")
	}
	return a.row.records, nil
}

// TestHostileRecords plays records that a stranger may publish, to a mail
// server and a web server, and compares what reaches these, and what becomes of
// the report, with docs/tlsrpt-records.md; -update writes that.
func TestHostileRecords(t *testing.T) {
	var d done
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		d.mu.Lock()
		d.list = append(d.list, fmt.Sprintf("%s %s at %s", req.Method, req.URL.Path, d.last))
		d.mu.Unlock()
		switch req.URL.Path {
		case "/redirect":
			http.Redirect(w, req, "https://127.0.0.1/", http.StatusPermanentRedirect)
		case "/endless":
			for text := make([]byte, 32<<10); ; {
				if _, err := w.Write(text); err != nil {
					return
				}
			}
		case "/header":
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		case "/400":
			w.WriteHeader(http.StatusBadRequest)
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	defer web.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mailServer := smtp.NewServer(&session{&d})
	mailServer.Domain = "mail.example"
	served := make(chan error, 1)
	go func() { served <- mailServer.Serve(l) }()
	defer func() { mailServer.Close(); <-served }()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())

	var page strings.Builder
	for _, row := range hostiles() {
		looks := map[string]int{}
		courier := &Carrier{
			Server: l.Addr().String(), From: "tlsrpt@us.example", Hostname: "mx.us.example", Roots: roots,
			Private: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
			Lookup: func(_ context.Context, host string) (addrs []netip.Addr, err error) {
				list := row.hosts[host]
				if list == nil {
					list = []string{"9.9.9.9"}
				}
				for _, one := range strings.Fields(list[min(looks[host], len(list)-1)]) {
					addrs = append(addrs, netip.MustParseAddr(one))
				}
				looks[host]++
				return addrs, nil
			},
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				d.mu.Lock()
				d.last = address
				d.mu.Unlock()
				return new(net.Dialer).DialContext(ctx, network, web.Listener.Addr().String())
			},
		}
		// httptest's certificate is for example.com and 127.0.0.1.
		courier.Client = courier.client()
		courier.Client.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com"
		if strings.Contains(row.name, "certificate of another") {
			courier.Client.Transport.(*http.Transport).TLSClientConfig.ServerName = "other.example.org"
		}
		cfg := config("", answers{&row}, courier)
		cfg.Now = func() time.Time { return someDay.Add(30 * time.Hour) }
		r := open(t, cfg)
		r.Observe(Session{At: someDay, Domain: "d.example", Policy: none})
		d.list = nil
		failed := r.SendNow(t.Context(), "d.example")
		got := outcomes(t, r, d.list, failed)
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&page, "| %s | %s | %s |\n", row.name, cell(row.records), row.want)
	}
	text, err := os.ReadFile(recordsPage)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "|---|")
	want := before + "|---|---|---|\n" + page.String()
	if *updatePage {
		if err := os.WriteFile(recordsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Error("docs/tlsrpt-records.md has another table; go test ./policyd/tlsreport -run TestHostileRecords -update writes it")
	}
}

// outcomes says what the servers saw, and what became of the report where that
// does not follow.
func outcomes(t *testing.T, r *Reporter, seen []string, failed error) string {
	t.Helper()
	states := map[State]bool{}
	for _, one := range r.List() {
		for _, p := range one.Places {
			states[p.State] = true
		}
	}
	var words []string
	for s := range states {
		words = append(words, string(s))
	}
	slices.Sort(words)
	state := strings.Join(words, ", ")
	for i, one := range seen {
		if strings.HasPrefix(one, "POST ") {
			seen[i] += ": " + state
		}
	}
	switch {
	case len(seen) > 0:
		return strings.Join(seen, "; ")
	case state != "":
		return "nothing; " + state
	case failed != nil:
		return "nothing; tried again"
	}
	return "nothing"
}

// cell shows records in a table.
func cell(records []string) string {
	if len(records) == 0 {
		return ""
	}
	var all []string
	for _, r := range records {
		r = strings.TrimPrefix(r, "v=TLSRPTv1; ")
		if len(r) > 70 {
			r = fmt.Sprintf("%s… (%d bytes)", r[:50], len(r))
		}
		all = append(all, "`"+strings.NewReplacer("\r", `\r`, "\n", `\n`, "|", `\|`).Replace(r)+"`")
	}
	return strings.Join(all, ", ")
}
