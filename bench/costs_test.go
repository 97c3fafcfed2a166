package main

import (
	"fmt"
	"testing"
)

func TestParseCalls(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 51.36    0.003671         203      2000       500 read
 35.13    0.002511          37      1000           write
  0.00    0.000000           0       100           madvise
------ ----------- ----------- --------- --------- ------------------
100.00    0.007147          24      3100       500 total
`
	if got := fmt.Sprint(parseCalls([]byte(table), 1000)); got != "[{system calls 3.1} {read 2} {write 1}]" {
		t.Error(got)
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("", "")
	if err != nil || len(all) != len(parts) {
		t.Errorf("%d of %d, %v", len(all), len(parts), err)
	}
	some, err := choose("idle,flights", "idle")
	if err != nil || len(some) != 1 || some[0].name != "flights" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := choose("nonsense", ""); err == nil {
		t.Error("a part that does not exist was chosen")
	}
}

func TestMessage(t *testing.T) {
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		if got := message(size); len(got) != size || string(got[size-2:]) != "\r\n" {
			t.Errorf("%d bytes, want %d", len(got), size)
		}
	}
}
