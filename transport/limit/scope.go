package limit

// Scope is what a limit counts by. The scopes stand in the order of the
// configuration's manual.
type Scope uint8

// The scopes. A new one needs its words in the table below, a place among
// narrowFirst, and keys of its own in the configuration's manual;
// configuration, status, metrics and texts take the rest from here.
const (
	All    Scope = iota // everything; its key is ""
	IP                  // one remote address
	Source              // one sender domain
	// one destination: a recipient domain, or the next hop in its place
	Destination
	// one provider, over all transports; its key is the provider's name
	Provider
	SourceIP // one of our own addresses
	Scopes   // how many of them can be configured
)

// narrowFirst is the order in which one call acquires the scopes: what waits
// for a narrow one keeps nothing of a wide one from others.
var narrowFirst = [Scopes]Scope{IP, SourceIP, Destination, Source, Provider, All}

// words are a scope's names.
type words struct {
	key  string // in the configuration, and in status and metrics
	noun string // for one of its keys, in texts for people
}

var scopes = [Scopes]words{
	All:         {"all", "all mail"},
	IP:          {"ip", "address"},
	Source:      {"source", "sender domain"},
	Destination: {"destination", "destination"},
	Provider:    {"provider", "provider"},
	SourceIP:    {"source_ip", "source address"},
}

// Word gives the scope's key in the configuration, which status and metrics
// use as well.
func (s Scope) Word() string {
	if int(s) >= len(scopes) {
		return "unknown"
	}
	return scopes[s].key
}

// String gives the word for one of the scope's keys, in texts for people.
func (s Scope) String() string {
	if int(s) >= len(scopes) {
		return "unknown"
	}
	return scopes[s].noun
}
