package safeio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// owned makes a directory that belongs to another user than root, and gives
// that user.
func owned(t *testing.T) (dir string, uid int) {
	t.Helper()
	dir, uid = t.TempDir(), os.Getuid()
	if uid == 0 {
		uid = 65534
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return dir, uid
}

func owner(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func TestMkdirAll(t *testing.T) {
	dir, uid := owned(t)
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(deep, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path := deep; path != dir; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o700 || owner(t, path) != uid {
			t.Errorf("%s: %v, %v, user %d, want %d", path, info, err, owner(t, path), uid)
		}
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(dir+"/file/x", 0o700); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
	// What was there stays whose it was.
	before := owner(t, dir+"/file")
	if err := MkdirAll(dir, 0o700); err != nil || owner(t, dir+"/file") != before {
		t.Errorf("%v, user %d, was %d", err, owner(t, dir+"/file"), before)
	}
}

func TestWriteFile(t *testing.T) {
	dir, uid := owned(t)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, text := range []string{"one", "", strings.Repeat("two", 100_000)} {
		if err := WriteFile(root, "name", []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dir + "/name")
		if err != nil || string(got) != text {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(text))
		}
	}
	if info, err := os.Stat(dir + "/name"); err != nil || info.Mode() != 0o600 || owner(t, dir+"/name") != uid {
		t.Errorf("%v, %v, user %d, want %d", info, err, owner(t, dir+"/name"), uid)
	}
	// Nothing is left of what cannot be put in its place.
	if err := root.Mkdir("taken", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(root, "taken", []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	one, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	one.Close()
	two, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	two.Close()
	if _, err := Lock(dir + "/nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir + "/file"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

func TestGiveSocket(t *testing.T) {
	dir, uid := owned(t)
	if err := os.WriteFile(dir+"/s.sock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := GiveSocket(dir + "/s.sock"); err != nil || owner(t, dir+"/s.sock") != uid {
		t.Errorf("%v, user %d, want %d", err, owner(t, dir+"/s.sock"), uid)
	}
}

func TestWriteByPath(t *testing.T) {
	dir, uid := owned(t)
	for _, text := range []string{"one", "a longer text", ""} {
		if err := Write(dir, "f", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(dir + "/f"); err != nil || string(got) != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
	}
	if got := owner(t, dir+"/f"); got != uid {
		t.Errorf("it belongs to user %d, want %d", got, uid)
	}
	if err := Write(dir+"/nosuch", "f", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestAppend(t *testing.T) {
	dir, uid := owned(t)
	for _, text := range []string{"one\n", "two\n"} {
		f, err := Append(dir + "/f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	got, err := os.ReadFile(dir + "/f")
	info, failed := os.Stat(dir + "/f")
	if err != nil || failed != nil || string(got) != "one\ntwo\n" || info.Mode() != 0o600 || owner(t, dir+"/f") != uid {
		t.Errorf("%q, %v, %v, %v", got, info, err, failed)
	}
	if _, err := Append(dir + "/nosuch/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
