package history

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func entry(i int) Entry {
	return Entry{
		At: noon.Add(time.Duration(i) * time.Second), Transport: "default", ID: fmt.Sprint("id", i), QueueID: fmt.Sprint("Q", i),
		Destination: fmt.Sprintf("d%d.example", i%3), Provider: "big", Host: "mx.example.net", Code: "2.0.0", Text: "250 ok",
		Sender: "me@us.example", Recipients: []string{"you@d.example"}, Count: 1, Took: Seconds(time.Duration(i) * time.Millisecond),
	}
}

func fill(h *History, n int) {
	for i := range n {
		h.Add(entry(i))
	}
}

func TestBounds(t *testing.T) {
	h := New(Options{})
	fill(h, 10_001)
	if s := h.Stats(); s.Entries != 10_000 || s.MaxBytes != 16<<20 || s.Total != 10_001 || s.Bytes > s.MaxBytes {
		t.Errorf("%+v", s)
	}
	if list, more := h.Find(Query{Limit: 2}); more != 9998 || list[0].ID != "id10000" || list[1].ID != "id9999" {
		t.Error(list, more)
	}
	h = New(Options{Memory: 100_000})
	for i := range 5000 {
		e := entry(i)
		e.Text = strings.Repeat("x", i)
		e.Recipients = make([]string, 100)
		h.Add(e)
		if s := h.Stats(); s.Bytes > 100_000 || s.Entries == 0 {
			t.Fatalf("%d: %+v", i, s)
		}
	}
	sum := 0
	var prefix [binary.MaxVarintLen64]byte
	for _, e := range first(h.Find(Query{})) {
		n := len(appendRecord(nil, &e))
		sum += n + binary.PutUvarint(prefix[:], uint64(n))
		if len(e.Text) > 500 || len(e.Recipients) > 20 {
			t.Fatal(len(e.Text), len(e.Recipients))
		}
	}
	if s := h.Stats(); s.Bytes != sum {
		t.Errorf("%d bytes, counted as %d", sum, s.Bytes)
	}
	h.SetOptions(Options{Entries: 3})
	if s := h.Stats(); s.Entries != 3 {
		t.Errorf("%+v", s)
	}
	fill(h, 10)
	if s := h.Stats(); s.Entries != 3 {
		t.Errorf("%+v", s)
	}
}

func first(list []Entry, _ int) []Entry { return list }

// An entry comes back as it went in, whatever is in it and however many there
// are.
func TestRecords(t *testing.T) {
	full := entry(7)
	full.Address, full.Source, full.TLS, full.TLSLevel, full.MXLevel, full.Via = "192.0.2.1", "192.0.2.9", "TLS1.3", "authenticated", "dnssec", "relay.example"
	full.Reused, full.Count, full.Recipients = true, 3, []string{"a@b", "", "\x00\xff\n"}
	full.Phases = []Phase{{"dns", 1}, {"send", Seconds(time.Hour)}}
	full.Text = strings.Repeat("x", 300)
	want := []Entry{{At: noon}, full, {At: noon, Took: -5, Count: -1}}
	var r records
	for range 1000 {
		for i := range want {
			r.put(appendRecord(nil, &want[i]))
		}
	}
	for i := range 2000 {
		if n := 3000 - i; r.count != n {
			t.Fatalf("%d, want %d", r.count, n)
		}
		r.drop()
	}
	i := 2000
	for got := range r.all() {
		if want := want[i%3]; !got.At.Equal(want.At) {
			t.Fatalf("%v, want %v", got.At, want.At)
		} else if got.At = want.At; !reflect.DeepEqual(*got, want) {
			t.Fatalf("%+v, want %+v", *got, want)
		}
		i++
	}
	if i != 3000 {
		t.Error(i)
	}
	for r.count > 0 {
		r.drop()
	}
	if r.bytes != 0 || len(r.pages) != 0 {
		t.Error(r.bytes, len(r.pages))
	}
}

// No local part is kept of any address that a text names.
func TestHide(t *testing.T) {
	for text, want := range map[string]string{
		"550 5.1.1 <jane.doe@d9.example>: no such user":                 "550 5.1.1 <@d9.example>: no such user",
		"550 Mailbox of jane.doe (JANE.DOE@D9.example; try later)":      "550 Mailbox of … (@D9.example; try later)",
		"450 <other.one@two.example> is over quota, Jane.Doe":           "450 <@two.example> is over quota, …",
		"250 2.0.0 Ok: queued as 4XyZ":                                  "250 2.0.0 Ok: queued as 4XyZ",
		"550 jane.doers and xjane.doe are others, as is jane.doe\u00e9": "550 jane.doers and xjane.doe are others, as is jane.doe\u00e9",
	} {
		e := Entry{Recipients: []string{"jane.doe@d9.example"}, Text: text}
		if e.hide(); e.Text != want {
			t.Errorf("%q is kept as %q, want %q", text, e.Text, want)
		}
	}
}

func TestFind(t *testing.T) {
	h := New(Options{})
	fill(h, 30)
	late := entry(40)
	late.Code, late.Text, late.Destination, late.Host, late.Provider = "4.4.1", "timed out", "sub.slow.example", "mx.slow.example", "slow.example"
	h.Add(late)
	for _, c := range []struct {
		q    Query
		want int
	}{
		{Query{}, 31},
		{Query{Failed: true}, 1},
		{Query{What: "d1.example"}, 10},
		{Query{What: "mx.example.net"}, 30},
		{Query{What: "big"}, 30},
		{Query{What: "big", Failed: true}, 0},
		{Query{What: "slow.example"}, 1},
		{Query{What: ".slow.example"}, 1},
		{Query{What: "Q7"}, 1},
		{Query{What: "none.example"}, 0},
		{Query{Since: noon.Add(29 * time.Second)}, 2},
	} {
		if list, _ := h.Find(c.q); len(list) != c.want {
			t.Errorf("%+v: %d, want %d", c.q, len(list), c.want)
		}
	}
	by := h.Summarise(Query{}, ByDestination)
	if len(by) != 4 || by[0].Name != "sub.slow.example" || by[0].Deferred != 1 || by[0].LastText != "timed out" || by[1].Messages != 10 {
		t.Errorf("%+v", by)
	}
	by = h.Summarise(Query{}, ByProvider)
	if len(by) != 2 || by[1].Name != "big" || by[1].Delivered != 30 || by[1].Median != Seconds(15*time.Millisecond) || by[1].Slowest != Seconds(29*time.Millisecond) {
		t.Errorf("%+v", by)
	}
	if by[1].LastHost != "mx.example.net" || by[1].LastProvider != "big" || by[1].Reused != 0 {
		t.Errorf("%+v", by[1])
	}
	open := entry(41)
	open.Reused, open.Host, open.Provider = true, "", ""
	h.Add(open)
	by = h.Summarise(Query{}, Together)
	if len(by) != 1 || by[0].Name != "" || by[0].Messages != 32 || by[0].Delivered != 31 || by[0].Deferred != 1 || by[0].Reused != 1 || by[0].LastHost != "mx.slow.example" {
		t.Errorf("%+v", by)
	}
	if s := h.Stats(); !s.Oldest.Equal(noon) {
		t.Errorf("%+v", s)
	}
	minutes := h.Minutes(noon.Add(65*time.Second), 3)
	if len(minutes) != 3 || !minutes[1].At.Equal(noon) || minutes[1].Delivered != 31 || minutes[1].Deferred != 1 || minutes[2].Delivered != 0 {
		t.Errorf("%+v", minutes)
	}
}

// TestAddresses: without leave no local part is kept, in memory or on disk,
// not even in what a server repeats.
func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	h, err := Open(dir, Options{Addresses: true})
	if err != nil {
		t.Fatal(err)
	}
	add := func() {
		e := entry(1)
		e.Text = "550 5.1.1 <you@d.example>: no such user"
		e.Recipients = []string{"you@d.example", "other@d.example"}
		h.Add(e)
	}
	look := func() (memory, disk string) {
		text, err := json.Marshal(first(h.Find(Query{})))
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, "history"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text), string(file)
	}
	add()
	for _, text := range []string{first2(look()), second2(look())} {
		if !strings.Contains(text, `"me@us.example"`) || !strings.Contains(text, "you@d.example") {
			t.Error(text)
		}
	}
	h.SetOptions(Options{})
	add()
	for _, text := range []string{first2(look()), second2(look())} {
		if strings.Contains(text, "me@") || strings.Contains(text, "you@") || strings.Contains(text, "other@") || !strings.Contains(text, "@d.example") {
			t.Error(text)
		}
	}
}

func first2(a, _ string) string  { return a }
func second2(_, b string) string { return b }

// TestKept: over a restart, a torn line, and a full disk.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	open := func() *History {
		h, err := Open(dir, Options{Entries: 100})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	fill(h, 150)
	f, err := os.OpenFile(filepath.Join(dir, "history"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"at":"2026-11-30T12`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h = open() // without a Close, as after a crash
	list, _ := h.Find(Query{})
	if len(list) != 100 || list[0].ID != "id149" || list[0].Took != Seconds(149*time.Millisecond) {
		t.Error(len(list), list[0])
	}
	h.file.dir = filepath.Join(dir, "none")
	h.file.f.Close()
	h.file.f = nil
	h.Add(entry(200))
	h.Add(entry(201))
	h.file.dir = dir
	h.Add(entry(202))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = open()
	if list, _ = h.Find(Query{}); list[0].ID != "id202" || list[1].ID != "id201" || list[2].ID != "id200" {
		t.Error(list[:3])
	}
	for i := range 20_000 {
		h.Add(entry(i))
	}
	if info, err := os.Stat(filepath.Join(dir, "history")); err != nil || info.Size() > 2<<20 {
		t.Error(info.Size(), err)
	}
}

func TestAtOnce(t *testing.T) {
	h := New(Options{Entries: 50})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { fill(h, 500) })
		all.Go(func() {
			for range 50 {
				h.Find(Query{What: "big"})
				h.Summarise(Query{}, ByProvider)
				h.Minutes(noon, 60)
				h.Stats()
			}
		})
	}
	all.Wait()
	if s := h.Stats(); s.Entries != 50 || s.Total != 2000 {
		t.Errorf("%+v", s)
	}
}
