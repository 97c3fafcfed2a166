// Package dial connects to one of a host's addresses. It looks at nothing but
// the addresses handed in: it asks no resolver and knows no names.
//
// The addresses are raced in the spirit of RFC 8305, in the order that [Order]
// gives. An attempt is followed by the next one after 250 ms, or at once when
// an attempt fails. The first connection wins; the other attempts are
// cancelled, waited for, and what they still brought is closed. A [History]
// remembers which address worked where others did not.
//
// A source address pins its own family only, as Postfix's smtp_bind_address
// and smtp_bind_address6 do: towards addresses of a family that has no source
// address configured, the kernel chooses. Who wants one family alone has
// force_ipv4, or gives source addresses of both. A source address that this
// host does not have fails the attempt; nothing ever leaves from another one
// in its place. That, like any other trouble of this host, is a [LocalError]:
// nothing follows from it for the remote host.
package dial

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MaxAddresses is how many addresses one Dial tries.
const MaxAddresses = 20

// delay is the Connection Attempt Delay of RFC 8305 §5.
const delay = 250 * time.Millisecond

// Connect opens one TCP connection. The zero local leaves the source address
// to the kernel.
type Connect func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)

// Dialer connects. The zero Dialer is ready for use; it is safe for concurrent
// use as long as its fields are not changed.
type Dialer struct {
	LocalIPs []netip.Addr  // source addresses, at most one of each family
	Prefer   Family        // is dialled first
	First    netip.Addr    // is dialled before all others, if it is among them
	Delay    time.Duration // between two attempts; 0 means 250 ms
	Connect  Connect       // nil means TCP of this host
	// Through is what Connect connects through, in words; empty: nothing. What
	// fails then is our own trouble.
	Through string
}

// ErrNoAddress says that there was nothing to connect to.
var ErrNoAddress = errors.New("no address to connect to")

// Dial connects to the first of addrs that accepts, at port, and tells which
// it was, so that the caller can try the others when the server there is not
// fit. ctx bounds it all; it has no other time limit. The error is an *Error,
// and temporary.
func (d *Dialer) Dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, netip.Addr, error) {
	order := Order(addrs, d.Prefer, d.First)
	if len(order) > MaxAddresses {
		order = order[:MaxAddresses]
	}
	r := race{d: d, port: port, results: make(chan result, len(order))}
	won := r.run(ctx, order)
	if won.conn != nil {
		return won.conn, won.addr, nil
	}
	failed := &Error{Port: port, Through: d.Through, Attempts: r.failures}
	switch {
	case ctx.Err() != nil:
		failed.Cause = context.Cause(ctx)
	case len(order) == 0:
		failed.Cause = ErrNoAddress
	}
	return nil, netip.Addr{}, failed
}

// race is one Dial.
type race struct {
	d        *Dialer
	port     uint16
	results  chan result
	running  int
	failures []Attempt
}

type result struct {
	addr netip.Addr
	conn net.Conn
	err  error
}

// run starts the attempts and returns the winner, or the zero result. No
// attempt is left when it returns.
func (r *race) run(ctx context.Context, order []netip.Addr) (won result) {
	ctx, cancel := context.WithCancel(ctx)
	defer r.drain(ctx)
	defer cancel()
	pause := r.d.Delay
	if pause <= 0 {
		pause = delay
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := timer.C
		if len(order) == 0 {
			if r.running == 0 {
				return result{}
			}
			next = nil
		}
		select {
		case <-ctx.Done():
			return result{}
		case <-next:
			r.start(ctx, order[0])
			order = order[1:]
			timer.Reset(pause)
		case got := <-r.results:
			r.running--
			if got.err == nil {
				return got
			}
			r.failures = append(r.failures, Attempt{got.addr, got.err})
			timer.Reset(0)
		}
	}
}

func (r *race) start(ctx context.Context, addr netip.Addr) {
	r.running++
	connect := r.d.Connect
	if connect == nil {
		connect = TCP
	}
	go func() {
		conn, err := connect(ctx, r.d.source(addr), netip.AddrPortFrom(addr, r.port))
		r.results <- result{addr, conn, err}
	}()
}

// drain waits for the attempts that lost, and closes what they brought.
func (r *race) drain(ctx context.Context) {
	for ; r.running > 0; r.running-- {
		lost := <-r.results
		if lost.err == nil {
			// Nothing was said over it, so nothing can be lost with it.
			_ = lost.conn.Close()
			lost.err = ctx.Err()
		}
		r.failures = append(r.failures, Attempt{lost.addr, lost.err})
	}
}

// source gives the source address towards addr; the zero Addr is the kernel's
// choice.
func (d *Dialer) source(addr netip.Addr) netip.Addr {
	for _, local := range d.LocalIPs {
		if local.Unmap().Is4() == addr.Is4() {
			return local.Unmap()
		}
	}
	return netip.Addr{}
}

// TCP is the Connect of this host. What this host is to blame for is a
// *LocalError.
func TCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	var from netip.AddrPort
	if local.IsValid() {
		from = netip.AddrPortFrom(local, 0)
	}
	conn, err := dialer.DialTCP(ctx, "tcp", from, remote)
	if err != nil {
		if what := localTrouble(err, local); what != "" {
			return nil, &LocalError{What: what, Err: err, Source: local.IsValid() && sourceFails(err)}
		}
		return nil, err // not a *net.TCPConn of nil in a net.Conn
	}
	return conn, nil
}

// Leaves gives the address of ours that the kernel chooses for connections to
// remote; it is not valid where there is no way there. Nothing is sent.
func Leaves(remote netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(remote))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// Error is a host none of whose addresses could be connected to. It is
// temporary: the caller tries another host, or later.
type Error struct {
	Port     uint16
	Through  string    // as in the Dialer
	Attempts []Attempt // in the order in which they ended
	// why it ended early; nil when every address had its turn
	Cause error
}

// Attempt is one address and why it could not be connected to.
type Attempt struct {
	Addr netip.Addr
	Err  error
}

// maxText bounds the text of an Error.
const maxText = 400

// Error names each address with its reason, as far as there is room.
func (e *Error) Error() string {
	var b strings.Builder
	// Of an end by time the attempts tell, too.
	if e.Cause != nil && (len(e.Attempts) == 0 || !errors.Is(e.Cause, context.DeadlineExceeded)) {
		if e.Through != "" {
			b.WriteString("through " + e.Through + ": ")
		}
		b.WriteString(reason(e.Cause))
	}
	// Which of them ended first differs from one delivery to the next.
	attempts := slices.SortedFunc(slices.Values(e.Attempts), func(a, b Attempt) int {
		return cmp.Or(b.Addr.BitLen()-a.Addr.BitLen(), a.Addr.Compare(b.Addr))
	})
	for i, a := range attempts {
		text := netip.AddrPortFrom(a.Addr, e.Port).String() + ": " + reason(a.Err)
		if b.Len()+len(text) > maxText {
			b.WriteString("; and " + strconv.Itoa(len(e.Attempts)-i) + " more addresses")
			break
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	if b.Len() == 0 {
		return ErrNoAddress.Error()
	}
	return b.String()
}

// Unwrap returns the cause and the attempts' errors.
func (e *Error) Unwrap() []error {
	var list []error
	if e.Cause != nil {
		list = append(list, e.Cause)
	}
	for _, a := range e.Attempts {
		list = append(list, a.Err)
	}
	return list
}

// Timeout reports whether time ran out: for all of it, or for each address.
func (e *Error) Timeout() bool {
	if e.Cause != nil {
		return errors.Is(e.Cause, context.DeadlineExceeded)
	}
	for _, a := range e.Attempts {
		if !timedOut(a.Err) {
			return false
		}
	}
	return len(e.Attempts) > 0
}

// reason says in few words why an attempt failed. The errors of package net
// repeat the address.
func reason(err error) string {
	var errno syscall.Errno
	var ours *LocalError
	text := err.Error()
	switch {
	case errors.As(err, &ours):
		text = ours.What
	case timedOut(err):
		text = "timed out"
	case errors.Is(err, context.Canceled):
		text = "cancelled"
	case errors.As(err, &errno):
		text = errno.Error()
	}
	if len(text) > maxText/2 {
		text = text[:maxText/2] + "..."
	}
	return text
}

func timedOut(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}
