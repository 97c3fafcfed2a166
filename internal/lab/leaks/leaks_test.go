package leaks

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// running stands for tests that do one thing.
type running func() int

func (r running) Run() int { return r() }

func TestLeftOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "forgotten")
	var file *os.File
	var listener net.Listener
	for name, tt := range map[string]struct {
		run  func() int
		want int
	}{
		"nothing":      {func() int { return 0 }, 0},
		"failed":       {func() int { return 3 }, 3},
		"closed again": {func() int { f, _ := os.Create(path); f.Close(); return 0 }, 0},
		"a file":       {func() int { file, _ = os.Create(path); return 0 }, 1},
		"a socket":     {func() int { listener, _ = net.Listen("tcp", "127.0.0.1:0"); return 0 }, 1},
	} {
		m := &tests{running(tt.run), descriptors(), 20 * time.Millisecond}
		if got := m.Run(); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
		switch left := strings.Join(m.left(), " "); {
		case file != nil:
			if !strings.Contains(left, "/forgotten") {
				t.Errorf("%s: it says %s", name, left)
			}
			file.Close()
			file = nil
		case listener != nil:
			if !strings.Contains(left, "socket:") {
				t.Errorf("%s: it says %s", name, left)
			}
			listener.Close()
			listener = nil
		}
	}
}
