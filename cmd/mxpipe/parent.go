package main

import "strconv"

// parent is the process that started us. As long as it lives, the end of
// standard input is its word that the message is whole, and there is somebody
// to hear what became of it.
type parent struct {
	pid int
	// its pidfd, which poll(2) reports once it is dead; noParentFD without
	fd   int
	stat int  // its /proc/PID/stat, once that is open; else noParentFD
	lost bool // it was gone before we could learn who it was
}

// noParentFD is the pidfd of a parent where there are none: a kernel before
// 5.3, or a filter that does not know the system call. Then the parent's id is
// compared now and then. poll(2) skips it.
const noParentFD = -1

// findParent must run before anything else takes time.
func findParent() parent {
	p := parentOf(getppid())
	if p.lost {
		return p
	}
	// Were it dead by now, its id could be another's; but then ours has another
	// parent, which is seen at the latest before the commit.
	if fd, err := pidfdOpen(p.pid); err == 0 {
		p.fd = fd
	}
	return p
}

// parentOf takes the parent that we began with for the process that started us,
// unless it cannot be: process 1 takes in the children of the dead, and 0
// stands for a process outside our process namespace, whose death does not
// show. No mail server starts us from either.
func parentOf(ppid int) parent {
	return parent{pid: ppid, fd: noParentFD, stat: noParentFD, lost: ppid <= 1}
}

// replaced reports whether somebody else is our parent now, as happens when a
// parent is dead. The kernel changes a parent before it reports the death to a
// pidfd.
func (p parent) replaced() bool { return getppid() != p.pid }

// unseen is how long a parent that /proc does not show is given, in
// milliseconds, to finish dying.
const unseen = 100

// gone reports whether the parent has died, or is about to. It must be asked
// after standard input ended and before the message is committed. It works in
// buf, which a line of /proc fits in.
//
// The kernel closes a dying process's files first and gives its children to
// another parent later, so neither the parent's id nor its pidfd tells of most
// deaths in time. The exiting flag is set before the files are closed. It is
// read before the parent's id: if the id is still the same afterwards, the flag
// was that of our parent, and not of a newer process with its id.
func (p *parent) gone(buf []byte) bool {
	yes, seen := p.leaving(buf)
	if !seen {
		// What this wait returns does not matter: the id decides.
		fds := [...]pollFD{{fd: int32(p.fd), events: pollIn}}
		poll(fds[:], unseen)
		return p.replaced()
	}
	return yes
}

// leaving reports what can be known of that without a wait; seen is false where
// /proc does not show the parent. It works in buf too.
func (p *parent) leaving(buf []byte) (yes, seen bool) {
	if p.lost {
		return true, true
	}
	dying, seen := exiting(p.readStat(buf))
	return dying || p.replaced(), seen
}

// readStat reads /proc/PID/stat into buf and returns what it has read: nothing
// when it cannot be read.
func (p *parent) readStat(buf []byte) []byte {
	if p.stat == noParentFD {
		var path [32]byte // with a NUL at its end
		fd, err := openFile(append(strconv.AppendInt(append(path[:0], "/proc/"...), int64(p.pid), 10), "/stat\x00"...))
		if err != 0 {
			return nil
		}
		p.stat = fd
	}
	n, _ := readAt(p.stat, buf, 0)
	return buf[:n]
}

// exiting reads from a line of /proc/PID/stat whether the process is on its way
// out; ok is false when the line does not say (proc_pid_stat(5)).
func exiting(stat []byte) (yes, ok bool) {
	// The command's name stands in parentheses and may itself hold any
	// character, so the fields are counted from the last one. After it come
	// state, ppid, pgrp, session, tty, tpgid and flags.
	const flagsField = 6
	// PF_EXITING, which Linux has had at this place since version 1
	const pfExiting = 0x4
	i := len(stat)
	for i > 0 && stat[i-1] != ')' {
		i--
	}
	if i == 0 {
		return false, false
	}
	state, stat := field(stat[i:])
	if len(state) != 1 {
		return false, false
	}
	var flags []byte
	for range flagsField {
		flags, stat = field(stat)
	}
	n, err := strconv.ParseUint(string(flags), 10, 64)
	if err != nil {
		return false, false
	}
	return n&pfExiting != 0 || state[0] == 'Z' || state[0] == 'X' || state[0] == 'x', true
}

// field cuts the next field off a line.
func field(line []byte) (field, rest []byte) {
	for len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	i := 0
	for i < len(line) && line[i] != ' ' && line[i] != '\n' {
		i++
	}
	return line[:i], line[i:]
}
