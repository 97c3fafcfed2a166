package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

var (
	allHandshakes   = flag.Bool("handshakes", false, "play all servers of docs/handshakes.md, and not a selection")
	writeHandshakes = flag.Bool("write-handshakes", false, "with -handshakes: write the tables of docs/handshakes.md anew")
)

// protection is a column of the matrix: what asks for TLS, and how Postfix is
// asked for the same.
type protection struct {
	name, zone string
	signing    dnssec.Signing
	level      string // posttls-finger's options, with HOST and ROOTS in them
	match      func(host string, s shown) string
	verified   bool // the certificate must be what was asked for
}

var protections = []protection{
	{name: "no policy", zone: "hs-none", signing: dnssec.Unsigned, level: "-l may"},
	{name: "min_tls_level encrypted", zone: "hs-enc", signing: dnssec.Unsigned, level: "-l encrypt"},
	// As the socketmap puts it: servername=hostname, nothing below TLS 1.2.
	{name: "MTA-STS", zone: "hs-sts", signing: dnssec.Unsigned, level: "-l secure -s HOST -p >=TLSv1.2 -F ROOTS", match: func(host string, _ shown) string { return host }, verified: true},
	{name: "DANE", zone: "hs-dane", level: "-l dane", verified: true},
	{name: "a pin", zone: "hs-pin", signing: dnssec.Unsigned, level: "-l fingerprint -d sha256", match: func(_ string, s shown) string { return s.fingerprint() }, verified: true},
}

// handshakes are servers, and both clients before them.
type handshakes struct {
	*internet
	certs   map[string]shown
	conf    string // the resolv.conf of Postfix
	rows    []tlsServer
	address []string // of the rows' servers
	tools   string   // that are here
}

// Postfix and mxpolicyd before the same real servers, with whatever asks for
// TLS: mxpolicyd has TLS wherever Postfix has it, but for what the page names,
// and what each of them has is what the page says.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	h := newHandshakes(t)
	page := readHandshakes(t)
	var mu sync.Mutex
	played := map[string][]string{}
	t.Run("servers", func(t *testing.T) {
		for i, row := range h.rows {
			t.Run(row.title(), func(t *testing.T) {
				t.Parallel()
				var cells []string
				less := false
				for _, p := range protections {
					f := h.fate(t, i, p)
					if f.less() {
						less = true
						if row.less == "" {
							t.Errorf("%s: Postfix has %s; mxpipe: %s", p.name, f.postfix, f.line)
						}
					}
					if p.zone == "hs-none" && f.ours == "kept" {
						t.Errorf("%s: not delivered: %s", p.name, f.line)
					}
					cells = append(cells, f.String())
				}
				if row.less != "" && !less {
					t.Errorf("mxpolicyd has all that Postfix has, although it is said to lack: %s", row.less)
				}
				cells = append(cells, row.less)
				// Of other programs and libraries the page does not speak.
				if want := page.rows[row.title()]; page.sameTools(h.tools) && !*writeHandshakes && !slices.Equal(cells, want) {
					t.Errorf("%q\nthe page says %q", cells, want)
				}
				mu.Lock()
				defer mu.Unlock()
				played[row.title()] = cells
			})
		}
	})
	switch {
	case t.Failed():
	case *writeHandshakes && *allHandshakes:
		page.write(t, h.rows, played, h.tools)
	case !page.sameTools(h.tools):
		t.Logf("not compared with the page, which is of %q; here are %q", page.tools, h.tools)
	case *allHandshakes && len(page.rows) != len(h.rows):
		t.Errorf("the page has %d rows, want %d", len(page.rows), len(h.rows))
	}
}

// fate is what both clients have of one server.
type fate struct {
	postfix string // "TLS1.2" or "none"
	ours    string // "TLS1.2", "weak TLS1.0", "plaintext" or "kept"
	line    string // of mxpipe
}

// encrypted gives the version of what we have, "none" for nothing.
func (f fate) encrypted() string {
	if f.ours == "plaintext" || f.ours == "kept" {
		return "none"
	}
	return strings.TrimPrefix(f.ours, "weak ")
}

// less reports whether we have less than Postfix.
func (f fate) less() bool {
	return f.postfix != "none" && (f.encrypted() == "none" || f.encrypted() < f.postfix)
}

// String is a cell of the page.
func (f fate) String() string {
	if f.encrypted() == f.postfix {
		return f.ours
	}
	return f.ours + "; Postfix: " + f.postfix
}

// newHandshakes starts the servers of the rows that are played, with a domain
// for each protection.
func newHandshakes(t *testing.T) *handshakes {
	t.Helper()
	h := &handshakes{internet: newInternet(t), certs: map[string]shown{}, tools: toolsHere(t)}
	for _, row := range tlsServers() {
		if *allHandshakes || row.brief {
			h.rows = append(h.rows, row)
		}
	}
	issuer := newIssuer(t)
	var names []string
	for _, p := range protections {
		names = append(names, "*."+p.zone+".example")
	}
	for range h.rows {
		i := h.number.Add(1)
		h.address = append(h.address, fmt.Sprintf("127.25.%d.%d:%d", i/250, i%250+1, h.port))
	}
	for _, row := range h.rows {
		if _, ok := h.certs[row.key]; !ok {
			h.certs[row.key] = issuer.issue(t, row.key, names)
		}
	}
	h.serveOpenSSL(t)
	h.servePostfix(t)
	h.serveExim(t)

	var zone [5]strings.Builder
	for i, row := range h.rows {
		ip, _, _ := strings.Cut(h.address[i], ":")
		for j, p := range protections {
			fmt.Fprintf(&zone[j], "d%[1]d MX 10 mx%[1]d.%[2]s.example.\nmx%[1]d A %[3]s\n", i, p.zone, ip)
			switch p.name {
			case "DANE":
				fmt.Fprintf(&zone[j], "_%d._tcp.mx%d TLSA %s\n", h.port, i, h.certs[row.key].tlsa())
			case "MTA-STS":
				domain := fmt.Sprintf("d%d.%s.example", i, p.zone)
				h.must(t, h.web.Publish(domain, sts.Site{Policy: sts.Policy("enforce", 24*hour, "*."+p.zone+".example")}))
				fmt.Fprintf(&zone[j], "_mta-sts.d%[1]d TXT \"v=STSv1; id=1;\"\nmta-sts.d%[1]d A %[2]s\n", i, h.web.Addr().Addr())
			}
		}
	}
	var pins []string
	for _, c := range h.certs {
		pins = append(pins, `"`+c.pin()+`"`)
	}
	for j, p := range protections {
		h.must(t, h.zones.AddZone(dnssec.Zone{Name: p.zone + ".example", Signing: p.signing, Text: zone[j].String()}))
	}
	roots, err := os.ReadFile(h.roots)
	h.must(t, err)
	own, err := os.ReadFile(issuer.root)
	h.must(t, err)
	h.must(t, write(h.roots, string(roots)+string(own)))
	at := h.internet.resolver()
	u := h.unbound(t, at)
	h.conf = filepath.Join(folder(t), "resolv.conf")
	h.must(t, write(h.conf, "nameserver "+at+"\noptions trust-ad\n"))
	h.serve(t, u.Addr(), "    overrides:",
		"      - {match: .hs-enc.example, mx_auth: {local_policy: {min_tls_level: encrypted}}}",
		"      - {match: .hs-pin.example, pin: ["+strings.Join(pins, ", ")+"]}")
	return h
}

func (h *handshakes) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fate has both clients meet the server of a row.
func (h *handshakes) fate(t *testing.T, i int, p protection) (f fate) {
	t.Helper()
	domain := fmt.Sprintf("d%d.%s.example", i, p.zone)
	host := fmt.Sprintf("mx%d.%s.example", i, p.zone)
	f.postfix = h.finger(t, i, p, host)
	r := mxpipe(t, h.d, short(), "-f", "a@"+keepDomain, "b@"+domain).result(t)
	f.line = r.line
	via := viaIn.FindStringSubmatch(r.line)
	switch {
	case r.exit == 75:
		f.ours = "kept"
	case r.exit != 0 || via == nil:
		t.Fatalf("%s: %s", p.name, r)
	case via[1] == "plaintext":
		f.ours = "plaintext"
	case via[1] == "weak TLS":
		f.ours = "weak " + via[2]
	default:
		f.ours = via[2]
	}
	return f
}

// viaIn finds how a message went in what mxpipe says of it.
var viaIn = regexp.MustCompile(`, (plaintext|weak TLS|webpki|mtasts|dane|pin|encrypted)(?:, (TLS1\.\d))?, id=`)

// established finds what posttls-finger says of a handshake.
var established = regexp.MustCompile(`(Anonymous|Untrusted|Trusted|Verified) TLS connection established to \S+ TLSv(\S+) with cipher`)

// finger has Postfix's posttls-finger(1) meet the server of a row: smtp(8)'s
// own TLS, with the same parameters. It alone sees the resolv.conf of the test.
func (h *handshakes) finger(t *testing.T, i int, p protection, host string) string {
	t.Helper()
	options := strings.NewReplacer("HOST", host, "ROOTS", h.roots).Replace(p.level)
	args := []string{"--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec posttls-finger "$@"`, h.conf, "-c", "-o", "smtp_dns_support_level=dnssec"}
	args = append(append(args, strings.Fields(options)...), fmt.Sprintf("[%s]:%d", host, h.port))
	if p.match != nil {
		args = append(args, p.match(host, h.certs[h.rows[i].key]))
	}
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MAIL_CONFIG=" + h.world.out.conf()}
	out, err := cmd.CombinedOutput()
	t.Logf("posttls-finger %s: %v\n%s", options, err, out)
	m := established.FindSubmatch(out)
	switch {
	case m == nil, p.verified && string(m[1]) != "Verified":
		return "none"
	case bytes.Contains(out, []byte("lost connection while sending EHLO")):
		// In TLS 1.3 a server can refuse when the client is through.
		return "none"
	case string(m[2]) == "1":
		return "TLS1.0"
	}
	return "TLS" + string(m[2])
}
