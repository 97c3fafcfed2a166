package pool

import "time"

// entry is one idle connection. It stands in three chains and in the heap of
// expiries, and holds its own links, so that leaving any of them is cheap.
type entry[C Conn] struct {
	conn    C
	key     Key
	domain  string
	expires time.Time
	place   int // in the heap
	links   [orders]struct{ newer, older *entry[C] }
}

// order is one of the chains that an entry stands in.
type order uint8

const (
	byHost   order = iota // with the others of its Key
	byDomain              // with the others that served its domain last
	byAge                 // with all others
	orders
)

// chain is a list of entries from the newest to the oldest.
type chain[C Conn] struct {
	order          order
	newest, oldest *entry[C]
	n              int
}

// push adds an entry as the newest.
func (c *chain[C]) push(e *entry[C]) {
	e.links[c.order].older = c.newest
	if c.newest != nil {
		c.newest.links[c.order].newer = e
	} else {
		c.oldest = e
	}
	c.newest = e
	c.n++
}

// remove takes out an entry of this chain.
func (c *chain[C]) remove(e *entry[C]) {
	l := &e.links[c.order]
	if l.newer != nil {
		l.newer.links[c.order].older = l.older
	} else {
		c.newest = l.older
	}
	if l.older != nil {
		l.older.links[c.order].newer = l.newer
	} else {
		c.oldest = l.newer
	}
	l.newer, l.older = nil, nil
	c.n--
}

// join adds an entry to the chain of a key, which is made when it is missing.
func join[K comparable, C Conn](chains map[K]*chain[C], key K, o order, e *entry[C]) {
	c := chains[key]
	if c == nil {
		c = &chain[C]{order: o}
		chains[key] = c
	}
	c.push(e)
}

// leave takes an entry out of the chain of its key, which goes with the last.
func leave[K comparable, C Conn](chains map[K]*chain[C], key K, e *entry[C]) {
	c := chains[key]
	c.remove(e)
	if c.n == 0 {
		delete(chains, key)
	}
}

// expiryHeap has the entry that expires first at its head. It is a
// heap.Interface.
type expiryHeap[C Conn] []*entry[C]

func (h expiryHeap[C]) Len() int           { return len(h) }
func (h expiryHeap[C]) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h expiryHeap[C]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is for package heap.
func (h *expiryHeap[C]) Push(x any) {
	e := x.(*entry[C])
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop is for package heap.
func (h *expiryHeap[C]) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
