// Package safeio writes files that are there whole or not at all, and gives
// what it makes the right owner.
//
// A daemon that an administrator starts by hand as root, in a directory that
// belongs to the daemon's own user, must leave nothing behind that this user
// cannot read or replace: as root, what is made in a directory belongs to that
// directory's owner. As any other user, nothing is given away.
package safeio

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// MkdirAll makes a directory and those above it that are missing, as
// os.MkdirAll does. As root, what it makes belongs to the owner of the nearest
// directory that was there.
func MkdirAll(path string, perm fs.FileMode) error {
	var missing []string // the outermost last
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	if err := os.MkdirAll(path, perm); err != nil {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := inherit(missing[i]); err != nil {
			return err
		}
	}
	return nil
}

// inherit gives a directory to the owner of the one above it.
func inherit(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	// What lies there now may have been put there by the owner of the
	// directory above: a link is not followed.
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	above, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return give(f, above)
}

// give makes the owner of a directory that of a file in it.
func give(f *os.File, dir fs.FileInfo) error {
	stat, ok := dir.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || stat.Uid == 0 {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}

// GiveSocket gives a socket's file to the owner of the directory that it lies
// in, as far as MkdirAll would.
func GiveSocket(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if stat, ok := dir.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
		return os.Lchown(path, int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// TempPrefix begins the names of files that are not whole yet. One that is
// found at start is from a crash and can be removed.
const TempPrefix = ".new-"

// Write is WriteFile for a directory by its path.
func Write(dir, name string, text []byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return WriteFile(root, name, text)
}

// Append opens a file for writing at its end, and makes it where it is missing.
func Append(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND
	f, err := os.OpenFile(path, flags, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = os.OpenFile(path, flags|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err == nil {
		err = give(f, dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// WriteFile puts text in the place of a file in a directory: whole, and synced,
// so that a crash leaves the former file or the new one, and perhaps one whose
// name begins with TempPrefix. After an error the former file is as it was, but
// for that of the last sync. A directory in the file's place withstands, and is
// an error.
func WriteFile(dir *os.Root, name string, text []byte) (err error) {
	temp := TempPrefix + rand.Text()
	f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if failed := dir.Remove(temp); failed != nil && !errors.Is(failed, fs.ErrNotExist) {
				err = errors.Join(err, failed)
			}
		}
	}()
	err = fill(dir, f, text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if err = dir.Rename(temp, name); err != nil {
		return err
	}
	return SyncDir(dir)
}

// fill writes a new file of a directory.
func fill(dir *os.Root, f *os.File, text []byte) error {
	info, err := dir.Stat(".")
	if err != nil {
		return err
	}
	if err := give(f, info); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

// SyncDir makes what was renamed and removed in a directory last.
func SyncDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	// Some file systems cannot; a name is then as safe as they make it.
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// ErrLocked says that another process has the directory.
var ErrLocked = errors.New("another process has it")

// Lock takes a directory for this process alone, until the file is closed or
// the process ends: ErrLocked when another one has it. Nothing is written. A
// file system that cannot lock is errors.ErrUnsupported; any other error is
// that of opening the directory.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("%w: flock: %w", errors.ErrUnsupported, err)
}
