package main

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// clock knows when to give up.
type clock struct {
	end   time.Time
	whole time.Duration // what --timeout said
}

func (c clock) left() time.Duration { return time.Until(c.end) }

// expired is the error when nothing is left; it says what for we waited.
func (c clock) expired(waiting string) error {
	return localError(codeTime, "timed out after "+c.whole.String()+" (waiting for "+waiting+")")
}

// milliseconds rounds up, so that the last part of one is not spun away.
func milliseconds(d time.Duration) int {
	return int(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// errOrphan says that the parent is gone. Nobody is left to hear of a delivery.
var errOrphan = localError(codeSystem, "the mail server that started mxpipe is gone")

// parentTick is how often a parent without a pidfd is looked after.
const parentTick = time.Second

// wait waits until standard input or the socket can do what is asked of it, in
// the flags of poll(2); 0 asks nothing, and a closed socket has nothing to ask.
// It returns what they can do. It is the one place where mxpipe waits while it
// has a message in hand: the time and the parent end every wait, and what the
// daemon said counts for nothing when the parent is gone at the same time.
func (s *session) wait(in, socket int16, waiting string) (ofIn, ofSocket int16, err error) {
	fds := [...]unix.PollFd{
		{Fd: watched(stdin, in), Events: in},
		{Fd: watched(s.socket, socket), Events: socket},
		{Fd: int32(s.parent.fd), Events: unix.POLLIN}, // last: it is as new as can be
	}
	for {
		left := s.clock.left()
		if left <= 0 {
			return 0, 0, s.clock.expired(waiting)
		}
		if s.parent.fd == noParentFD {
			left = min(left, parentTick)
		}
		n, err := unix.Poll(fds[:], milliseconds(left))
		switch {
		case err != nil && err != unix.EINTR:
			return 0, 0, localError(codeSystem, "poll: "+err.Error())
		case s.parent.lost || fds[2].Revents != 0, s.parent.fd == noParentFD && s.parent.replaced():
			return 0, 0, errOrphan
		case err == nil && n > 0:
			return fds[0].Revents, fds[1].Revents, nil
		}
	}
}

// watched is the descriptor for poll(2), which passes over the negative.
func watched(fd int, events int16) int32 {
	if events == 0 {
		return -1
	}
	return int32(fd)
}
