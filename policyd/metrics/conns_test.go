package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
)

// A scraper comes in although others have asked for so much that they are
// being answered all the time: the connection goes that is without a request,
// and then the one whose answer is not read for longest.
func TestDeafConnections(t *testing.T) {
	cs := &conns{open: map[net.Conn]*conn{}}
	var all []net.Conn
	for i := range maxConnections {
		c, other := memnet.Pipe(64)
		t.Cleanup(func() { c.Close(); other.Close() })
		cs.changed(c, http.StateNew)
		all = append(all, c)
		cs.mark(c, i != 5)
		cs.open[c].since = time.Unix(int64(i), 0)
	}
	for _, goes := range []int{5, 0, 1} {
		c, other := memnet.Pipe(64)
		t.Cleanup(func() { c.Close(); other.Close() })
		cs.changed(c, http.StateNew)
		cs.mark(c, true)
		if len(cs.open) != maxConnections || cs.open[c] == nil || cs.open[all[goes]] != nil {
			t.Errorf("%d connections; connection %d is there: %v", len(cs.open), goes, cs.open[all[goes]] != nil)
		}
	}
}

// Who goes away before the answer makes no noise; a scrape that fails does.
func TestErrorLog(t *testing.T) {
	var b bytes.Buffer
	log := errorLog{slog.New(slog.NewTextHandler(&b, nil))}
	log.Println("error encoding", fmt.Errorf("writing: %w", context.Canceled))
	if b.Len() > 0 {
		t.Error(b.String())
	}
	log.Println("error gathering", errors.New("twice"))
	if !strings.Contains(b.String(), "level=ERROR") {
		t.Error(b.String())
	}
}
