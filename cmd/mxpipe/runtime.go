package main

import _ "unsafe" // for go:linkname

// What mxpipe has of the runtime without the packages that export it. It starts
// for each message, and what it imports is paid for at each start, used or not:
// package os with 28 page faults beyond the 165 of an empty program, time with
// 18, syscall with 4 to 9. These names are there for the packages os,
// runtime/debug and time, and for programs like this one (go.dev/issue/67401);
// where a release of Go should take one away, this file does not link, and a
// package is to be imported in its place.

// runtimeArgs is what os.Args is made of.
//
//go:linkname runtimeArgs os.runtime_args
func runtimeArgs() []string

// setTraceback is debug.SetTraceback.
//
//go:linkname setTraceback runtime/debug.SetTraceback
func setTraceback(level string)

// nanotime is the monotonic clock, in nanoseconds.
//
//go:linkname nanotime runtime.nanotime
func nanotime() int64
