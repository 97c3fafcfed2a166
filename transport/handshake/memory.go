package handshake

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// How long what a host needs is remembered. It is short where TLS is required,
// since someone on the wire may have made it so.
const (
	rememberOpportunistic = 24 * time.Hour
	rememberRequired      = time.Hour
)

const (
	// maxRemembered bounds the hosts that are remembered, and with the length
	// of a host's name the bytes.
	maxRemembered = 10_000
	// hostCost is what a host takes beside its name, in bytes, and maxName
	// bounds the name.
	hostCost = 160
	maxName  = 253
)

// Memory remembers which hosts need a plainer hello, so that the better ones
// are tried in vain once and not with each connection. That a host took no
// hello at all is never remembered: the next connection tries them all again.
// It is safe for concurrent use.
type Memory struct {
	now func() time.Time

	mu    sync.Mutex
	hosts map[key]Remembered
}

type key struct {
	host  string
	floor Floor
}

// Remembered is what a host needs.
type Remembered struct {
	Host  string
	Floor Floor
	Step  Step
	Until time.Time
}

// NewMemory makes an empty Memory; now is the clock.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, hosts: map[key]Remembered{}}
}

// First gives the step to begin with.
func (m *Memory) First(host string, floor Floor) Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.hosts[key{host, floor}]
	if !ok {
		return Full
	}
	if !m.now().Before(r.Until) {
		delete(m.hosts, key{host, floor})
		return Full
	}
	return r.Step
}

// Worked notes the step by which a handshake came about. That it did so again
// does not make it be remembered for longer: from time to time the better ones
// are to have their chance.
func (m *Memory) Worked(host string, floor Floor, step Step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{host, floor}
	if step == Full {
		delete(m.hosts, k)
		return
	}
	now := m.now()
	if r, ok := m.hosts[k]; ok && r.Step == step && now.Before(r.Until) {
		return
	}
	if _, ok := m.hosts[k]; !ok && len(m.hosts) >= maxRemembered {
		m.makeRoom(now)
	}
	k.host = strings.Clone(host)
	life := rememberOpportunistic
	if floor == Required {
		life = rememberRequired
	}
	m.hosts[k] = Remembered{Host: k.host, Floor: floor, Step: step, Until: now.Add(life)}
}

// makeRoom forgets what is over, and when that is nothing a tenth of the rest,
// whichever: at worst some hosts are asked anew.
func (m *Memory) makeRoom(now time.Time) {
	for k, r := range m.hosts {
		if !now.Before(r.Until) {
			delete(m.hosts, k)
		}
	}
	if len(m.hosts) < maxRemembered {
		return
	}
	n := 0
	for k := range m.hosts {
		if n++; n > maxRemembered/10 {
			return
		}
		delete(m.hosts, k)
	}
}

// Forget forgets the hosts that match, and gives their number.
func (m *Memory) Forget(match func(host string) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for k := range m.hosts {
		if match(k.host) {
			delete(m.hosts, k)
			n++
		}
	}
	return n
}

// Usage is how much the hosts take that are remembered, in bytes.
func (m *Memory) Usage() cache.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := cache.Usage{Entries: len(m.hosts), MaxBytes: maxRemembered * (hostCost + maxName)}
	for k := range m.hosts {
		u.Bytes += hostCost + int64(len(k.host))
	}
	return u
}

// List gives what is remembered, by host.
func (m *Memory) List() []Remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var list []Remembered
	for _, r := range m.hosts {
		if now.Before(r.Until) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Remembered) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Floor, b.Floor))
	})
	return list
}
