package policyd

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/socketmap"
	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
)

// asking is a connection to the socketmap.
type asking struct {
	t *testing.T
	net.Conn
	in *netstring.Reader
}

func (r *running) asking() *asking {
	r.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(r.dir, "socketmap.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &asking{r.t, conn, netstring.NewReader(conn, 100_000)}
}

func (a *asking) want(request, reply string) {
	a.t.Helper()
	a.Write(netstring.Append(nil, request))
	if got, err := a.in.Next(); err != nil || string(got) != reply {
		a.t.Errorf("%s: %q, %v; want %q", request, got, err, reply)
	}
}

// The daemon answers Postfix for each of its transports, on one connection
// across reloads, by the policies in force at the moment.
func TestSocketmap(t *testing.T) {
	l := newLab(t)
	yaml := func(transport, others string) string {
		return strings.Replace(l.yaml("", transport, others), "listen: {", "listen: {socketmap: {path: "+l.dir+"/socketmap.sock}, ", 1)
	}
	if err := l.dns.Add("b.example. MX 10 mx.a.example.\nc.example. MX 10 mx.a.example."); err != nil {
		t.Fatal(err)
	}
	r := l.daemon(yaml("", fmt.Sprintf("  strict: {port: %d, mx_auth: {local_policy: {min_tls_level: encrypted}}}", l.port)))
	a := r.asking()
	a.want("policy a.example", "NOTFOUND ")
	a.want("policy@strict a.example", "OK encrypt")
	a.want("policy@other a.example", "TEMP there is no transport other")
	a.want("policy [a.example]", "NOTFOUND ")
	r.reload(yaml(`    mx_auth: {local_policy: {min_tls_level: authenticated}}
    overrides: [{match: b.example, mx_auth: none}, {match: c.example, mx_auth: none, pin: "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}]`, fmt.Sprintf("  other: {port: %d}", l.port)), "configuration reloaded")
	a.want("policy a.example", "OK secure match=mx.a.example servername=hostname")
	a.want("policy b.example", "OK may")
	a.want("policy c.example", "OK fingerprint match=E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55 protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1")
	a.want("policy@other a.example", "NOTFOUND ")
	a.want("policy@strict a.example", "TEMP there is no transport strict")
	if got, want := r.lookups.Stats(), (socketmap.Stats{Policies: 4, None: 3, Temporary: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	// Mail goes on beside it.
	want(t, r.send(through("other")), "2.0.0 ")
	r.end()
	if _, err := a.in.Next(); err == nil {
		t.Error("the connection outlived the daemon")
	}
}
