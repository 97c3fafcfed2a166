package delivery

import (
	"fmt"
	"testing"
	"time"
)

func TestTraces(t *testing.T) {
	t.Parallel()
	var traces Traces
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	for i := range maxTraces {
		if err := traces.Start(fmt.Sprintf("%d.example", i), soon); err != nil {
			t.Fatal(err)
		}
	}
	if err := traces.Start("a.example", soon); err != ErrTraces {
		t.Errorf("one too many: %v", err)
	}
	if err := traces.Start("1.example", past); err != nil {
		t.Errorf("once more: %v", err)
	}
	if traces.Stop("1.example") || !traces.Stop("2.example") || traces.Stop("2.example") {
		t.Error("what is over can be stopped, or what is not cannot")
	}
	if n := len(traces.List()); n != maxTraces-2 {
		t.Errorf("%d are left", n)
	}
}
