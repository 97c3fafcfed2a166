package fetch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is the head start of each address over the next (RFC 8305
	// §5).
	attemptDelay = 250 * time.Millisecond
	// maxAddresses bounds how many addresses of a host are tried.
	maxAddresses = 8
)

var errNoAddresses = errors.New("the host has no addresses")

// race connects to the first of a host's addresses that answers. Families take
// turns; the next address is tried when the last failed or a quarter of a
// second after it (RFC 8305 §4, §5). All attempts have ended when it returns.
func (c *Client) race(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	addrs = interleave(addrs)
	if len(addrs) > maxAddresses {
		addrs = addrs[:maxAddresses]
	}
	if len(addrs) == 0 {
		return nil, errNoAddresses
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	dial := func(addr netip.Addr) {
		conn, err := c.cfg.Dial(ctx, "tcp", netip.AddrPortFrom(addr, c.cfg.Port).String())
		results <- result{conn, err}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var winner net.Conn
	var firstErr error
	for next, running := 0, 0; ; {
		if running == 0 && (winner != nil || ctx.Err() != nil || next == len(addrs)) {
			break
		}
		var start <-chan time.Time
		if winner == nil && ctx.Err() == nil && next < len(addrs) {
			start = timer.C
		}
		select {
		case <-start:
			go dial(addrs[next])
			next++
			running++
			timer.Reset(attemptDelay)
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				if firstErr == nil {
					firstErr = r.err
				}
				timer.Reset(0)
			case winner != nil:
				r.conn.Close()
			default:
				winner = r.conn
				cancel()
			}
		}
	}
	if winner != nil {
		return winner, nil
	}
	if firstErr == nil {
		firstErr = context.Cause(ctx)
	}
	return nil, firstErr
}

// interleave puts addresses of the two families in turn, the family of the
// first address first.
func interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() == addrs[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}
