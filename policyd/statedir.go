package policyd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

// stateDir is the state directory of one daemon, which no other one uses: it
// would deliver again what the first remembers, and remove what the first is
// writing. It stays locked as long as the process lives, whatever becomes of
// the daemon.
type stateDir struct {
	path string
	lock io.Closer // nil: not locked yet, or it cannot be
}

// errStateDirInUse says that there is another daemon.
var errStateDirInUse = errors.New("another mxpolicyd uses it: stop that one, or set state_dir to another directory")

// claim locks the directory, if it is there. Nothing in it is touched. An error
// that is errors.ErrUnsupported means that it is not locked and can be used all
// the same.
func (s *stateDir) claim() error {
	lock, err := safeio.Lock(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, safeio.ErrLocked):
		err = errStateDirInUse
	}
	if err != nil {
		return fmt.Errorf("state directory %s: %w", s.path, err)
	}
	s.lock = lock
	return nil
}

// make makes the directory where it is missing, and claims it then.
func (s *stateDir) make() error {
	if s.lock != nil {
		return nil
	}
	if err := safeio.MkdirAll(s.path, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return s.claim()
}

// release lets another daemon use the directory.
func (s *stateDir) release() {
	if s.lock != nil {
		s.lock.Close()
	}
}
