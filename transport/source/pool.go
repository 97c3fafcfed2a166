package source

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lookEvery is how often it is looked whether an address can be bound.
	lookEvery = time.Second
	// outFor is how long a source is left out that could not be bound for a
	// connection, though it looks as if it could.
	outFor = 10 * time.Second
	// maxReasons bounds the sources that the text of a None names.
	maxReasons = 3
)

// Options are what a Pool needs of the world.
type Options struct {
	// Daily counts for the sources that have a daily bound; nil: in memory.
	Daily *Daily
	// Bind tries whether this host can send from an address; nil: [Bind].
	Bind func(netip.Addr) error
	Now  func() time.Time // nil: time.Now
	// Logger is told of sources that go and come; nil: nobody is.
	Logger *slog.Logger
}

// Pool gives out sources. It is safe for concurrent use, and has no goroutine.
type Pool struct {
	by      By
	daily   *Daily
	bind    func(netip.Addr) error
	now     func() time.Time
	log     *slog.Logger
	all     []*member
	hashes  []uint64
	weights []int
}

// member is a source, and what is known of it now.
type member struct {
	Source
	name string

	mu     sync.Mutex
	looked time.Time    // when ips were found; zero: never
	ips    []netip.Addr // that can be bound
	err    error        // why others cannot; nil: all can
	out    time.Time    // until then it is left out, because of outErr
	outErr error
}

// New makes a pool, and looks which of its addresses this host has. One that
// it lacks is no error.
func New(cfg *Config, o Options) *Pool {
	p := &Pool{by: cfg.By, daily: o.Daily, bind: o.Bind, now: o.Now, log: o.Logger}
	if p.bind == nil {
		p.bind = Bind
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.daily == nil {
		p.daily, _ = OpenDaily("", p.now) // nothing is read
	}
	for _, s := range cfg.Pool {
		m := &member{Source: s, name: s.Name()}
		p.all = append(p.all, m)
		p.hashes, p.weights = append(p.hashes, hash(m.name)), append(p.weights, s.Weight)
		p.usable(m)
	}
	return p
}

// Bind tries whether this host can send from an address. Nothing is sent.
func Bind(addr netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return err
	}
	return c.Close()
}

// By is what keeps its source.
func (p *Pool) By() By { return p.by }

// Want is what a source is wanted for.
type Want struct {
	Key string // what keeps its source: By.Key
	// Addrs are those of the host; none: whatever they are. A source needs an
	// address of one of their families.
	Addrs []netip.Addr
	// Paused says why a receiver gets no mail from a source now; nil, or an
	// answer of nil: it does.
	Paused func(name string) error
	// Not are sources that will not do.
	Not []string
}

// Choice is a source that was chosen. The nil Choice is the transport's own
// addresses and name.
type Choice struct {
	Name     string
	Hostname string       // empty: the transport's
	IPs      []netip.Addr // that this host has now

	pool *Pool
	day  string // that it was counted on; empty: it was not
}

// Take chooses a source for a message and counts that, for a source with a
// daily bound. It is ended by Sent or Unsent. The error is a *None.
func (p *Pool) Take(w *Want) (*Choice, error) {
	return p.choose(w, func(m *member) (string, bool) { return p.daily.take(m.name, m.Daily) })
}

// Look tells which source a message would have now. Nothing is counted, and
// neither Sent nor Unsent is called. The error is a *None.
func (p *Pool) Look(w *Want) (*Choice, error) {
	return p.choose(w, func(m *member) (string, bool) { return "", p.daily.Sent(m.name) < m.Daily })
}

func (p *Pool) choose(w *Want, take func(*member) (day string, ok bool)) (chosen *Choice, err error) {
	none := &None{}
	rank(p.hashes, p.weights, w.Key, func(i int) bool {
		m := p.all[i]
		if slices.Contains(w.Not, m.name) {
			return false
		}
		ips, err := p.usable(m)
		switch {
		case len(ips) == 0:
			none.Out++
			none.say(m.name + ": " + err.Error())
			return false
		case !shareFamily(ips, w.Addrs):
			none.Families++
			none.say(m.name + " has no address of the host's family")
			return false
		}
		if w.Paused != nil {
			if err := w.Paused(m.name); err != nil {
				none.paused(err)
				return false
			}
		}
		day := ""
		if m.Daily > 0 {
			var ok bool
			if day, ok = take(m); !ok {
				none.Spent++
				none.say(fmt.Sprintf("%s has sent its %d messages of this UTC day", m.name, m.Daily))
				return false
			}
		}
		chosen = &Choice{Name: m.name, Hostname: m.Hostname, IPs: ips, pool: p, day: day}
		return true
	})
	if chosen == nil {
		return nil, none
	}
	return chosen, nil
}

// shareFamily reports whether something can be sent from one of ips to one of
// addrs, or whether that is not known as there are none.
func shareFamily(ips, addrs []netip.Addr) bool {
	for _, a := range addrs {
		for _, ip := range ips {
			if ip.Is4() == a.Unmap().Is4() {
				return true
			}
		}
	}
	return len(addrs) == 0
}

// Reaches tells the addresses that a connection from the source can lead to:
// those of its families. The nil Choice reaches all.
func (c *Choice) Reaches(addrs []netip.Addr) []netip.Addr {
	if c == nil {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !shareFamily(c.IPs, []netip.Addr{a}) })
}

// From gives the name of the source; empty for the nil Choice.
func (c *Choice) From() string {
	if c == nil {
		return ""
	}
	return c.Name
}

// Sent says that a server took the message.
func (c *Choice) Sent() {
	if c != nil {
		c.day = ""
	}
}

// Unsent says that no server took the message, unless Sent has said otherwise:
// it does not count. Calling it again does nothing.
func (c *Choice) Unsent() {
	if c == nil || c.day == "" {
		return
	}
	c.pool.daily.give(c.Name, c.day)
	c.day = ""
}

// Failed says that no connection could be made from the source, for a reason
// that lies with it. It is left out for a while.
func (c *Choice) Failed(err error) {
	for _, m := range c.pool.all {
		if m.name == c.Name {
			m.fail(c.pool, err)
		}
	}
}

func (m *member) fail(p *Pool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := p.now()
	if !now.Before(m.out) {
		p.log.Warn("a source address cannot be used, and is left out until it can", "source", m.name, "error", err)
	}
	m.out, m.outErr = now.Add(outFor), err
}

// usable gives the addresses of a source that can be bound now. With none the
// error says why; nil otherwise is no promise.
func (p *Pool) usable(m *member) ([]netip.Addr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := p.now()
	if now.Before(m.out) && m.out.Sub(now) <= outFor { // or the clock went back
		return nil, m.outErr
	}
	if since := now.Sub(m.looked); m.looked.IsZero() || since < 0 || since >= lookEvery {
		p.look(m)
		m.looked = now
	}
	return m.ips, m.err
}

// look finds the addresses of a source that can be bound, and tells of those
// that went or came. m.mu is held.
func (p *Pool) look(m *member) {
	var ips []netip.Addr
	var failed error
	for _, ip := range m.IPs {
		err := p.bind(ip)
		if err == nil {
			ips = append(ips, ip)
			continue
		}
		failed = fmt.Errorf("%s cannot be sent from: %w", ip, reason(err))
	}
	had := m.ips
	first := m.looked.IsZero()
	m.ips, m.err = ips, failed
	if !first && slices.Equal(had, ips) {
		return
	}
	switch {
	case failed != nil:
		p.log.Warn("a source address cannot be used, and is left out until it can", "source", m.name, "error", failed)
	case !first:
		p.log.Info("a source address can be used again", "source", m.name)
	}
}

// reason is the operating system's, without the address again.
func reason(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err
		}
		err = inner.Unwrap()
	}
}

// State is a source at a moment.
type State struct {
	Name     string
	IPs      []netip.Addr
	Hostname string // empty: the transport's
	Weight   int
	Daily    int // 0: no bound
	Sent     int // on this UTC day, where there is a bound
	// why it, or one of its addresses, is left out; empty: it is not
	Out string
	// Gone says that nothing can be sent from it; else Out is about one of two
	// addresses.
	Gone bool
}

// Spent reports whether it may send no more on this day.
func (s *State) Spent() bool { return s.Daily > 0 && s.Sent >= s.Daily }

// States gives the sources in the order of the configuration.
func (p *Pool) States() []State {
	all := make([]State, 0, len(p.all))
	for _, m := range p.all {
		s := State{Name: m.name, IPs: m.IPs, Hostname: m.Hostname, Weight: max(m.Weight, 1), Daily: m.Daily}
		if m.Daily > 0 {
			s.Sent = p.daily.Sent(m.name)
		}
		ips, err := p.usable(m)
		if s.Gone = len(ips) == 0; err != nil {
			s.Out = err.Error()
		}
		all = append(all, s)
	}
	return all
}

// None says why no source can be used.
type None struct {
	// how many sources cannot be bound, have no address of the host's families,
	// are paused, and have sent what they may on this day
	Out, Families, Paused, Spent int
	// Pause is why the first of those is paused that are; nil: none is.
	Pause error

	texts []string
	more  int
}

func (n *None) say(text string) {
	if len(n.texts) < maxReasons {
		n.texts = append(n.texts, text)
	} else {
		n.more++
	}
}

func (n *None) paused(err error) {
	n.Paused++
	n.Pause = cmp.Or(n.Pause, err)
	n.say(err.Error())
}

// Error names sources with their reasons, as far as there is room.
func (n *None) Error() string {
	text := "no source address is left: " + strings.Join(n.texts, "; ")
	if n.more > 0 {
		text += fmt.Sprintf("; and %d more", n.more)
	}
	if len(n.texts) == 0 {
		text = "no other source address is left"
	}
	return text
}

// Waits reports whether the message only has to wait: for another day, or for
// the end of a pause.
func (n *None) Waits() bool { return n.Paused > 0 || n.Spent > 0 }
