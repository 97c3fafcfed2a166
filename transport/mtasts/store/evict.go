package store

import (
	"cmp"
	"container/heap"
	"errors"
	"math/bits"
	"os"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/transport/registrable"
)

// stored is a file of ours.
type stored struct {
	domain  string
	size    int64
	written time.Time
}

// evict counts the files and removes some when there are too many, down to nine
// tenths, so that it is done once in a thousand times. It also clears away what
// a crash left half-written.
func (f *FS) evict(root *os.Root) error {
	files, err := f.ours(root)
	n, bytes := len(files), int64(0)
	for _, file := range files {
		bytes += file.size
	}
	if n > f.cfg.MaxFiles || bytes > f.cfg.MaxBytes {
		maxFiles, maxBytes := max(1, f.cfg.MaxFiles*9/10), f.cfg.MaxBytes*9/10
		queue := holdersOf(files, f.cfg.MaxBytes/int64(f.cfg.MaxFiles))
		for n > 1 && (n > maxFiles || bytes > maxBytes) {
			gone := queue.next()
			if removeErr := root.RemoveAll(gone.domain + suffix); removeErr != nil {
				err = errors.Join(err, removeErr)
				break
			}
			n--
			bytes -= gone.size
		}
	}
	f.mu.Lock()
	f.counted, f.sweep, f.files, f.bytes = err == nil, false, n, bytes
	f.mu.Unlock()
	return err
}

// holder is a registrable domain with the files of the domains below it, the
// oldest first.
type holder struct {
	files []stored
	cost  int64
	// what a file costs at least: its share of all that may lie there
	share int64
}

// fewFiles are how many files' shares a holder has before it counts as one that
// holds much.
const fewFiles = 8

// class sorts holders by what they hold: alike up to a few files, and by powers
// of two from there on. Among equals age decides, as it does where each domain
// is its own holder.
func (h *holder) class() int { return bits.Len64(uint64(h.cost / max(1, fewFiles*h.share))) }

// holders have the one whose oldest file is to go first at the head. It is a
// heap.Interface.
type holders []*holder

// holdersOf sorts files by who holds them.
func holdersOf(files []stored, share int64) *holders {
	byDomain := map[string]*holder{}
	var queue holders
	slices.SortFunc(files, func(a, b stored) int {
		return cmp.Or(a.written.Compare(b.written), cmp.Compare(b.domain, a.domain))
	})
	for _, file := range files {
		domain := registrable.Domain(file.domain)
		h := byDomain[domain]
		if h == nil {
			h = &holder{share: share}
			byDomain[domain] = h
			queue = append(queue, h)
		}
		h.files = append(h.files, file)
		h.cost += max(file.size, share)
	}
	heap.Init(&queue)
	return &queue
}

// next takes out the file to remove: the oldest of the holder that holds most.
func (q *holders) next() stored {
	h := (*q)[0]
	file := h.files[0]
	h.files = h.files[1:]
	h.cost -= max(file.size, h.share)
	if len(h.files) == 0 {
		heap.Pop(q)
	} else {
		heap.Fix(q, 0)
	}
	return file
}

// Len is for package heap, as are those below.
func (q holders) Len() int { return len(q) }

// Less has those that hold most first, and of those alike the one with the
// oldest file.
func (q holders) Less(i, j int) bool {
	a, b := q[i], q[j]
	if ca, cb := a.class(), b.class(); ca != cb {
		return ca > cb
	}
	return a.files[0].written.Before(b.files[0].written)
}

func (q holders) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is never called: holders only go.
func (q *holders) Push(x any) { *q = append(*q, x.(*holder)) }

// Pop takes out the last.
func (q *holders) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	*q = (*q)[:last]
	return h
}
