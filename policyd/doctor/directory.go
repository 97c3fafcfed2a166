package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// stateDirectory looks at the directory of what must survive, for the user that
// the daemon runs as (-1: nobody knows).
func (h Host) stateDirectory(cfg *config.Config, uid int) []finding.Finding {
	dir := cfg.StateDir
	who := "state directory " + dir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding.Finding{h.missing(dir)}
	case err != nil:
		return []finding.Finding{fail("let the daemon's user into "+filepath.Dir(dir), "%s: %v", who, err)}
	case !info.IsDir():
		return []finding.Finding{fail("remove it, or name another state_dir", "%s: it is no directory, and mxpolicyd does not start", who)}
	}
	var all []finding.Finding
	volume, err := h.Filesystem(dir)
	switch {
	case err != nil:
		all = append(all, warn("look at \"df "+dir+"\"", "%s: %v", who, err))
	case volume.ReadOnly:
		all = append(all, fail("mount it writeable, or name another state_dir", "%s: it is read-only: large messages wait (4.3.1), and who was served is not remembered", who))
	case volume.Free < 2*cfg.MaxMessageSize:
		all = append(all, warn("make room, or lower max_message_size", "%s: %d MiB are left, and one message may have %d MiB", who, volume.Free>>20, cfg.MaxMessageSize>>20))
	}
	mode := info.Mode().Perm()
	if mode&0o022 != 0 {
		all = append(all, fail("chmod 700 "+dir, "%s: its mode %04o lets others write, who could have mail taken for delivered", who, mode))
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && uid >= 0 && uid != 0 && int(stat.Uid) != uid {
		all = append(all, fail(fmt.Sprintf("chown -R %s %s", h.userName(uid), dir), "%s: it belongs to %s, and mxpolicyd runs as %s", who, h.userName(int(stat.Uid)), h.userName(uid)))
	} else if mode&0o300 != 0o300 {
		all = append(all, fail("chmod 700 "+dir, "%s: its mode %04o keeps mxpolicyd from writing", who, mode))
	}
	if len(all) == 0 {
		all = append(all, ok("%s: %d MiB are left", who, volume.Free>>20))
	}
	return all
}

// missing judges a state directory that is not there: it is made at start.
func (h Host) missing(dir string) finding.Finding {
	parent := filepath.Dir(dir)
	for parent != "/" {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		parent = filepath.Dir(parent)
	}
	if volume, err := h.Filesystem(parent); err == nil && volume.ReadOnly {
		return fail("mount it writeable, or name another state_dir", "state directory %s: it is not there and can not be made, as %s is read-only", dir, parent)
	}
	return ok("state directory %s: it is made at start", dir)
}
