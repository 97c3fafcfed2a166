package main

// The system calls, made directly, as package net and package os cost more at
// the start than everything else here. There is one goroutine. Nothing blocks
// but poll, and connectInTurn where poll cannot wait.

const (
	stdin  = 0
	stdout = 1
)

// errno is an error number of the kernel; 0 is none.
type errno int

// pollFD is struct pollfd (poll(2)).
type pollFD struct {
	fd      int32
	events  int16
	revents int16
}

// The flags of poll(2), which are the same on all machines.
const (
	pollIn   = 0x1
	pollOut  = 0x4
	pollErr  = 0x8
	pollHup  = 0x10
	pollNval = 0x20
)
