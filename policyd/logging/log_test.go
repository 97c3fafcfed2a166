package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// One line a record, in the form that is configured, and no control character
// in it.
func TestFormats(t *testing.T) {
	for format, check := range map[config.LogFormat]func(line string) bool{
		config.LogText: func(line string) bool {
			return strings.Contains(line, `level=WARN msg=deferred id=x7 to="a\nb"`)
		},
		config.LogJSON: func(line string) bool {
			var got struct{ Level, Msg, ID, To string }
			return json.Unmarshal([]byte(line), &got) == nil && got.Level == "WARN" && got.Msg == "deferred" && got.ID == "x7" && got.To == "a\nb"
		},
	} {
		t.Run(format.String(), func(t *testing.T) {
			var b bytes.Buffer
			log := New(config.Log{Format: format}, &b)
			log.With("id", "x7").Warn("deferred", "to", "a\nb")
			if line := b.String(); !check(line) || strings.Count(line, "\n") != 1 {
				t.Errorf("%q", line)
			}
		})
	}
}

// The level is the configured one, and can be changed.
func TestLevel(t *testing.T) {
	for _, format := range []config.LogFormat{config.LogText, config.LogJSON, config.LogJournal} {
		var b bytes.Buffer
		log := New(config.Log{Format: format, Level: slog.LevelError}, &b)
		log.Warn("unheard")
		if got := b.String(); got != "" || log.Enabled(t.Context(), slog.LevelWarn) {
			t.Errorf("%v: %q", format, got)
		}
		log.SetLevel(slog.LevelDebug)
		if !log.Enabled(t.Context(), slog.LevelDebug) {
			t.Errorf("%v: debug is off", format)
		}
	}
}

// sent is what the journal got.
type sent struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

type fakeJournal struct {
	mu   sync.Mutex
	sent []sent
	err  error
}

func (f *fakeJournal) send(message string, priority journal.Priority, fields map[string]string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.sent = append(f.sent, sent{message, priority, maps.Clone(fields)})
	}
	return f.err
}

// The journal gets the line to read, and fields to search.
func TestJournal(t *testing.T) {
	for _, c := range []struct {
		name     string
		log      func(*slog.Logger)
		message  string
		priority journal.Priority
		fields   map[string]string // without MXPIPE_
	}{
		{"plain", func(l *slog.Logger) { l.Info("stopped") }, "stopped", journal.PriInfo, nil},
		{"debug", func(l *slog.Logger) { l.Debug("x") }, "x", journal.PriDebug, nil},
		{"warning", func(l *slog.Logger) { l.Warn("x") }, "x", journal.PriWarning, nil},
		{"error", func(l *slog.Logger) { l.Error("x", "error", errors.New("no such file")) },
			`x error="no such file"`, journal.PriErr, map[string]string{"ERROR": "no such file"}},
		{"kinds", func(l *slog.Logger) { l.Info("x", "size", 27, "time", 3*time.Millisecond, "reused", true, "empty", "") },
			`x size=27 time=3ms reused=true empty=""`, journal.PriInfo,
			map[string]string{"SIZE": "27", "TIME": "3ms", "REUSED": "true", "EMPTY": ""}},
		{"a logger's own", func(l *slog.Logger) { l.With("queue_id", "4XyZ").With("uid", 0).Info("delivered", "to", "b@a.example") },
			"delivered queue_id=4XyZ uid=0 to=b@a.example", journal.PriInfo,
			map[string]string{"QUEUE_ID": "4XyZ", "UID": "0", "TO": "b@a.example"}},
		{"groups", func(l *slog.Logger) {
			l.WithGroup("").WithGroup("tls").With("level", "none").Info("x", slog.Group("peer", "name", "mx"), slog.Group("", "in-line", 1), slog.Attr{})
		}, "x tls.level=none tls.peer.name=mx tls.in-line=1", journal.PriInfo,
			map[string]string{"TLS_LEVEL": "none", "TLS_PEER_NAME": "mx", "TLS_IN_LINE": "1"}},
		{"what must not reach a line", func(l *slog.Logger) { l.Info("x", "text", "a\r\nb\x1b[31m \u202e=\"\xff", "k\ney é", "v") },
			`x text="a??b?[31m ?=\"` + "\ufffd" + `" k?ey é=v`, journal.PriInfo,
			map[string]string{"TEXT": "a??b?[31m ?=\"\ufffd", "K_EY__": "v"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j fakeJournal
			var b bytes.Buffer
			c.log(slog.New(newJournal(j.send, &b, slog.LevelDebug)))
			if len(j.sent) != 1 || b.Len() != 0 {
				t.Fatalf("sent %v, written %q", j.sent, &b)
			}
			got := j.sent[0]
			if got.message != c.message || got.priority != c.priority {
				t.Errorf("%d %q\nwant %d %q", got.priority, got.message, c.priority, c.message)
			}
			fields := map[string]string{"SYSLOG_IDENTIFIER": "mxpolicyd"}
			for k, v := range c.fields {
				fields["MXPIPE_"+k] = v
			}
			if !maps.Equal(got.fields, fields) {
				t.Errorf("fields %q\nwant   %q", got.fields, fields)
			}
		})
	}
}

// Lines that the journal does not take go to standard error, with their
// priority in front.
func TestWithoutAJournal(t *testing.T) {
	j := fakeJournal{err: errors.New("no journal")}
	var b bytes.Buffer
	log := slog.New(newJournal(j.send, &b, slog.LevelDebug))
	log.Info("delivered", "id", 1)
	log.Error("stopped", "text", "a\nb")
	log.Warn("w")
	log.Debug("d")
	if got, want := b.String(), "<6>delivered id=1\n<3>stopped text=a?b\n<4>w\n<7>d\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Loggers that come from one another do not share what they were given.
func TestJournalLoggersAreApart(t *testing.T) {
	var j fakeJournal
	base := slog.New(newJournal(j.send, &bytes.Buffer{}, slog.LevelInfo)).With("id", "base")
	var all sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			own := base.With("own", id)
			for range 50 {
				own.Info(id)
				base.InfoContext(context.Background(), "base")
			}
		})
	}
	all.Wait()
	if len(j.sent) != 400 {
		t.Errorf("%d records", len(j.sent))
	}
	for _, s := range j.sent {
		want := s.message == "base id=base" && s.fields["MXPIPE_OWN"] == "" ||
			s.message == s.fields["MXPIPE_OWN"]+" id=base own="+s.fields["MXPIPE_OWN"]
		if !want {
			t.Fatalf("%q with %v", s.message, s.fields)
		}
	}
}
