package history

import (
	"encoding/binary"
	"iter"
	"time"
)

// An entry is remembered as bytes. Ten thousand of them as values with a dozen
// strings each would be a hundred thousand pointers, which the garbage
// collector follows at each of its rounds: a third of its work in a busy
// daemon.

// appendRecord writes the entry: strings and lists with their length before
// them, numbers as varints, in the order of Entry's fields.
func appendRecord(b []byte, e *Entry) []byte {
	b = binary.AppendVarint(b, e.At.UnixNano())
	for _, s := range e.strings() {
		b = appendString(b, *s)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Recipients)))
	for _, r := range e.Recipients {
		b = appendString(b, r)
	}
	b = binary.AppendVarint(b, int64(e.Count))
	reused := byte(0)
	if e.Reused {
		reused = 1
	}
	b = append(b, reused)
	b = binary.AppendVarint(b, int64(e.Took))
	b = binary.AppendUvarint(b, uint64(len(e.Phases)))
	for _, p := range e.Phases {
		b = appendString(b, p.Name)
		b = binary.AppendVarint(b, int64(p.Took))
	}
	return b
}

// strings are the entry's fields that are one string each.
func (e *Entry) strings() [15]*string {
	return [...]*string{
		&e.Transport, &e.ID, &e.QueueID, &e.Destination, &e.Provider, &e.Host, &e.Address, &e.Source, &e.Sender,
		&e.Code, &e.Text, &e.TLS, &e.TLSLevel, &e.MXLevel, &e.Via,
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// entryOf reads what appendRecord wrote.
func entryOf(record []byte) Entry {
	r := reader{record, string(record)}
	e := Entry{At: time.Unix(0, r.varint())}
	for _, s := range e.strings() {
		*s = r.string()
	}
	if n := r.uvarint(); n > 0 {
		e.Recipients = make([]string, n)
		for i := range e.Recipients {
			e.Recipients[i] = r.string()
		}
	}
	e.Count = int(r.varint())
	e.Reused = r.take(1) == "\x01"
	e.Took = Seconds(r.varint())
	if n := r.uvarint(); n > 0 {
		e.Phases = make([]Phase, n)
		for i := range e.Phases {
			e.Phases[i] = Phase{Name: r.string(), Took: Seconds(r.varint())}
		}
	}
	return e
}

// reader reads a record; the strings that it gives share its text's memory.
type reader struct {
	bytes []byte
	text  string // the same
}

func (r *reader) take(n int) string {
	s := r.text[:n]
	r.bytes, r.text = r.bytes[n:], r.text[n:]
	return s
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.bytes)
	r.take(n)
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.bytes)
	r.take(n)
	return v
}

func (r *reader) string() string { return r.take(int(r.uvarint())) }

// pageSize is how much room is asked for at once.
const pageSize = 64 << 10

// records are entries as bytes, the oldest first, each with its length before
// it. What was written is never changed, so that a copy of the value can be
// read while the original goes on.
type records struct {
	pages [][]byte
	from  int // where the oldest begins in the first page
	count int
	bytes int
}

// put adds a record at the end.
func (r *records) put(record []byte) {
	var prefix [binary.MaxVarintLen64]byte
	head := prefix[:binary.PutUvarint(prefix[:], uint64(len(record)))]
	size := len(head) + len(record)
	last := len(r.pages) - 1
	if last < 0 || cap(r.pages[last])-len(r.pages[last]) < size {
		r.pages = append(r.pages, make([]byte, 0, max(pageSize, size)))
		last++
	}
	r.pages[last] = append(append(r.pages[last], head...), record...)
	r.count++
	r.bytes += size
}

// drop lets the oldest go.
func (r *records) drop() {
	n, head := binary.Uvarint(r.pages[0][r.from:])
	size := head + int(n)
	r.from += size
	r.count--
	r.bytes -= size
	if r.from == len(r.pages[0]) {
		r.pages, r.from = r.pages[1:], 0
	}
}

// copy gives what is there now.
func (r *records) copy() records {
	now := *r
	now.pages = append([][]byte(nil), r.pages...)
	return now
}

// all gives each entry, the oldest first.
func (r *records) all() iter.Seq[*Entry] { return r.since(time.Time{}) }

// since gives each entry from a time on, the oldest first; the zero time is
// before all. What is older is not read beyond its time.
func (r *records) since(t time.Time) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		from := r.from
		for _, page := range r.pages {
			for from < len(page) {
				n, head := binary.Uvarint(page[from:])
				from += head
				record := page[from : from+int(n)]
				from += int(n)
				if at, _ := binary.Varint(record); !t.IsZero() && at < t.UnixNano() {
					continue
				}
				e := entryOf(record)
				if !yield(&e) {
					return
				}
			}
			from = 0
		}
	}
}
