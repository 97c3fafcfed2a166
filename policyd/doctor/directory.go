package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
)

// directory is one that the daemon writes into.
type directory struct {
	what string // what it is called in findings
	path string
	key  string // that names it
	lost string // what comes of it when it cannot be written
	room int64  // bytes that should be free
}

// directories gives the state directory, and those of MTA-STS policies that lie
// elsewhere, each once.
func directories(cfg *config.Config) []directory {
	all := []directory{{
		"state directory", cfg.StateDir, "state_dir",
		"large messages are deferred (4.3.1), and served recipients are not recorded", 2 * cfg.MaxMessageSize,
	}}
	add := func(c *transport.Config) {
		sts := c.MXAuth.MTASTS
		if sts == nil || !sts.OnDisk || strings.HasPrefix(sts.Dir, cfg.StateDir+"/") {
			return
		}
		if !slices.ContainsFunc(all, func(d directory) bool { return d.path == sts.Dir }) {
			all = append(all, directory{"MTA-STS cache", sts.Dir, "fs_dir", "policies are lost when mxpolicyd is restarted", 1 << 20})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Transports)) {
		add(cfg.Transports[name])
		for _, o := range cfg.Transports[name].Overrides {
			add(o.Config)
		}
	}
	return all
}

// directory looks at a directory, for the user that the daemon runs as (-1:
// unknown).
func (h Host) directory(d directory, uid int) []finding.Finding {
	who := d.what + " " + d.path
	info, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding.Finding{h.missing(d)}
	case err != nil:
		return []finding.Finding{fail("give the daemon's user access to "+filepath.Dir(d.path), "%s: %v", who, err)}
	case !info.IsDir():
		return []finding.Finding{fail("remove it, or choose another "+d.key, "%s: not a directory, so %s", who, d.lost)}
	}
	var all []finding.Finding
	volume, err := h.Filesystem(d.path)
	switch {
	case err != nil:
		all = append(all, warn("look at \"df "+d.path+"\"", "%s: %v", who, err))
	case volume.ReadOnly:
		all = append(all, fail("mount it writable, or choose another "+d.key, "%s: read-only, so %s", who, d.lost))
	case volume.Free < d.room:
		all = append(all, warn("make room, or choose another "+d.key, "%s: %d MiB free, less than the %d MiB recommended; when it is full, %s", who, volume.Free>>20, d.room>>20, d.lost))
	}
	mode := info.Mode().Perm()
	if mode&0o022 != 0 {
		all = append(all, fail("chmod 700 "+d.path, "%s: mode %04o lets other users write, who could forge delivery records or policies", who, mode))
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && uid >= 0 && uid != 0 && int(stat.Uid) != uid {
		all = append(all, fail(fmt.Sprintf("chown -R %s %s", h.userName(uid), d.path), "%s: owned by %s, but mxpolicyd runs as %s, so %s", who, h.userName(int(stat.Uid)), h.userName(uid), d.lost))
	} else if mode&0o300 != 0o300 {
		all = append(all, fail("chmod 700 "+d.path, "%s: mode %04o does not let mxpolicyd write, so %s", who, mode, d.lost))
	} else if foreign, count := foreignIn(d.path, uid); count > 0 {
		all = append(all, fail(fmt.Sprintf("chown -R %s %s", h.userName(uid), d.path),
			"%s: mxpolicyd runs as %s, and cannot use %s in it, such as %s, owned by others (mxpolicyd serve started as root?)", who, h.userName(uid), files(count), foreign))
	}
	if len(all) == 0 {
		all = append(all, ok("%s: %d MiB free", who, volume.Free>>20))
	}
	return all
}

// maxLooked bounds how many files of a directory are looked at.
const maxLooked = 50_000

// foreignIn finds what lies below a directory and does not belong to the
// daemon's user, who can neither read nor replace it: one, and how many. Root
// can use everything.
func foreignIn(dir string, uid int) (one string, count int) {
	if uid <= 0 {
		return "", 0
	}
	looked := 0
	// What cannot be read is not looked at: the walk goes on after it.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if looked++; looked > maxLooked {
			return filepath.SkipAll
		}
		if err != nil {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil // it went away meanwhile
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != uid {
			if count == 0 {
				one = path
			}
			count++
		}
		return nil
	})
	return one, count
}

// files counts files in words.
func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// missing judges a directory that is not there: it is made at start.
func (h Host) missing(d directory) finding.Finding {
	parent := filepath.Dir(d.path)
	for parent != "/" {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		parent = filepath.Dir(parent)
	}
	if volume, err := h.Filesystem(parent); err == nil && volume.ReadOnly {
		return fail("mount it writable, or choose another "+d.key, "%s %s: does not exist and cannot be created, since %s is read-only, so %s", d.what, d.path, parent, d.lost)
	}
	return ok("%s %s: will be created at start", d.what, d.path)
}
