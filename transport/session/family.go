package session

import "github.com/mxpipe/mxpipe/transport/dial"

// Family is a family of addresses, to be dialled first.
type Family = dial.Family

// The families.
const (
	AnyFamily = dial.AnyFamily
	IPv4      = dial.IPv4
	IPv6      = dial.IPv6
)
