package main

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// parent is the process that started us. As long as it lives, the end of
// standard input is its word that the message is whole, and there is somebody
// to hear what became of it.
type parent struct {
	pid  int
	fd   int  // its pidfd, which poll(2) reports once it is dead; noParentFD without
	lost bool // it was gone before we could learn who it was
}

// noParentFD is the pidfd of a parent where there are none: a kernel before
// 5.3, or a filter that does not know the system call. Then the parent's id is
// compared now and then. poll(2) passes over it.
const noParentFD = -1

// findParent must run before anything else takes time.
func findParent() parent {
	p := parentOf(unix.Getppid())
	if p.lost {
		return p
	}
	if fd, err := unix.PidfdOpen(p.pid, 0); err == nil {
		p.fd = fd
	}
	// Had it died before the pidfd was open, its id could be another's by then;
	// ours would have changed.
	p.lost = p.replaced()
	return p
}

// parentOf takes the parent that we began with for the process that started us,
// unless it cannot be: process 1 takes in the children of the dead, and 0 stands
// for a process outside our process namespace, whose death does not show. No
// mail server starts us from either.
func parentOf(ppid int) parent {
	return parent{pid: ppid, fd: noParentFD, lost: ppid <= 1}
}

// replaced reports whether somebody else is our parent now, as happens when a
// parent is dead. The kernel changes a parent before it reports the death to a
// pidfd.
func (p parent) replaced() bool { return unix.Getppid() != p.pid }

// unseen is how long a parent that /proc does not show is given, in
// milliseconds, to finish dying.
const unseen = 100

// gone reports whether the parent has died, or is about to. It must be asked
// after standard input ended and before the message is committed.
//
// The kernel closes a dying process's files first and gives its children to
// another parent later, so neither the parent's id nor its pidfd tells of most
// deaths in time. The exiting flag is set before the files are closed. It is
// read before the parent's id: if the id is still the same afterwards, the flag
// was that of our parent, and not of a newer process with its id.
func (p parent) gone() bool {
	if p.lost {
		return true
	}
	dying, seen := exiting(readStat(p.pid))
	if !seen {
		// What this wait returns does not matter: the id decides.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, unseen)
	}
	return dying || p.replaced()
}

// readStat returns /proc/PID/stat, or "" when it cannot be read.
func readStat(pid int) string {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, 1024)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// exiting reads from a line of /proc/PID/stat whether the process is on its way
// out; ok is false when the line does not say (proc_pid_stat(5)).
func exiting(stat string) (yes, ok bool) {
	// The command's name stands in parentheses and may itself hold any
	// character, so the fields are counted from the last one.
	const flagsField = 6  // after the name: state, ppid, pgrp, session, tty, tpgid, flags
	const pfExiting = 0x4 // PF_EXITING, which Linux has had at this place since version 1
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= flagsField {
		return false, false
	}
	flags, err := strconv.ParseUint(fields[flagsField], 10, 64)
	if err != nil {
		return false, false
	}
	state := fields[0]
	return flags&pfExiting != 0 || state == "Z" || state == "X" || state == "x", true
}

// forbidCore keeps a crash from leaving the message in a core file. The limit
// stops the file; a collector that the kernel pipes cores to is stopped by the
// process not being dumpable. If either fails there is nothing better to do.
func forbidCore() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
