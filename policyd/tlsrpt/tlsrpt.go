// Package tlsrpt hands the TLS outcome of deliveries over to a collector, which
// makes the daily reports of RFC 8460 of them. The collector listens on a unix
// datagram socket, as tlsrpt-collectd of the tlsrpt-reporter does, and gets one
// datagram for each delivery, in the protocol of libtlsrpt.
//
// What happens, in this order: a delivery's event is put into a queue, which
// is all that the delivery waits for. From there it is asked whether the event
// says anything about the domain's policies, and then whether the domain wants
// reports: whether its TXT record at _smtp._tls.DOMAIN says so, which the
// resolver's cache knows for all but the first. Then the datagram is sent.
//
// A datagram holds the policies that decided about the hosts that were tried:
// the TLSA records of one, the domain's MTA-STS policy, or that there is none;
// and under each what failed, and whether the delivery got through in the end.
// A policy in testing mode fails as one that is enforced would. A session is a
// connection (RFC 8460 §4.4): a delivery over one that carried an earlier
// message is not told. Reasons are the same for all that failed alike, so that
// a report has one entry for them, with a count.
//
// Not reported are deliveries to a next hop that the administrator or the mail
// server named, and messages with "TLS-Required: No": no policy of the domain
// was asked for; and hosts that were lost before TLS could be told (RFC 8460
// §4.3.4).
//
// Nothing waits for the collector. A full queue, a collector that is not there
// or does not keep up, and a record that cannot be looked up each cost a
// datagram, and are counted.
package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

const (
	// queued is how many deliveries wait to be handed over.
	queued = 4096
	// workers is how many records are looked up at once.
	workers = 8
	// lookupTimeout is how long a record may take.
	lookupTimeout = 30 * time.Second
	// patience is how long a collector may take that has no room for another
	// datagram: some kernels keep ten for it, and a burst is more.
	patience = time.Second
)

// Resolver looks up TXT records. *resolver.Resolver is one.
type Resolver interface {
	Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error)
}

// DropReason is why a delivery was not reported to a domain that may want it.
type DropReason uint8

// Why datagrams are dropped.
const (
	QueueFull DropReason = iota // more deliveries than could be handed over
	// it is not known whether the domain wants reports
	LookupFails
	// nothing listens at the socket, or it cannot be reached
	NoCollector
	Busy // the collector does not keep up
	// the datagram is larger than the socket takes
	TooLarge
	DropReasons // how many there are
)

// String gives a word for metrics and the log.
func (l DropReason) String() string {
	if l >= DropReasons {
		return "unknown"
	}
	return [DropReasons]string{"queue_full", "lookup", "no_collector", "collector_busy", "too_large"}[l]
}

// Stats are what was counted since New.
type Stats struct {
	Sent uint64              // datagrams that the collector's socket took
	Lost [DropReasons]uint64 // by DropReason
}

// Reporter hands deliveries over. It is safe for concurrent use. Make one with
// New, have it work with Start, and end it with Close.
type Reporter struct {
	log    *slog.Logger
	socket atomic.Pointer[string] // the collector's; empty: no reports
	fd     int                    // of our end
	queue  chan task
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	sent atomic.Uint64
	lost [DropReasons]atomic.Uint64
	// the last datagram did not reach the collector, and that was logged
	silent atomic.Bool
}

type task struct {
	event    *transport.Event
	resolver Resolver
}

// New makes a Reporter for the collector's socket; with an empty path nothing
// is handed over.
func New(socket string, log *slog.Logger) *Reporter {
	r := &Reporter{log: log, queue: make(chan task, queued)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.SetSocket(socket)
	return r
}

// Start has the Reporter work until Close. An error means that this host gives
// no socket. It is called once.
func (r *Reporter) Start() (err error) {
	if r.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	for range workers {
		r.work.Go(r.run)
	}
	return nil
}

// SetSocket changes where the collector is.
func (r *Reporter) SetSocket(path string) { r.socket.Store(&path) }

// Observer gives what a transport's events are to be brought to; records are
// looked up with that resolver.
func (r *Reporter) Observer(res Resolver) func(*transport.Event) {
	return func(e *transport.Event) {
		if *r.socket.Load() == "" || !reportable(e) {
			return
		}
		select {
		case r.queue <- task{e, res}:
		default:
			r.lost[QueueFull].Add(1)
		}
	}
}

// Stats gives the counters.
func (r *Reporter) Stats() Stats {
	s := Stats{Sent: r.sent.Load()}
	for i := range r.lost {
		s.Lost[i] = r.lost[i].Load()
	}
	return s
}

// Close hands over what is in the queue, as far as no record has to be waited
// for, and waits for the end. It is called once, after Start; nothing may be
// observed any more.
func (r *Reporter) Close() {
	close(r.queue)
	r.cancel()
	r.work.Wait()
	unix.Close(r.fd)
}

func (r *Reporter) run() {
	for t := range r.queue {
		r.handOver(t)
	}
}

// handOver reports one delivery, if there is something to report and the
// domain wants to know.
func (r *Reporter) handOver(t task) {
	policies := report(t.event)
	if len(policies) == 0 {
		return
	}
	domain := t.event.Destination.Domain
	record, ok, err := r.record(t.resolver, domain)
	if err != nil {
		r.lost[LookupFails].Add(1)
		r.log.Debug("cannot look up whether a domain wants TLS reports", "domain", domain, "error", err)
		return
	}
	if !ok {
		return
	}
	socket := *r.socket.Load()
	if socket == "" {
		return // since it was queued
	}
	text, err := json.Marshal(datagram{protocolVersion, domain, record, policies})
	if err == nil {
		err = r.send(socket, text)
	}
	r.note(socket, err)
}

// record finds out whether a domain wants reports.
func (r *Reporter) record(res Resolver, domain string) (string, bool, error) {
	ctx, cancel := context.WithTimeout(r.ctx, lookupTimeout)
	defer cancel()
	answer, err := res.Lookup(ctx, recordName(domain), resolver.TypeTXT)
	if err != nil {
		return "", false, err
	}
	record, ok := findRecord(answer.Texts())
	return record, ok, nil
}

// send sends a datagram. It goes by the path each time, so that a collector
// that was started anew is found. Only a worker waits for one that is busy.
func (r *Reporter) send(socket string, text []byte) error {
	for waited, pause := time.Duration(0), time.Millisecond; ; pause = min(2*pause, patience/10) {
		err := unix.Sendto(r.fd, text, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: socket})
		if dropReasonOf(err) != Busy || waited >= patience {
			return err
		}
		select {
		case <-time.After(pause):
			waited += pause
		case <-r.ctx.Done():
			return err
		}
	}
}

// dropReasonOf sorts the errors of a send.
func dropReasonOf(err error) DropReason {
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return Busy
	case errors.Is(err, unix.EMSGSIZE):
		return TooLarge
	}
	return NoCollector
}

// note counts a datagram. That there is no collector is logged once, and that
// it is there again.
func (r *Reporter) note(socket string, err error) {
	if err == nil {
		r.sent.Add(1)
		if r.silent.CompareAndSwap(true, false) {
			r.log.Info("the TLSRPT collector is back")
		}
		return
	}
	loss := dropReasonOf(err)
	r.lost[loss].Add(1)
	switch loss {
	case Busy:
		r.log.Warn("TLS reports lost: the collector does not keep up", "socket", socket)
	case TooLarge:
		r.log.Warn("TLS reports lost: the datagram is too large for the collector's socket", "socket", socket)
	default:
		if r.silent.CompareAndSwap(false, true) {
			r.log.Warn("TLS reports lost: no collector", "socket", socket, "error", err)
		}
	}
}
