package policyd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

// files lists what there is below a directory.
func files(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A second daemon in the same state directory says so and ends; what the first
// is writing, and its sockets, are left alone.
func TestTwoDaemons(t *testing.T) {
	l := newLab(t)
	text := l.yaml("", "", "")
	r := l.daemon(text)
	half := filepath.Join(l.dir, "state", "served", ".new-half")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := strings.Join(files(t, l.dir), " ")
	for name, second := range map[string]string{
		"with other sockets": strings.Replace(text, "/pipe.sock", "/other.sock", 1),
		"with the same":      text,
	} {
		cfg := l.parse(second)
		_, err := New(t.Context(), Options{Config: cfg, Log: logging.New(cfg.Log, l.logged)})
		if !errors.Is(err, errStateDirInUse) || !strings.Contains(err.Error(), l.dir+"/state: another mxpolicyd") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := strings.Join(files(t, l.dir), " "); after != before {
		t.Errorf("there is now\n%s\nthere was\n%s", after, before)
	}
	want(t, r.send(nil), "2.0.0 ")
	r.end()
	// The directory is free again.
	want(t, l.daemon(text).send(nil), "2.0.0 ")
}

// A daemon that gets no socket, since somebody else listens there, has not
// touched the disk.
func TestSocketsBeforeTheDisk(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	cfg := l.parse(strings.Replace(l.yaml("", "", ""), l.dir+"/state", l.dir+"/other", 1))
	_, err := New(t.Context(), Options{Config: cfg, Log: logging.New(cfg.Log, l.logged)})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(l.dir + "/other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state directory: %v", err)
	}
	want(t, r.send(nil), "2.0.0 ")
}

// What a daemon that root started makes belongs to the owner of the directory
// that it makes it in, whom it is to serve later.
func TestWhatRootMakes(t *testing.T) {
	uid := os.Getuid()
	l := newLab(t)
	for _, dir := range []string{"state", "run"} {
		if err := os.Mkdir(filepath.Join(l.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			uid = 65534
			if err := os.Chown(filepath.Join(l.dir, dir), uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := strings.Replace(l.yaml("history: {keep: true}", "    mx_auth: {mtasts: {}}", ""), "/pipe.sock", "/run/deep/pipe.sock", 1)
	r := l.daemon(text)
	behaviour := l.mx.Behaviour()
	behaviour.Recipients = []mx.Rule{{Local: "later", Reply: "451 4.2.0 later"}}
	l.mx.SetBehaviour(behaviour)
	if err := os.Symlink(l.dir+"/run/deep/pipe.sock", l.dir+"/pipe.sock"); err != nil {
		t.Fatal(err)
	}
	want(t, r.send(func(e *wire.Envelope) {
		e.Recipients = append(e.Recipients, wire.Recipient{Address: "later@a.example"})
	}), "4.2.0 ")
	all := append(files(t, l.dir+"/state"), files(t, l.dir+"/run")...)
	var records int
	for _, path := range all {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Uid); got != uid {
			t.Errorf("%s belongs to user %d, want %d", path, got, uid)
		}
		if filepath.Base(filepath.Dir(path)) == "served" {
			records++
		}
	}
	if records != 1 {
		t.Errorf("%d records of who was served among %q", records, all)
	}
}
