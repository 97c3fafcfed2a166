// Package verdict decides what one MX host must show before mail for one
// domain may go to it, and whether a connection showed it.
package verdict

// MXLevel is how far an MX host's name can be trusted to belong to the
// domain. Levels are ordered: a higher one satisfies a lower one.
type MXLevel uint8

// The MX levels.
const (
	MXNone   MXLevel = iota // plain DNS said so
	MXMTASTS                // an MTA-STS policy lists it (RFC 8461 §4.1)
	MXDNSSEC                // a signed MX set lists it (RFC 7672 §2.2.1)
)

// String gives the configuration's word for the level.
func (l MXLevel) String() string {
	switch l {
	case MXMTASTS:
		return "mtasts"
	case MXDNSSEC:
		return "dnssec"
	}
	return "none"
}

// TLSLevel is how far a connection can be trusted. Levels are ordered.
type TLSLevel uint8

// The TLS levels.
const (
	TLSNone          TLSLevel = iota // plaintext
	TLSEncrypted                     // TLS with an unproven peer
	TLSAuthenticated                 // TLS with a peer proven by DANE or WebPKI
)

// String gives the configuration's word for the level.
func (l TLSLevel) String() string {
	switch l {
	case TLSEncrypted:
		return "encrypted"
	case TLSAuthenticated:
		return "authenticated"
	}
	return "none"
}
