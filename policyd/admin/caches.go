package admin

import (
	"maps"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// CacheList is what is remembered, by domain.
type CacheList struct {
	Policies []CachedPolicy `json:"mtasts"` // by domain
	Names    []CachedName   `json:"dns"`    // by name
}

// CachedPolicy is a domain's MTA-STS policy, as one cache has it.
type CachedPolicy struct {
	Domain string `json:"domain"`
	Dir    string `json:"dir,omitempty"` // of the cache; empty: memory
	MTASTS
}

// CachedName is a name about which the DNS cache has answers or failures.
type CachedName struct {
	Name    string    `json:"name"`
	Types   []string  `json:"types"`
	Expires time.Time `json:"expires"` // the first of them
}

// Cached is what is remembered about one domain and the names below it.
type Cached struct {
	Domain   string         `json:"domain"`
	Policies []CachedPolicy `json:"mtasts"`
	Answers  []Answer       `json:"dns"`
}

// Answer is an answer of the DNS, or its failure to give one.
type Answer struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// exists, no data, no such name, failed
	State  string `json:"state"`
	Signed bool   `json:"signed"` // DNSSEC vouches for it
	// the end of the name's aliases, where there are some
	Canonical string   `json:"canonical,omitempty"`
	Records   []string `json:"records"`
	// records beyond those that are kept
	Omitted int       `json:"omitted,omitempty"`
	Error   string    `json:"error,omitempty"` // why it failed
	Expires time.Time `json:"expires"`
}

// Flushed is how much was forgotten.
type Flushed struct {
	Policies int `json:"mtasts"`
	Answers  int `json:"dns"`
	Hellos   int `json:"hellos"` // hosts whose TLS had to be plainer
}

// TraceList is what is traced.
type TraceList struct {
	Traces []Trace `json:"traces"`
}

// Trace is a domain whose mail is logged in full.
type Trace struct {
	Domain string    `json:"domain"`
	Until  time.Time `json:"until"`
}

// NewCachedPolicy writes an entry of an MTA-STS cache in a directory.
func NewCachedPolicy(e *policycache.Entry, dir string) CachedPolicy {
	return CachedPolicy{clean(e.Domain), dir, *newMTASTS(e)}
}

// NewAnswer writes an answer of the DNS cache.
func NewAnswer(from *resolver.Answer) Answer {
	a := Answer{
		Name: name(from.Name), Type: from.Type.String(), State: from.Existence.String(),
		Signed: from.Secure, Records: []string{}, Omitted: from.Omitted, Expires: from.Expires.UTC(),
	}
	if from.Canonical != from.Name {
		a.Canonical = name(from.Canonical)
	}
	if from.Records != nil {
		for _, text := range from.Records.Strings() {
			a.Records = append(a.Records, clean(text))
		}
	}
	return a
}

// NewFailure writes a failure that the DNS cache remembers.
func NewFailure(e *resolver.Error) Answer {
	return Answer{
		Name: name(e.Name), Type: e.Type.String(), State: "failed", Records: []string{}, Error: clean(e.Error()), Expires: e.Expires.UTC(),
	}
}

// NewNames lists the names of answers and failures.
func NewNames(all []resolver.Answer, failures []*resolver.Error) []CachedName {
	byName := map[string]CachedName{}
	add := func(absolute string, qtype resolver.Type, expires time.Time) {
		n := byName[absolute]
		n.Types = append(n.Types, qtype.String())
		if n.Name == "" || expires.Before(n.Expires) {
			n.Expires = expires.UTC()
		}
		n.Name = name(absolute)
		byName[absolute] = n
	}
	for i := range all {
		add(all[i].Name, all[i].Type, all[i].Expires)
	}
	for _, e := range failures {
		add(e.Name, e.Type, e.Expires)
	}
	names := []CachedName{}
	for _, key := range slices.Sorted(maps.Keys(byName)) {
		slices.Sort(byName[key].Types)
		names = append(names, byName[key])
	}
	return names
}

// name is a domain name without its final dot.
func name(absolute string) string {
	if absolute == "." {
		return absolute
	}
	return clean(absolute[:max(0, len(absolute)-1)])
}

// traced lists the traces by domain.
func (s *Server) traced() TraceList { return TraceList{NewTraces(s.traces.List())} }

// NewTraces writes the traces by domain.
func NewTraces(until map[string]time.Time) []Trace {
	list := []Trace{}
	for _, domain := range slices.Sorted(maps.Keys(until)) {
		list = append(list, Trace{clean(domain), until[domain].UTC()})
	}
	return list
}
