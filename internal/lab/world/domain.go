package world

import (
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// Domain is a domain with its mail servers. The zero value but for a Name is a
// signed zone with nothing in it.
type Domain struct {
	Name    string // such as "dane-ee.example", lower case
	About   string // what is special about it, in a few words for a table
	Signing dnssec.Signing
	Hosts   []Host
	// its MTA-STS policy, with the DNS records that announce it; nil: none
	STS  *sts.Site
	Zone string // further records, with names relative to Name
}

// Host is a mail server, with an MX record and an A record.
type Host struct {
	// within the domain; "": the domain's own name, and no MX record
	Label      string
	Preference uint16
	// Hostname and, unless it speaks no TLS, the certificate are filled in
	Behaviour mx.Behaviour
	Cert      ca.Spec // without Names it is for the host's name
	// what is published for the host and the world's port
	TLSA      []TLSA
	TLSAFault dnssec.Fault // what is wrong with the signature of these records
	Down      bool         // nothing listens at its address
}

// name is the host's full name.
func (h Host) name(d Domain) string {
	if h.Label == "" {
		return d.Name
	}
	return h.Label + "." + d.Name
}

// TLSA is a record for a host's certificate: for that of the authority where
// the usage is DANE-TA or PKIX-TA, otherwise for the server's own.
type TLSA struct {
	Usage    ca.Usage
	Selector ca.Selector
	Matching ca.Matching
	Other    bool // it is that of another key, which no one here has
}
