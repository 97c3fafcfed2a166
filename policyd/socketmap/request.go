package socketmap

import (
	"strings"

	"github.com/mxpipe/mxpipe/transport/route"
)

// maxRequest bounds a request, in bytes: a map's name, a blank and the longest
// domain that could become one of 253 bytes, with room to spare.
const maxRequest = 2000

// mapNames are the names under which the two maps are asked for, and whether
// the answers of a name have attributes for TLS reports. Beside our own names
// stand those that postfix-tlspol and postfix-mta-sts-resolver have in main.cf,
// so that who comes from them changes no more than the place.
var mapNames = map[string]bool{
	"policy":          false,
	"policy-tlsrpt":   true,
	"QUERY":           false, // postfix-tlspol
	"QUERYwithTLSRPT": true,
	// postfix-mta-sts-resolver's example; its default zone
	"postfix": false,
}

// noSuchMap answers who asks for another.
const noSuchMap = "there is no such map; there are policy (also named QUERY and postfix), policy-tlsrpt (also QUERYwithTLSRPT), and each with @TRANSPORT"

// request is what is asked: "MAP KEY" (socketmap_table(5)).
type request struct {
	reports   bool   // the map's answers have attributes for TLS reports
	transport string // whose policies are asked for
	domain    string // as A-labels; empty: the key is none
	// where the domain's hosts are dialled; 0: at the usual one
	port uint16
}

// parse reads a request; ok is false when there is no such map.
func parse(text, defaultTransport string) (r request, ok bool) {
	name, key, _ := strings.Cut(text, " ")
	name, r.transport, ok = strings.Cut(name, "@")
	if !ok {
		r.transport = defaultTransport
	}
	reports, known := mapNames[name]
	if !known {
		return request{}, false
	}
	r.reports = reports
	r.domain, r.port = destination(key)
	return r, true
}

// services are the names that Postfix takes for ports of mail servers.
var services = map[string]string{"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465"}

// destination reads a key; an empty domain means that it is none. Postfix asks
// for the next hop as it stands: a domain, or what the administrator wrote into
// a transport, "domain:port", "[host]", "[host]:port", an address, the path of
// a socket; and, when a domain has no policy, for ".parent". What a domain's MX
// records lead to has the domain's policies, whatever the port (RFC 8461 §3.4);
// a host that the administrator chose has none.
func destination(key string) (domain string, port uint16) {
	name, service, ok := strings.Cut(key, ":")
	if number := services[service]; ok && number != "" {
		key = name + ":" + number
	}
	d, err := route.ParseNexthop(key)
	if err != nil || d.Nexthop {
		return "", 0
	}
	return d.Domain, d.Port
}
