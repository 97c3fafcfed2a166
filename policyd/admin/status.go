package admin

import (
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

// Status is what the daemon is doing.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	UID     int       `json:"uid"`
	Started time.Time `json:"started"`
	// when the configuration in force was read
	Configured time.Time `json:"configured"`
	// when a changed one with mistakes was read since
	Rejected      *time.Time `json:"rejected,omitempty"`
	MaxDeliveries int        `json:"max_deliveries"`
	// that have a place among max_deliveries
	Messages int `json:"messages"`
	// messages that are coming in, or wait for a place
	Uploads int `json:"uploads"`
	// of which should have ended long ago
	Overdue    int         `json:"overdue"`
	Memory     []Memory    `json:"memory"` // what is remembered or held
	Resolver   Resolver    `json:"resolver"`
	Policies   []Policies  `json:"mtasts"`
	Transports []Transport `json:"transports"` // by name
	Traces     []Trace     `json:"traces"`
	Warnings   []string    `json:"warnings"`  // what is wrong with the DNS
	Suspended  []Suspended `json:"suspended"` // by hand
	Pauses     []Paused    `json:"pauses"`    // that receivers asked for
	History    HistorySize `json:"history"`
	TLSReports *TLSReports `json:"tls_reports,omitempty"` // nil: none are sent
}

// TLSReports are the daily reports, since the start.
type TLSReports struct {
	Domains int    `json:"domains"` // that are counted today
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"failed"`  // tries
	Waiting int    `json:"waiting"` // places that are tried again
	Lost    uint64 `json:"lost"`    // sessions that are not counted
}

// Memory is how much of its bound something takes that the daemon remembers or
// holds, over all transports.
type Memory struct {
	Name     string `json:"name"`
	Entries  int    `json:"entries"`
	Bytes    int64  `json:"bytes"`     // that they take
	MaxBytes int64  `json:"max_bytes"` // that they may take
}

// Resolver is the DNS cache.
type Resolver struct {
	Servers   []string `json:"servers"`
	Entries   int      `json:"entries"`
	Hits      uint64   `json:"hits"`
	Misses    uint64   `json:"misses"`
	Refreshes uint64   `json:"refreshes"`
	Failures  uint64   `json:"failures"`
	Bytes     int64    `json:"bytes"`     // that the entries take
	MaxBytes  int64    `json:"max_bytes"` // that they may take
}

// Policies is one MTA-STS cache; transports share one where they can.
type Policies struct {
	Dir string `json:"dir,omitempty"` // empty: in memory
	// remembered, with or without a policy
	Domains   int    `json:"domains"`
	Lookups   uint64 `json:"lookups"`
	Hits      uint64 `json:"hits"`
	Fetches   uint64 `json:"fetches"`
	Refreshes uint64 `json:"refreshes"`
	Failures  uint64 `json:"failures"`
	Store     uint64 `json:"store_failures"`
}

// Transport is what one transport is doing.
type Transport struct {
	Name string `json:"name"`
	// of a configuration before the one in force; it ends with its deliveries
	Former bool `json:"former,omitempty"`
	// under way, the oldest first
	Deliveries []Delivery   `json:"deliveries"`
	Idle       int          `json:"idle_connections"`
	Reused     uint64       `json:"reused"` // deliveries that found one
	Missed     uint64       `json:"missed"` // deliveries that found none
	Hosts      []Idle       `json:"idle"`   // by host, the most first
	Dead       []Dead       `json:"dead"`
	Slowed     []Slowed     `json:"slowed"`
	Hellos     []Hello      `json:"hellos"`
	Limits     []LimitState `json:"limits"`
	Sources    []Source     `json:"sources"` // that mail leaves from
}

// Source is an address that mail leaves from, of a pool.
type Source struct {
	Override  string   `json:"override,omitempty"`
	Name      string   `json:"name"` // the first of Addresses that is IPv4
	Addresses []string `json:"addresses"`
	Hostname  string   `json:"hostname,omitempty"` // in EHLO
	Weight    int      `json:"weight"`
	Daily     int      `json:"daily,omitempty"` // messages on one UTC day
	// on this UTC day, where there is a bound
	Sent int `json:"sent"`
	// why it, or one of its addresses, is left out
	Out string `json:"out,omitempty"`
}

// Delivery is the recipients of one message at one destination.
type Delivery struct {
	ID          string    `json:"id"`
	QueueID     string    `json:"queue_id,omitempty"`
	Destination string    `json:"destination"`
	Host        string    `json:"host,omitempty"` // that it is dealing with
	Recipients  int       `json:"recipients"`
	Since       time.Time `json:"since"`
}

// Idle is the idle connections to one host.
type Idle struct {
	Host  string `json:"host"`
	Port  uint16 `json:"port"`
	Count int    `json:"count"`
}

// Slowed is a host that complained of too many connections.
type Slowed struct {
	Host    string `json:"host"`
	Allowed int    `json:"allowed"` // at once, now
	Open    int    `json:"open"`
	Waiting int    `json:"waiting"`
}

// Hello is a host with which TLS begins plainer than with others.
type Hello struct {
	Host  string    `json:"host"`
	Floor string    `json:"floor"` // opportunistic or required
	Hello string    `json:"hello"` // classical, compatible or without-sni
	Until time.Time `json:"until"`
}

// LimitState is what a limit has to do, over all of its keys.
type LimitState struct {
	Override string `json:"override,omitempty"`
	Scope    string `json:"scope"` // as in the configuration
	Keys     int    `json:"keys"`
	Open     int    `json:"open"`
	Waiting  int    `json:"waiting"`
	Late     uint64 `json:"late"` // turns that did not come in time
}

// NewTransport writes a transport's snapshot as JSON has it.
func NewTransport(from transport.Snapshot) Transport {
	t := Transport{
		Name: from.Name, Idle: from.Idle.Idle, Reused: from.Idle.Reused, Missed: from.Idle.Missed,
		Deliveries: []Delivery{}, Hosts: []Idle{}, Dead: []Dead{}, Slowed: []Slowed{}, Hellos: []Hello{}, Limits: []LimitState{}, Sources: []Source{},
	}
	for _, u := range from.InProgress {
		t.Deliveries = append(t.Deliveries, Delivery{u.ID, clean(u.QueueID), clean(u.Destination), clean(u.Host), u.Recipients, u.Since.UTC()})
	}
	for _, h := range from.IdleHosts {
		t.Hosts = append(t.Hosts, Idle{clean(h.Host), h.Port, h.Count})
	}
	for i := range from.Dead {
		t.Dead = append(t.Dead, *deadOf(&from.Dead[i], from.Dead[i].Host))
	}
	for _, p := range from.Slowed {
		t.Slowed = append(t.Slowed, Slowed{clean(p.Host), p.Allowed, p.Open, p.Waiting})
	}
	for _, h := range from.Hellos {
		t.Hellos = append(t.Hellos, Hello{clean(h.Host), h.Floor.String(), h.Step.String(), h.Until.UTC()})
	}
	for _, s := range from.Sources {
		one := Source{s.Override, s.Name, []string{}, s.Hostname, s.Weight, s.Daily, s.Sent, clean(s.Out)}
		for _, ip := range s.IPs {
			one.Addresses = append(one.Addresses, ip.String())
		}
		t.Sources = append(t.Sources, one)
	}
	for _, l := range from.Limits {
		t.Limits = append(t.Limits, LimitState{l.Override, l.Scope.Word(), l.Keys, l.Open, l.Waiting, l.Late})
	}
	return t
}
