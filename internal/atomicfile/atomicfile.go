// Package atomicfile replaces small files as a whole: who reads one, also
// after a crash or a power cut in the middle, finds the old text or the new
// one, never a part.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// TempPrefix begins the names of files that are not whole yet. One that is
// found at start is from a crash and can be removed.
const TempPrefix = ".new-"

// Write replaces the file name in dir, mode 0600, and syncs the file and the
// directory before it returns. After an error the old file is as it was,
// unless the error is that of the last sync.
func Write(dir, name string, text []byte) error {
	f, err := os.CreateTemp(dir, TempPrefix)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
