package socketmap

import (
	"strings"

	"github.com/mxpipe/mxpipe/transport/route"
)

// maxRequest bounds a request, in bytes: a map's name, a blank and the longest
// domain that could become one of 253 bytes, with room to spare.
const maxRequest = 2000

// Names of maps.
const (
	mapPolicy  = "policy"
	mapReports = "policy-tlsrpt"
)

// request is what is asked: "MAP KEY" (socketmap_table(5)).
type request struct {
	reports   bool   // the map's answers have attributes for TLS reports
	transport string // whose policies are asked for
	domain    string // as A-labels; empty: the key is none
}

// parse reads a request; ok is false when there is no such map.
func parse(text, defaultTransport string) (r request, ok bool) {
	name, key, _ := strings.Cut(text, " ")
	name, r.transport, ok = strings.Cut(name, "@")
	if !ok {
		r.transport = defaultTransport
	}
	switch name {
	case mapPolicy:
	case mapReports:
		r.reports = true
	default:
		return request{}, false
	}
	r.domain = domainOf(key)
	return r, true
}

// domainOf reads a key; "" means that it is no domain. Postfix asks for the
// next hop as it stands: a domain, or what the administrator wrote into a
// transport, "[host]", "[host]:port", "domain:port", an address, the path of a
// socket; and, when a domain has no policy, for ".parent". Whoever chose a host
// or a port by hand has no policy from the domain that the mail is for.
func domainOf(key string) string {
	d, err := route.ParseNexthop(key)
	if err != nil || d.Nexthop || d.Port != 0 {
		return ""
	}
	return d.Domain
}
