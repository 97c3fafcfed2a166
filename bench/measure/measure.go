// Package measure reads what the kernel knows of processes, and makes one
// number of many.
//
// CPU is that of a process, of its descendants, and of those descendants that
// have ended and were waited for: a mail server's processes come and go.
package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the kernel's unit in /proc/PID/stat; it has been a hundredth of a
// second for user space on every architecture for decades.
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says.
type stat struct {
	parent int
	cpu    time.Duration
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name, in parentheses,
// may hold anything.
func parseStat(text []byte) (stat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return stat{}, errors.New("no name in /proc/PID/stat")
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 15 {
		return stat{}, errors.New("too few fields in /proc/PID/stat")
	}
	var s stat
	var err error
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return stat{}, err
	}
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return stat{}, err
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// TreeCPU gives the CPU time of processes and all of their descendants.
func TreeCPU(roots ...int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	all := map[int]stat{}
	children := map[int][]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			return 0, err
		}
		s, err := parseStat(text)
		if err != nil {
			return 0, err
		}
		all[pid] = s
		children[s.parent] = append(children[s.parent], pid)
	}
	var sum time.Duration
	for todo := slices.Clone(roots); len(todo) > 0; {
		pid := todo[0]
		s, ok := all[pid]
		if !ok && slices.Contains(roots, pid) {
			return 0, fmt.Errorf("process %d has ended", pid)
		}
		sum += s.cpu
		todo = append(todo[1:], children[pid]...)
	}
	return sum, nil
}

// Memory is what a process uses.
type Memory struct {
	Resident    int64 // bytes that are its own, without files that are mapped
	Descriptors int
}

// MemoryOf reads a process's memory.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	anonymous, err := field(text, "RssAnon:")
	if err != nil {
		return Memory{}, err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return Memory{}, err
	}
	return Memory{Resident: anonymous * 1024, Descriptors: len(entries)}, nil
}

// IO is what a process has moved by system calls.
type IO struct {
	Reads, Writes           int64 // calls
	BytesRead, BytesWritten int64
}

// IOOf reads a process's I/O counters.
func IOOf(pid int) (io IO, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return io, err
	}
	for name, into := range map[string]*int64{
		"syscr:": &io.Reads, "syscw:": &io.Writes, "rchar:": &io.BytesRead, "wchar:": &io.BytesWritten,
	} {
		if *into, err = field(text, name); err != nil {
			return io, err
		}
	}
	return io, nil
}

// field finds the number after a name at the start of a line.
func field(text []byte, name string) (int64, error) {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			return strconv.ParseInt(number, 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s", strings.TrimSuffix(name, ":"))
}
