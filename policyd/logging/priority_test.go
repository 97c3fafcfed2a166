package logging

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// The journal reads each line's priority from its begin.
func TestPriorities(t *testing.T) {
	for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
		var b bytes.Buffer
		log := New(config.Log{Level: slog.LevelDebug, Format: format}, &priorityWriter{&b})
		log.Debug("d", "text", "level=ERROR")
		log.Info(`i level=ERROR "level":"ERROR"`)
		log.Warn("w")
		log.Error("e")
		log.With("id", "x").Warn("w2")
		var got []string
		for line := range strings.Lines(b.String()) {
			got = append(got, line[:3])
		}
		if want := "<7> <6> <4> <3> <4>"; strings.Join(got, " ") != want {
			t.Errorf("%v: %v, want %s\n%s", format, got, want, &b)
		}
	}
}

// A duration in JSON has its unit in the key.
func TestDurations(t *testing.T) {
	var b bytes.Buffer
	log := New(config.Log{Format: config.LogJSON}, &b)
	log.Info("delivered", "took", 1500*time.Millisecond)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["took_seconds"] != 1.5 || line["took"] != nil {
		t.Error(b.String(), err)
	}
	b.Reset()
	New(config.Log{}, &b).Info("delivered", "took", 1500*time.Millisecond)
	if !strings.Contains(b.String(), "took=1.5s") {
		t.Error(b.String())
	}
}
