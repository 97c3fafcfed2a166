package delivery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// What is known of hosts' BDAT counts for a day, and is bounded: 10,000 hosts.
func TestChunkingHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &chunkingHosts{}
		h.set("good.example", trusted)
		h.set("bad.example", givenData)
		time.Sleep(24*time.Hour - time.Second)
		if h.get("good.example") != trusted || h.get("bad.example") != givenData || h.get("other.example") != unknown {
			t.Error("forgotten within the day")
		}
		time.Sleep(2 * time.Second)
		if h.get("good.example") != unknown || h.get("bad.example") != unknown {
			t.Error("remembered beyond the day")
		}
		for i := range 30_000 {
			host := fmt.Sprintf("mx%d.example", i)
			h.set(host, givenData)
			if h.get(host) != givenData {
				t.Fatal("the newest is forgotten")
			}
			if len(h.known) > 10_000 {
				t.Fatalf("%d hosts are remembered", len(h.known))
			}
		}
		if len(h.known) < 9_000 {
			t.Errorf("%d hosts are left", len(h.known))
		}
	})
}

// Of the hosts that the log has told of 10,000 are remembered.
func TestToldHosts(t *testing.T) {
	h := NewHosts()
	if !h.eightBit.first("mx.example") || h.eightBit.first("mx.example") {
		t.Error("told once")
	}
	for i := range 30_000 {
		h.eightBit.first(fmt.Sprintf("mx%d.example", i))
		if u := h.Told(); i%1000 == 0 && (u.Entries == 0 || u.Entries > 10_000 || u.Bytes < 128*int64(u.Entries) || u.Bytes > u.MaxBytes || u.MaxBytes != 10_000*(128+261)) {
			t.Fatalf("%+v", u)
		}
	}
}
