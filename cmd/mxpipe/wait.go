package main

// The units of the clock.
const (
	millisecond = 1_000_000
	second      = 1000 * millisecond
	minute      = 60 * second
	hour        = 60 * minute
)

// left is what is left of --timeout, in nanoseconds.
func (s *session) left() int64 { return s.start + s.options.timeout - nanotime() }

// expired is the error when nothing is left; it says what for we waited.
func (s *session) expired(waiting string) error {
	return localError(codeTime, "timed out after "+s.options.limit+" (waiting for "+waiting+")")
}

// milliseconds rounds up, so that the last part of one is not spun away.
func milliseconds(nanoseconds int64) int64 {
	return (nanoseconds + millisecond - 1) / millisecond
}

// errOrphan says that the parent is gone. Nothing is left to hear of a
// delivery.
var errOrphan error = &failure{codeSystem, "the mail server that started mxpipe is gone"}

// parentTick is how often a parent without a pidfd is looked after.
const parentTick = second

// wait waits until standard input or the socket can do what is asked of it, in
// the flags of poll(2); 0 asks nothing, and a closed socket has nothing to ask.
// It returns what they can do. It is the one place where mxpipe waits while it
// has a message in hand: the time and the parent end every wait, and what the
// daemon said counts for nothing when the parent is gone at the same time.
func (s *session) wait(in, socket int16, waiting string) (ofIn, ofSocket int16, err error) {
	fds := [...]pollFD{
		{fd: watched(stdin, in), events: in},
		{fd: watched(s.socket, socket), events: socket},
		// last: it is as new as can be
		{fd: int32(s.parent.fd), events: pollIn},
	}
	// Telling the runtime of a wait costs more than a look whether there is
	// one. The answer alone is hardly ever there.
	wait := in == 0 && socket == pollIn
	for ; ; wait = true {
		left := s.left()
		if left <= 0 {
			return 0, 0, s.expired(waiting)
		}
		if s.parent.fd == noParentFD {
			left = min(left, parentTick)
		}
		var n int
		var err errno
		if wait {
			n, err = poll(fds[:], milliseconds(left))
		} else {
			n, err = ready(fds[:])
		}
		switch {
		case err != 0 && err != eintr:
			return 0, 0, localError(codeSystem, "poll: "+err.Error())
		case s.parent.lost || fds[2].revents != 0, s.parent.fd == noParentFD && s.parent.replaced():
			return 0, 0, errOrphan
		case err == 0 && n > 0:
			return fds[0].revents, fds[1].revents, nil
		}
	}
}

// watched is the descriptor for poll(2), which skips the negative.
func watched(fd int, events int16) int32 {
	if events == 0 {
		return -1
	}
	return int32(fd)
}
