package dane

import (
	"encoding/hex"

	"github.com/miekg/dns"
)

// FromRR turns a DNS record into a Record. Data that is not hexadecimal,
// which the wire cannot carry, becomes empty and thereby unusable: it never
// goes missing from the set.
func FromRR(rr *dns.TLSA) Record {
	data, err := hex.DecodeString(rr.Certificate)
	if err != nil {
		data = nil
	}
	return Record{
		Usage:    Usage(rr.Usage),
		Selector: Selector(rr.Selector),
		Matching: Matching(rr.MatchingType),
		Data:     data,
	}
}
