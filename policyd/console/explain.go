package console

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/transport"
)

// Explanation writes what a message to a domain would meet.
func Explanation(s Screen, e *admin.Explanation) string {
	p := &page{Screen: s}
	p.head(e)
	for i := range e.Hosts {
		p.blank()
		p.host(e, &e.Hosts[i])
	}
	return p.String()
}

// head writes what is true of the domain as a whole.
func (p *page) head(e *admin.Explanation) {
	c, said := outcome(e)
	p.headline(e.Domain+": ", c, said)
	for _, w := range e.Warnings {
		p.coloured("warning", red, w)
	}
	by := e.Transport
	if e.Override != "" {
		by += ", override " + e.Override
	}
	if e.Nexthop != "" {
		by += ", next hop " + e.Nexthop
	}
	if e.Relay != "" {
		by += ", relay " + e.Relay
	}
	if e.Proxy != "" {
		by += ", through the SOCKS5 proxy " + e.Proxy
	}
	p.item("transport", by)
	if e.FallbackRelay != "" {
		text := e.FallbackRelay
		if e.FailingSince != nil {
			text += "; own hosts failed first " + p.ago(*e.FailingSince)
		}
		p.item("fallback", text)
	}
	if e.Route.Kind != "" {
		p.item("route", routeText(e))
	}
	for _, d := range e.Route.Dropped {
		p.item("dropped", fmt.Sprintf("%s (%d) %s", d.Host, d.Preference, d.Reason))
	}
	if e.Held != nil {
		p.coloured("held", red, e.Held.String())
	}
	p.policy(e)
	if l := e.Limit; l != nil && (l.Open > 0 || l.Waiting > 0 || l.Rate > 0 && l.Tokens < 1) {
		p.item("limit", limitText(l))
	}
}

// headline writes what a text comes to. Away from a terminal it is one line,
// however long, so that head(1) and grep(1) have all of it.
func (p *page) headline(head string, c colour, said string) {
	width := p.Width
	if p.Height == 0 {
		p.Width = math.MaxInt
	}
	p.hang(head, bold, c, said)
	p.Width = width
}

// outcome says what would become of a message, and why.
func outcome(e *admin.Explanation) (colour, string) {
	c, said := forecast(e)
	if e.Error != nil {
		short := *e.Error
		short.Text = strings.TrimPrefix(short.Text, e.Domain+": ")
		return c, said + ": " + short.String()
	}
	notes := e.Notes()
	if len(notes) == 0 {
		return c, said
	}
	said += "; but " + notes[0]
	if more := len(notes) - 1; more > 0 {
		said += fmt.Sprintf(" (and %d more, below)", more)
	}
	return yellow, said
}

// forecast says what would become of a message.
func forecast(e *admin.Explanation) (colour, string) {
	switch {
	case e.Forecast() == transport.Deliverable && e.To != "":
		return green, "would be delivered (" + e.To + " is taken; the message itself can still be refused)"
	case e.Forecast() == transport.Deliverable && e.Connected:
		return green, "would be delivered (no recipient was asked for; --to does)"
	case e.Forecast() == transport.Deliverable:
		return green, "would be delivered (look-ups only, no connection tried)"
	case e.Forecast() == transport.Unknown:
		return yellow, "cannot be determined"
	case e.Error != nil && e.Error.Status[0] == '5':
		return red, "would be refused"
	}
	return red, "would be deferred"
}

// routeText says how the hosts were found, and whether their names are signed.
func routeText(e *admin.Explanation) string {
	var text string
	switch e.Route.Kind {
	case "mx":
		text = count(len(e.Hosts), "MX host", "MX hosts")
	case "implicit":
		text = "no MX record: the host is " + e.Route.Destination + " itself"
	case "literal":
		return "an address literal"
	default:
		text = "the host named by the next hop"
		if e.Relay != "" {
			text = "the relay"
		}
	}
	if e.Route.Canonical != "" {
		text += ", alias of " + e.Route.Canonical
	}
	switch {
	case e.Route.Kind == "explicit":
	case e.Route.Signed && !e.Mechanisms.DNSSEC:
		text += ", DNSSEC-signed (but mx_auth has no dnssec)"
	case e.Route.Signed:
		text += ", DNSSEC-signed"
	default:
		text += ", not signed"
	}
	return text
}

// policy writes what is known of the MTA-STS policy.
func (p *page) policy(e *admin.Explanation) {
	m := e.MTASTS
	switch {
	case !e.Mechanisms.MTASTS:
		p.item("MTA-STS", "not used (mx_auth has no mtasts)")
		return
	case m == nil:
		return
	case m.State == "policy":
		text := m.Mode + ", id " + m.ID
		if m.RecordID != "" && m.RecordID != m.ID {
			text += " (the TXT record now has id " + m.RecordID + ")"
		}
		if m.Fetched != nil && m.Expires != nil {
			text += ", fetched " + p.ago(*m.Fetched) + ", expires " + p.in(*m.Expires)
		}
		p.item("MTA-STS", text+"; mx "+some(m.MX, 5))
	case m.State == "none":
		p.item("MTA-STS", "no policy")
	default:
		p.coloured("MTA-STS", yellow, "a policy may exist, but could not be fetched")
	}
	if m.Error != "" {
		p.coloured("", yellow, m.Failure+": "+m.Error)
	}
}

func limitText(l *admin.Limit) string {
	text := fmt.Sprintf("%d in use", l.Open)
	if l.Concurrency > 0 {
		text = fmt.Sprintf("%d of %d in use", l.Open, l.Concurrency)
	}
	if l.Rate > 0 {
		text += fmt.Sprintf(", %.0f of %d left for %s", l.Tokens, l.Rate, span(time.Duration(l.Period*float64(time.Second))))
	}
	return text + fmt.Sprintf(", %d waiting", l.Waiting)
}

// host writes one host's part.
func (p *page) host(e *admin.Explanation, h *admin.Host) {
	name := h.Name
	if e.Route.Kind == "mx" {
		name += fmt.Sprintf(" (%d)", h.Preference)
	}
	mark, c := "eligible", green
	switch {
	case h.Forecast() == transport.Unknown:
		mark, c = "unknown", yellow
	case h.Forecast() == transport.Undeliverable:
		mark, c = "skipped", red
	}
	p.hang(name+": ", bold, c, mark)
	if h.Error != nil {
		p.coloured("", c, h.Error.Status+" "+strings.TrimPrefix(h.Error.Text, h.Name+": "))
		return
	}
	p.item("address", addressText(h))
	p.tlsa(h)
	if h.Listed != nil {
		listed := "lists this host"
		if !*h.Listed {
			listed = "does not list this host"
		}
		p.item("MTA-STS", "the policy "+listed)
	}
	p.verdict(h)
	if h.Source != "" {
		p.item("source", h.Source)
	}
	if h.Provider != "" && h.Provider != h.Name {
		p.item("provider", h.Provider)
	}
	if h.Held != nil {
		p.coloured("held", red, h.Held.String())
	}
	if h.Dead != nil {
		p.coloured("dead", red, strings.TrimPrefix(h.Dead.Text, h.Name+" "))
	}
	if h.Hello != "" {
		p.item("TLS hello", h.Hello+", as the better ones failed lately")
	}
	if h.Idle > 0 {
		p.item("pool", count(h.Idle, "idle connection", "idle connections"))
	}
	if h.Connection != nil {
		p.connection(h)
	}
}

func addressText(h *admin.Host) string {
	text := some(h.Addresses, 4)
	if h.Canonical != "" {
		text += ", as " + h.Canonical
	}
	if h.Signed {
		text += ", DNSSEC-signed"
	}
	if h.Partial != "" {
		text += "; " + h.Partial
	}
	return text
}

// maxRecords is how many TLSA records are shown.
const maxRecords = 6

func (p *page) tlsa(h *admin.Host) {
	t := h.TLSA
	if t == nil {
		return
	}
	switch t.State {
	case "none":
		p.item("TLSA", "none")
	case "unsigned":
		p.item("TLSA", "not looked up, since the address is not DNSSEC-signed")
	case "failed":
		p.coloured("TLSA", red, "look-up failed")
	}
	label := "TLSA"
	for i, r := range t.Records {
		if i == maxRecords {
			p.item("", fmt.Sprintf("and %d more", len(t.Records)-i))
			break
		}
		if r.Usable {
			p.item(label, r.Record+" usable")
		} else {
			p.coloured(label, yellow, r.Record+" not usable: "+r.Reason)
		}
		label = ""
	}
	if t.Base != "" && t.Base != h.Name {
		p.item("", "at "+t.Base)
	}
}

// sources names where the rule of a verdict is written.
var sources = map[string]string{
	"none": " (RFC" + glue + "7435)", "dane": " (RFC" + glue + "7672)", "mtasts": " (RFC" + glue + "8461)",
	"requiretls": " (RFC" + glue + "8689)", "local_policy": " (mxpolicyd.yaml)",
	"pin": " (mxpolicyd.yaml)", "relay": " (mxpolicyd.yaml)",
}

func (p *page) verdict(h *admin.Host) {
	v := h.Verdict
	if v == nil {
		return
	}
	if v.Refusal != nil {
		p.coloured("verdict", red, "not contacted, "+v.Refusal.Status+": "+v.Refusal.Text+sources[v.Rule])
		p.item("levels", "MX "+v.MXLevel)
		return
	}
	reason := strings.TrimSuffix(v.Reason, ": "+v.Need)
	if v.Rule == "none" {
		p.item("verdict", reason+": opportunistic TLS"+sources[v.Rule])
	} else {
		p.item("verdict", "requires "+v.Need+": "+reason+sources[v.Rule])
	}
	if v.Noted != "" {
		p.coloured("", yellow, v.Noted)
	}
	if len(v.Pins) > 0 {
		p.item("pin", some(v.Pins, 4))
	}
	if h.Connection == nil || h.Connection.Error != nil {
		p.item("levels", "MX "+v.MXLevel)
	} else {
		p.item("levels", "MX "+v.MXLevel+", TLS "+h.Connection.TLSLevel)
	}
}

// maxShown is how many certificates of a chain are shown.
const maxShown = 3

// connection writes what a real connection showed.
func (p *page) connection(h *admin.Host) {
	c := h.Connection
	said := ""
	switch {
	case c.Error != nil:
		said = c.Error.Text
		p.coloured("connected", red, c.Error.Status+" "+strings.TrimPrefix(said, h.Name+": "))
	default:
		text := c.Via
		if c.Cipher != "" && c.TLSError == "" {
			text += ", " + c.Cipher
			if c.Group != "" {
				text += ", " + c.Group
			}
			if c.Hello != "" && c.Hello != "full" {
				text += ", by a plainer TLS hello: " + c.Hello
			}
		}
		p.coloured("connected", green, text)
	}
	p.tried(h, c)
	if c.Accepted != "" {
		p.coloured("recipient", green, c.Accepted)
	}
	if c.TLSError != "" {
		p.coloured("", yellow, "STARTTLS failed: "+c.TLSError)
	}
	if c.TestingError != "" {
		p.coloured("", yellow, c.TestingError)
	}
	label := "chain"
	for i := range c.Chain {
		if i == maxShown {
			p.item("", fmt.Sprintf("and %d more", len(c.Chain)-i))
			break
		}
		p.item(label, p.certificate(&c.Chain[i]))
		label = ""
	}
	if c.DANEMatch != "" {
		text := "the certificate matches " + c.DANEMatch
		if c.DANEName != "" {
			text += " and is for " + c.DANEName
		}
		p.coloured("DANE", green, text)
	}
	if c.DANEError != "" && !strings.Contains(said, c.DANEError) {
		p.coloured("DANE", red, c.DANEError)
	}
	if c.Pin != "" {
		p.coloured("pin", green, "the server is known by "+c.Pin)
	}
	if c.PinError != "" && !strings.Contains(said, c.PinError) {
		p.coloured("pin", red, c.PinError)
	}
	switch {
	case c.WebPKI:
		p.item("WebPKI", "the certificate is valid for the host name")
	case c.WebPKIError != "" && !strings.Contains(said, c.WebPKIError):
		p.item("WebPKI", "not valid: "+strings.TrimPrefix(c.WebPKIError, "x509: "))
	}
	p.item("offers", strings.Join(c.Extensions, ", "))
}

// tried writes what became of a host's addresses, where it is not the same for
// all, and which family is dead.
func (p *page) tried(h *admin.Host, c *admin.Connection) {
	for _, a := range c.Addresses {
		if a.Error != nil && (c.Error == nil || len(c.Addresses) > 1) {
			p.coloured("no use", yellow, a.Address+": "+a.Error.Status+" "+strings.TrimPrefix(a.Error.Text, h.Name+": "))
		}
	}
	if family := h.DeadFamily(); family != "" {
		p.coloured("", yellow, "no "+family+" address of this host will do; mail goes by the other family")
	}
}

func (p *page) certificate(c *admin.Certificate) string {
	who := c.Subject
	if len(c.Names) > 0 {
		who = some(c.Names, 3)
	}
	by := "by " + c.Issuer
	if c.Issuer == c.Subject {
		by = "self-signed"
	}
	text := fmt.Sprintf("%s, %s, %s to %s", who, c.Key, date(c.NotBefore), date(c.NotAfter))
	switch {
	case p.Now.After(c.NotAfter):
		text += " (expired)"
	case p.Now.Before(c.NotBefore):
		text += " (not valid yet)"
	}
	return text + ", " + by
}
